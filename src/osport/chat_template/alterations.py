"""How the parts of a planted request came out: as they went in, escaped, quoted, printed by Python, or changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from osport.chat_template.planting import NAMES, TELLTALE, Part
from osport.chat_template.report import Finding

__all__ = ["THOUGHT", "WHAT", "changed_names", "changed_texts"]

WHAT = {
    "system": "the system prompt",
    "user": "a user turn",
    "assistant": "an assistant turn",
    "tool_result": "a tool result",
    "reasoning": "the reasoning of an assistant turn",
    "call_name": "the name in a tool call",
    "argument": "an argument of a tool call",
    "argument_key": "the name of an argument",
    "tool_name": "a tool",
    "tool_text": "a description in a tool",
    "property": "the name of a parameter",
    "enum": "an allowed value of a parameter",
}


THOUGHT = re.compile(r"</\w*think\w*>|\[/THINK\]|<channel\|>")


def changed_texts(parts: list[Part], text: str) -> Iterator[Finding]:
    """Texts come out once, with all that was planted between their two ends."""
    for part in parts:
        if not part.last:
            continue
        spots = [match.end() for match in re.finditer(re.escape(part.first), text)]
        if len(spots) > 1 and part.kind not in ("tool_text", "argument"):
            yield Finding("error", "repeated", part.path, f"{WHAT[part.kind]} comes out {len(spots)} times")
        for spot in spots[:1]:
            told = _encoding(text[spot : spot + 48])
            end = text.find(part.last, spot)
            if end < 0 and part.last in text:
                told = "altered"  # its end stands before its beginning
            if end >= 0 and told in ("raw", "json", "unicode") and not _same(text[spot:end], part):
                if part.kind == "assistant" and THOUGHT.search(part.text):
                    yield Finding(
                        "note", "reasoning-dropped", part.path, "the template drops the reasoning inside the text"
                    )
                    continue
                if _blanks(text[spot:end]) == _blanks(part.inner):
                    yield Finding(
                        "warning", "blank-lines", part.path, f"{WHAT[part.kind]} comes out without its blank lines"
                    )
                    continue
                told = "altered"
            before = text[: spot - len(part.first)].rstrip().removesuffix('"').rstrip()[-1:]
            if told == "json" and part.kind == "argument" and before not in (":", ",", "[", "="):
                told = "double-encoded"  # a JSON string where this form writes bare text
            if told == "raw" or (told == "json" and part.kind in ("argument", "tool_text")):
                continue
            if told == "json":
                yield Finding("note", "json-quoted", part.path, f"{WHAT[part.kind]} is printed as a JSON string")
            elif told == "unicode":
                yield Finding("warning", "json-escaped", part.path, f"{WHAT[part.kind]} is printed with \\u escapes")
            else:
                yield Finding("error", told, part.path, f"{WHAT[part.kind]} comes out {ALTERED[told]}")


def _same(found: str, part: Part) -> bool:
    """Whether this is the text that was planted, as it is or as the inside of a JSON string."""
    wanted = part.inner
    if part.kind == "tool_text":  # comments are set line by line, with a mark before each
        return _words(found) == _words(wanted) or _words(_decoded(found)) == _words(wanted)
    return found == wanted or _decoded(found) == wanted


def _decoded(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return ""


def _blanks(text: str) -> str:
    return re.sub(r"\n\s*\n", "\n", text)


def _words(text: str) -> str:
    return re.sub(r"[\s/#*]+", "", text)


def changed_names(parts: list[Part], text: str) -> Iterator[Finding]:
    """Names come out as they are, in JSON or bare; the quotes around them tell how an object was printed."""
    for part in parts:
        if part.first.isdigit():
            if f'"{part.first}"' in text:
                yield Finding("error", "altered", part.path, f"{WHAT[part.kind]}, a number, comes out as a text")
            continue
        at = text.find(f"_{part.first}") if part.kind in NAMES else -1
        if at >= 0 and (found := _changed_name(part, text[:at], text[at + 1 + len(part.first) :])):
            yield found
        if part.kind == "argument_key" and text.count(part.first) > 1:
            yield Finding("error", "repeated", part.path, f"{WHAT[part.kind]} comes out more than once")


def _changed_name(part: Part, before: str, behind: str) -> Finding | None:
    quoted = json.dumps(part.text, ensure_ascii=False)[1:-1]
    name = next((form for form in (part.text, quoted) if before.endswith(form)), None)
    told = ""
    if name is None:
        if _decoded(before[-6 * len(part.text) :]).endswith(part.text):
            return Finding("warning", "json-escaped", part.path, f"{WHAT[part.kind]} is printed with \\u escapes")
        return Finding("error", "altered", part.path, f"{WHAT[part.kind]} comes out {ALTERED['altered']}")
    before = before[: len(before) - len(name)]
    if re.match(r'\\+"', behind) and before.endswith('\\"'):
        told = "double-encoded"
    elif before.endswith("'") and (behind.startswith("':") or before.endswith("': '")):
        told = "python-repr"
    elif part.inner and (value := VALUE.match(behind)) and value[1].lower().replace("none", "null") != part.inner:
        return Finding("error", "altered", part.path, f"the value of an argument comes out as {value[1]}")
    return Finding("error", told, part.path, f"{WHAT[part.kind]} comes out {ALTERED[told]}") if told else None


# The value behind the name of an argument, as JSON and Python write it; other forms are not read.
VALUE = re.compile(r"""["']?\s?[:=]\s?(true|false|null|none|-?\d+)\b""", re.IGNORECASE)


ALTERED = {
    "html-escaped": "with HTML escapes",
    "double-encoded": "encoded as JSON twice; the model learns to write it that way",
    "python-repr": "as Python prints it, not as text",
    "altered": "changed",
}


def _encoding(after: str) -> str:
    for told, form in (
        ("raw", TELLTALE),
        ("unicode", "<&\\\"'{\\u00"),
        ("json", "<&\\\"'"),
        ("python-repr", "<&\"\\'"),
        ("unicode", "\\u003c\\u0026"),
        ("unicode", "<&\\u0022"),
        ("double-encoded", "<&\\\\"),
    ):
        if after.startswith(form):
            return told
    if after.startswith(("&lt;", "<&amp;", "&amp;", "<&&quot;", "<&&#34;")):
        return "html-escaped"
    return "altered"

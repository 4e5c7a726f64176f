"""A unique string in every part of a request: each must come out of the template once, in order, unescaped.

The canary finds what a template drops, repeats, escapes or moves without knowing the family.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from osport.chat_template.conversation import REASONING
from osport.chat_template.planting import NAMES, TELLTALE, Part, plant
from osport.chat_template.renderer import stopped
from osport.chat_template.report import Finding
from osport.errors import TemplateError

__all__ = ["check", "compare", "refusal"]


Render = Callable[[list[dict[str, Any]], list[dict[str, Any]] | None], str]


def check(
    render: Render,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
) -> list[Finding]:
    """Plant, render, and report every part that did not come out as it went in."""
    planted, planted_tools, parts = plant(messages, tools)
    try:
        text = render(planted, planted_tools)
    except TemplateError as error:
        return [refusal(error)]
    return [*compare(parts, text, planted, planted_tools), *_blocks(render, text, planted, planted_tools)]


def refusal(error: TemplateError) -> Finding:
    """A template that renders nothing: because it refuses the conversation, or because it was stopped."""
    if stopped(error):
        return Finding("error", "stopped", "template", str(error))
    return Finding("error", "refused", "messages", str(error))


def _blocks(
    render: Render, text: str, planted: list[dict[str, Any]], planted_tools: list[dict[str, Any]] | None
) -> Iterator[Finding]:
    """Images, and whatever else is no text: each must change the prompt, or it does not come out."""
    for index, message in enumerate(planted):
        if not isinstance(content := message.get("content"), list):
            continue
        for at, block in enumerate(content):
            kind = block.get("type") if isinstance(block, Mapping) else None
            if not isinstance(kind, str) or "text" in block or kind in REASONING:
                continue
            fewer = [*planted[:index], {**message, "content": content[:at] + content[at + 1 :]}, *planted[index + 1 :]]
            try:
                lost = render(fewer, planted_tools) == text
            except TemplateError:
                continue
            if lost:
                kind = "image" if kind.startswith("image") else kind
                yield Finding("error", "dropped", f"messages[{index}].content[{at}]", f"the template drops the {kind}")


def compare(
    parts: list[Part],
    text: str,
    planted: Sequence[Mapping[str, Any]],
    planted_tools: Sequence[Mapping[str, Any]] | None,
) -> list[Finding]:
    """Every part of a planted request that is not in the rendered text as it should be."""
    last_user = max((i for i, m in enumerate(planted) if m.get("role") == "user"), default=-1)
    return [
        *_missing(parts, text, last_user),
        *_altered(parts, text),
        *_names(parts, text),
        *_order(parts, text),
        *_whole(text, planted, planted_tools),
    ]


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


def _missing(parts: list[Part], text: str, last_user: int) -> Iterator[Finding]:
    beside = {part.turn for part in parts if part.kind == "call_name"}
    for part in parts:
        found = text.count(part.first)
        ends = text.count(part.last) if part.last else found
        if found and ends:
            continue
        what = WHAT[part.kind]
        if part.kind == "assistant" and part.turn in beside:
            what = "the text beside a tool call"
        if part.kind == "reasoning":
            if part.turn < last_user:
                yield Finding(
                    "note", "reasoning-dropped", part.path, "the template drops the reasoning of earlier turns"
                )
            else:
                yield Finding(
                    "warning", "reasoning-dropped", part.path, "the template drops the reasoning of the running turn"
                )
        elif part.kind == "assistant" and not found and ends and THOUGHT.search(part.text):
            yield Finding("note", "reasoning-dropped", part.path, "the template drops the reasoning inside the text")
        elif part.kind == "tool_text" and ".parameters" in part.path:
            yield Finding("warning", "description-dropped", part.path, "the template does not print this description")
        elif part.kind in ("property", "enum") and not _plain_place(part):
            yield Finding("warning", "schema-dropped", part.path, f"the template does not print {what}")
        elif (found and not ends) or (ends and not found):
            yield Finding("error", "truncated", part.path, f"only a piece of {what} comes out of the template")
        else:
            yield Finding("error", "dropped", part.path, f"the template drops {what}")


def _plain_place(part: Part) -> bool:
    """Whether every template that offers tools writes this: published ones drop the rest here and there.

    gpt-oss and Gemma 4 write numbers of an enum, enums of list items, and references as bare types.
    """
    place = PLAIN_PROPERTY if part.kind == "property" else PLAIN_ENUM
    return place.fullmatch(part.path) is not None and not part.first.isdigit()


PLAIN_PROPERTY = re.compile(r"tools\[\d+\]\.parameters(\.items|\.properties\.[^.]+)+")
PLAIN_ENUM = re.compile(r"tools\[\d+\]\.parameters\.properties\.[^.]+\.enum\[\d+\]")
THOUGHT = re.compile(r"</\w*think\w*>|\[/THINK\]|<channel\|>")


def _altered(parts: list[Part], text: str) -> Iterator[Finding]:
    for part in parts:
        if not part.last:
            continue
        spots = [match.end() for match in re.finditer(re.escape(part.first), text)]
        if len(spots) > 1 and part.kind not in ("tool_text", "argument"):
            yield Finding("error", "repeated", part.path, f"{WHAT[part.kind]} comes out {len(spots)} times")
        for spot in spots[:1]:
            told = _encoding(text[spot : spot + 48])
            end = text.find(part.last, spot)
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


def _names(parts: list[Part], text: str) -> Iterator[Finding]:
    """Names come out as they are, in JSON or bare; the quotes around them tell how an object was printed."""
    for part in parts:
        at = text.find(f"_{part.first}") if part.kind in NAMES and not part.first.isdigit() else -1
        if at < 0:
            continue
        quoted = json.dumps(part.text, ensure_ascii=False)[1:-1]
        name = next((form for form in (part.text, quoted) if text.endswith(form, 0, at)), None)
        behind = text[at + 1 + len(part.first) :]
        if name is None:
            if _decoded(text[max(0, at - 6 * len(part.text)) : at]).endswith(part.text):
                yield Finding("warning", "json-escaped", part.path, f"{WHAT[part.kind]} is printed with \\u escapes")
            else:
                yield Finding("error", "altered", part.path, f"{WHAT[part.kind]} comes out {ALTERED['altered']}")
            continue
        before = text[: at - len(name)]
        if re.match(r'\\+"', behind) and before.endswith('\\"'):
            told = "double-encoded"
        elif before.endswith("'") and (behind.startswith("':") or before.endswith("': '")):
            told = "python-repr"
        else:
            continue
        yield Finding("error", told, part.path, f"{WHAT[part.kind]} comes out {ALTERED[told]}")


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


def _order(parts: list[Part], text: str) -> Iterator[Finding]:
    places = [
        (text.find(part.first), part)
        for part in parts
        if part.kind in ("system", "user", "assistant", "tool_result") and part.first in text
    ]
    reach, farthest = -1, None
    for place, part in places:
        if part.kind == "system":
            continue
        if place < reach:
            # Some templates print the text beside a tool call behind the result, inside one turn of the model.
            inside = part.kind == "tool_result" and farthest is not None and farthest.kind == "assistant"
            yield Finding(
                "warning" if inside else "error",
                "reordered",
                part.path,
                f"{WHAT[part.kind]} comes out before an earlier one",
            )
        else:
            reach, farthest = place, part
    calls: dict[int, int] = {}
    for part in parts:
        # Kimi writes the name of the tool again in front of its result.
        if part.kind in ("argument_key", "argument") and part.first in text:
            calls[part.turn] = min(text.find(part.first), calls.get(part.turn, len(text)))
    for place, part in places:
        if part.kind == "tool_result" and any(turn < part.turn and call > place for turn, call in calls.items()):
            yield Finding("error", "reordered", part.path, "a tool result comes out before an earlier call")
    for (place, part), (following, _) in pairwise(places):
        if part.kind == "system" and place > following:
            yield Finding("warning", "moved", part.path, "the system prompt comes out behind a later turn")


def _whole(text: str, planted: Sequence[Mapping[str, Any]], tools: object) -> Iterator[Finding]:
    given = json.dumps([planted, tools], ensure_ascii=False, default=str)
    if re.search(r"\[\{'type': ?'", text) and "[{'type':" not in given:
        yield Finding("error", "python-repr", "messages", "a list of content parts is printed as Python prints it")
    if (escape := re.search(r"&#3[49];", text)) and escape.group() not in given:
        yield Finding("error", "html-escaped", "messages", "quotes around tool calls come out with HTML escapes")
    if re.search(r'\{\{"[^"{}]*": ?"?kq\d+a', text) and '{{"' not in given:
        yield Finding("error", "doubled-braces", "messages", "the braces around tool arguments are doubled")

"""A unique string in every part of a request: each must come out of the template once, in order, unescaped.

The canary finds what a template drops, repeats, escapes or moves without knowing the family.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from attrs import frozen

from osport.chat_template.report import Finding
from osport.errors import TemplateError

__all__ = ["Part", "check", "plant"]

Kind = Literal[
    "system", "user", "assistant", "tool_result", "reasoning", "call_name", "argument", "tool_name", "tool_text"
]

# What an escape would change: HTML escapes < & " ', JSON escapes ", Python's repr escapes '.
TELLTALE = "<&\"'"


@frozen
class Part:
    """One piece of the request, where it stands, and the two words around it that are looked for."""

    path: str
    kind: Kind
    turn: int
    first: str
    last: str
    text: str


class _Planter:
    def __init__(self, avoid: str, telltale: str) -> None:
        self.parts: list[Part] = []
        self._avoid = avoid
        self._telltale = telltale
        self._number = 0

    def words(self) -> tuple[str, str]:
        while True:
            self._number += 1
            first, last = f"kq{self._number:03d}a", f"kq{self._number:03d}z"
            if first not in self._avoid and last not in self._avoid:
                return first, last

    def text(self, value: str, path: str, kind: Kind, turn: int = -1) -> str:
        first, last = self.words()
        self.parts.append(Part(path, kind, turn, first, last, value))
        return f"{first}{self._telltale} {value} {last}" if self._telltale else f"{first}{value}{last}"

    def name(self, value: str, path: str, kind: Kind, turn: int = -1) -> str:
        first, _ = self.words()
        self.parts.append(Part(path, kind, turn, first, "", value))
        return f"{value}_{first}"

    def leaves(self, value: Any, path: str, kind: Kind, turn: int) -> Any:
        if isinstance(value, str):
            return self.text(value, path, kind, turn)
        if isinstance(value, Mapping):
            return {key: self.leaves(item, f"{path}.{key}", kind, turn) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.leaves(item, f"{path}[{index}]", kind, turn) for index, item in enumerate(value)]
        return value

    def descriptions(self, schema: Any, path: str) -> Any:
        if isinstance(schema, Mapping):
            return {
                key: self.text(item, f"{path}.{key}", "tool_text")
                if key == "description" and isinstance(item, str)
                else self.descriptions(item, f"{path}.{key}")
                for key, item in schema.items()
            }
        return schema


def plant(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    *,
    telltale: str = TELLTALE,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None, list[Part]]:
    """The same request with a canary in every part, and the list of parts."""
    planter = _Planter(json.dumps([messages, tools], ensure_ascii=False, default=str), telltale)
    called: dict[str, str] = {}
    planted_tools = [_plant_tool(tool, index, planter) for index, tool in enumerate(tools)] if tools else None
    planted = [_plant_message(message, index, planter, called) for index, message in enumerate(messages)]
    return planted, planted_tools, planter.parts


def _fresh(value: Any) -> Any:
    """A copy in which no two places share an object, as two tool calls of one request may."""
    if isinstance(value, Mapping):
        return {key: _fresh(item) for key, item in value.items()}
    return [_fresh(item) for item in value] if isinstance(value, list | tuple) else value


def _plant_tool(tool: Mapping[str, Any], index: int, planter: _Planter) -> dict[str, Any]:
    copied: dict[str, Any] = _fresh(tool)
    inner = copied.get("function")
    function = inner if isinstance(inner, dict) else copied
    path = f"tools[{index}]"
    if isinstance(name := function.get("name"), str):
        function["name"] = planter.name(name, f"{path}.name", "tool_name")
    if isinstance(text := function.get("description"), str) and text:
        function["description"] = planter.text(text, f"{path}.description", "tool_text")
    if "parameters" in function:
        function["parameters"] = planter.descriptions(function["parameters"], f"{path}.parameters")
    return copied


def _plant_message(message: Mapping[str, Any], index: int, planter: _Planter, called: dict[str, str]) -> dict[str, Any]:
    """``called`` remembers, for a call id, the name that was planted: the result of the call says it again."""
    planted: dict[str, Any] = _fresh(message)
    path, role = f"messages[{index}]", str(message.get("role"))
    kind: Kind = "tool_result" if role == "tool" else role if role in ("system", "assistant") else "user"  # type: ignore[assignment]
    reasoning = next((key for key in ("reasoning_content", "thinking", "reasoning") if message.get(key)), None)
    if reasoning is not None and isinstance(message[reasoning], str):
        planted[reasoning] = planter.text(message[reasoning], f"{path}.{reasoning}", "reasoning", index)
    content = message.get("content")
    if isinstance(content, str) and content:
        planted["content"] = planter.text(content, f"{path}.content", kind, index)
    elif isinstance(content, list | tuple):
        planted["content"] = [
            {**block, "text": planter.text(block["text"], f"{path}.content[{at}].text", kind, index)}
            if isinstance(block, Mapping) and isinstance(block.get("text"), str) and block["text"]
            else block
            for at, block in enumerate(content)
        ]
    for at, call in enumerate(planted.get("tool_calls") or ()):
        function = call.get("function", call)
        here = f"{path}.tool_calls[{at}]"
        if isinstance(name := function.get("name"), str):
            function["name"] = planter.name(name, f"{here}.name", "call_name", index)
            if isinstance(call_id := call.get("id"), str):
                called[call_id] = function["name"]
                call["id"] = call_id.replace(f".{name}:", f".{function['name']}:")  # functions.weather:0
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            try:
                function["arguments"] = json.dumps(
                    planter.leaves(json.loads(arguments), f"{here}.arguments", "argument", index), ensure_ascii=False
                )
            except ValueError:
                function["arguments"] = planter.text(arguments, f"{here}.arguments", "argument", index)
        elif arguments is not None:
            function["arguments"] = planter.leaves(arguments, f"{here}.arguments", "argument", index)
    if (call_id := planted.get("tool_call_id")) in called:
        name = called[call_id]
        planted["tool_call_id"] = call_id.replace(f".{name.rpartition('_')[0]}:", f".{name}:")
        if "name" in planted:
            planted["name"] = name
    return planted


def check(
    render: Callable[[list[dict[str, Any]], list[dict[str, Any]] | None], str],
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
) -> list[Finding]:
    """Plant, render, and report every part that did not come out as it went in."""
    planted, planted_tools, parts = plant(messages, tools)
    try:
        text = render(planted, planted_tools)
    except TemplateError as error:
        return [Finding("error", "refused", "messages", str(error))]
    return compare(parts, text, planted, planted_tools)


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
    "tool_name": "a tool",
    "tool_text": "a description in a tool",
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
        elif part.kind == "assistant" and not found and ends and re.search(r"</\w*think\w*>", part.text):
            yield Finding("note", "reasoning-dropped", part.path, "the template drops the reasoning inside the text")
        elif part.kind == "tool_text" and ".parameters" in part.path:
            yield Finding("warning", "description-dropped", part.path, "the template does not print this description")
        elif (found and not ends) or (ends and not found):
            yield Finding("error", "truncated", part.path, f"only a piece of {what} comes out of the template")
        else:
            yield Finding("error", "dropped", part.path, f"the template drops {what}")


def _altered(parts: list[Part], text: str) -> Iterator[Finding]:
    for part in parts:
        if not part.last:
            continue
        spots = [match.end() for match in re.finditer(re.escape(part.first), text)]
        if len(spots) > 1 and part.kind not in ("tool_text", "argument"):
            yield Finding("error", "repeated", part.path, f"{WHAT[part.kind]} comes out {len(spots)} times")
        for spot in spots[:1]:
            told = _encoding(text[spot : spot + 48])
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


ALTERED = {
    "html-escaped": "with HTML escapes",
    "double-encoded": "encoded as JSON twice; the model learns to write it that way",
    "python-repr": "as Python prints it, not as text",
    "altered": "changed",
}


def _encoding(after: str) -> str:
    for told, form in (
        ("raw", TELLTALE),
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

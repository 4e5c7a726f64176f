"""The same request with a unique word before and behind every part of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import frozen

__all__ = ["TELLTALE", "Part", "plant"]

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

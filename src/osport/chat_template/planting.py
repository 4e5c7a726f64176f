"""The same request with a unique word before and behind every part of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import frozen

from osport.errors import UsageError

__all__ = ["NAMES", "Part", "plant"]

Kind = Literal[
    "system",
    "user",
    "assistant",
    "tool_result",
    "reasoning",
    "call_name",
    "argument",
    "argument_key",
    "tool_name",
    "tool_text",
    "property",
    "enum",
]

NAMES = frozenset({"call_name", "argument_key", "tool_name", "property", "enum"})

# What an escape would change: HTML escapes < & " ', JSON escapes ", Python's repr escapes '. Behind it what
# |lower, |replace and a template that keeps plain ASCII would change.
TELLTALE = "<&\"'{Ä}B"
# A template that joins words anew changes this, too. Descriptions are set anew on purpose, as comments.
SPACES = "\n  c"

# Templates that write a schema in a language of their own look for these, so they keep their names.
VOCABULARY = frozenset(
    (  # noqa: SIM905 - words in a row read better than a column of literals
        "type description properties required nullable items enum name title default format anyOf oneOf allOf"
    ).split()
)
VALUES = frozenset({"default", "const", "examples", "example"})  # of a schema: no schemas inside
FIRST_NUMBER = 731_000_001


@frozen
class Part:
    """One piece of the request, where it stands, and what is looked for in the prompt.

    A text has a word before it, ``first``, and one behind it, ``last``, with ``inner`` between them. A name has
    the word ``first`` at its end; ``inner`` is the JSON of its value where that cannot be replaced (true, null, 0).
    Of a number nothing is left but ``first``, another number.
    """

    path: str
    kind: Kind
    turn: int
    first: str
    last: str
    text: str
    inner: str = ""


class _Planter:
    def __init__(self, avoid: str, telltale: bool) -> None:
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
        inner = value
        if self._telltale:
            inner = f"{TELLTALE}{'' if kind == 'tool_text' else SPACES} {value} "
        self.parts.append(Part(path, kind, turn, first, last, value, inner))
        return f"{first}{inner}{last}"

    def name(self, value: str, path: str, kind: Kind, turn: int = -1, inner: str = "") -> str:
        first, _ = self.words()
        self.parts.append(Part(path, kind, turn, first, "", value, inner))
        return f"{value}_{first}"

    def number(self, value: float, path: str, kind: Kind, turn: int = -1) -> float:
        """Another number in place of this one, a fraction for a fraction. 0 stays: it may be taken for nothing."""
        if not self._telltale or not value:
            return value
        self._number += 1
        planted: float = FIRST_NUMBER + self._number
        if isinstance(value, float):
            planted += 0.5
        if str(planted) in self._avoid:
            return self.number(value, path, kind, turn)
        self.parts.append(Part(path, kind, turn, str(planted), "", str(value)))
        return planted

    def leaves(self, value: Any, path: str, turn: int) -> Any:
        """The arguments of a call. What is empty or false stays, and its name is looked for."""
        if isinstance(value, str):
            return self.text(value, path, "argument", turn) if value else value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self.number(value, path, "argument", turn)
        if isinstance(value, Mapping):
            return {
                self.key(key, item, path, turn): self.leaves(item, f"{path}.{key}", turn) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.leaves(item, f"{path}[{index}]", turn) for index, item in enumerate(value)]
        return value

    def key(self, key: Any, value: Any, path: str, turn: int) -> Any:
        if not isinstance(key, str) or not key:
            return key
        stays = value is None or isinstance(value, bool) or (value == 0 and type(value) is int)
        expected = json.dumps(value) if stays else ""
        return self.name(key, f"{path}.{key}", "argument_key", turn, expected)

    def schema(self, value: Any, path: str) -> Any:
        """Descriptions, names of properties, and members of enums, wherever they stand in a schema."""
        if isinstance(value, list | tuple):
            return [self.schema(item, f"{path}[{index}]") for index, item in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        planted: dict[str, Any] = {}
        new_names: dict[str, str] = {}
        for key, item in value.items():
            here = f"{path}.{key}"
            if key == "description" and isinstance(item, str):
                planted[key] = self.text(item, here, "tool_text")
            elif key == "enum" and isinstance(item, list | tuple):
                planted[key] = [self.member(member, f"{here}[{index}]") for index, member in enumerate(item)]
            elif key == "properties" and isinstance(item, Mapping):
                new_names = {
                    name: name if name in VOCABULARY or not name else self.name(name, f"{here}.{name}", "property")
                    for name in map(str, item)
                }
                planted[key] = {new_names[str(name)]: self.schema(item[name], f"{here}.{name}") for name in item}
            else:
                planted[key] = item if key in VALUES else self.schema(item, here)
        if isinstance(needed := value.get("required"), list | tuple):
            planted["required"] = [new_names.get(name, name) if isinstance(name, str) else name for name in needed]
        return planted

    def member(self, value: Any, path: str) -> Any:
        if isinstance(value, str):
            return self.name(value, path, "enum")
        return self.number(value, path, "enum") if type(value) in (int, float) else value


def plant(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    *,
    telltale: bool = True,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None, list[Part]]:
    """The same request with a canary in every part, and the list of parts.

    Without ``telltale`` the words alone are planted, so that the rest of the prompt stays as it is.
    """
    try:
        planter = _Planter(json.dumps([messages, tools], ensure_ascii=False, default=str), telltale)
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"the request is no JSON: {error}") from error
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
        function["parameters"] = planter.schema(function["parameters"], f"{path}.parameters")
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
                    planter.leaves(json.loads(arguments), f"{here}.arguments", index), ensure_ascii=False
                )
            except ValueError:
                function["arguments"] = planter.text(arguments, f"{here}.arguments", "argument", index)
        elif arguments is not None:
            function["arguments"] = planter.leaves(arguments, f"{here}.arguments", index)
    if (call_id := planted.get("tool_call_id")) in called:
        name = called[call_id]
        planted["tool_call_id"] = call_id.replace(f".{name.rpartition('_')[0]}:", f".{name}:")
        if "name" in planted:
            planted["name"] = name
    return planted

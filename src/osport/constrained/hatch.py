"""A way for the model to say that it does not know: a field that may hold one more value."""

from __future__ import annotations

import copy
from typing import Any

from attrs import frozen

from osport.constrained.schema import json_path
from osport.errors import UsageError

__all__ = ["Hatch", "with_hatch"]

CONFIDENCE = "confidence"


ELEMENTS = "[]"


@frozen
class Hatch:
    """Where the answer may say that it does not know, and how. ``[]`` in ``on`` stands for each element of a list."""

    on: tuple[str, ...]
    value: Any

    def taken(self, answer: Any) -> bool:
        """Whether the answer says, at that place or in one element at least, that it does not know."""
        found = [answer]
        for name in self.on:
            if name == ELEMENTS:
                found = [element for value in found if isinstance(value, list) for element in value]
            else:
                found = [value[name] for value in found if isinstance(value, dict) and name in value]
        return any(type(value) is type(self.value) and value == self.value for value in found)


def with_hatch(schema: Any, on: str, value: Any, *, confidence: bool) -> tuple[dict[str, Any], Hatch]:
    """The schema with ``value`` allowed at the property ``on``: ``outer.inner`` for a nested one, ``list[].inner``
    for one in the elements of a list.

    An ``enum`` gains the value, anything else becomes a choice with it; the description says what it means.
    ``confidence`` adds a required number from 0 to 1 beside it: the model's claim, no probability.
    Raises :class:`~osport.errors.UsageError` when there is no such property, or the value is allowed already.
    """
    new: Any = copy.deepcopy(schema)
    path = tuple(on.replace(ELEMENTS, f".{ELEMENTS}").strip(".").split("."))
    if path[-1] == ELEMENTS:
        raise UsageError(f"on={on!r}: name a property of the elements, as in {on}.kind")
    node = new = _own(new, new)
    for depth, name in enumerate(path):
        inside = node if isinstance(node, dict) else {}
        holder, key = (inside, "items") if name == ELEMENTS else (inside.get("properties"), name)
        if not isinstance(holder, dict) or key not in holder:
            raise UsageError(f"on={on!r}: the schema has no property {json_path(path[: depth + 1])}")
        around, node = node, _own(holder[key], new)
        holder[key] = node
    around["properties"][path[-1]] = opened(node, value, on)
    if confidence:
        if CONFIDENCE in around["properties"]:
            raise UsageError(f"confidence=True: the property {CONFIDENCE!r} exists already")
        claim = {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": f"How sure you are of {path[-1]}, 0 to 1.",
        }
        around["properties"][CONFIDENCE] = claim
        around["required"] = [*around.get("required", []), CONFIDENCE]
    return new, Hatch(path, value)


def _own(node: Any, root: Any) -> Any:
    """The node without its reference, so that what changes in it changes here alone."""
    while isinstance(node, dict) and str(node.get("$ref", "")).startswith("#/"):
        found = root
        for name in node["$ref"][2:].split("/"):
            found = found[name.replace("~1", "/").replace("~0", "~")]
        if not isinstance(found, dict):
            break
        node = {**copy.deepcopy(found), **{name: value for name, value in node.items() if name != "$ref"}}
    return node


def opened(node: Any, value: Any, on: str) -> dict[str, Any]:
    """One property's schema that allows the value, too."""
    rules = dict(node) if isinstance(node, dict) else {}
    meaning = "null" if value is None else repr(value) if not isinstance(value, str) else value
    told = {"description": f"{rules.pop('description', '')} Answer {meaning} when you cannot tell.".strip()}
    if "enum" in rules and set(rules) <= {"enum", "type"}:
        if value in rules["enum"]:
            raise UsageError(f"value={value!r} is allowed at {on!r} already")
        return {**told, "enum": [*rules["enum"], value]}
    return {**told, "anyOf": [rules or node, {"const": value}]}

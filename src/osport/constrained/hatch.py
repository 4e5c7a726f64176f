"""A way for the model to say that it does not know: a field that may hold one more value."""

from __future__ import annotations

import copy
from typing import Any

from attrs import frozen

from osport.constrained.schema import json_path
from osport.errors import UsageError

__all__ = ["Hatch", "with_hatch"]

CONFIDENCE = "confidence"


@frozen
class Hatch:
    """Where the answer may say that it does not know, and how."""

    on: tuple[str, ...]
    value: Any

    def taken(self, answer: Any) -> bool:
        """Whether the answer says that it does not know."""
        for name in self.on:
            if not isinstance(answer, dict) or name not in answer:
                return False
            answer = answer[name]
        return type(answer) is type(self.value) and bool(answer == self.value)


def with_hatch(schema: Any, on: str, value: Any, *, confidence: bool) -> tuple[dict[str, Any], Hatch]:
    """The schema with ``value`` allowed at the property ``on`` (``outer.inner`` for a nested one).

    An ``enum`` gains the value, anything else becomes a choice with it; the description says what it means.
    ``confidence`` adds a required number from 0 to 1 beside it: the model's claim, no probability.
    Raises :class:`~osport.errors.UsageError` when there is no such property, or the value is allowed already.
    """
    new: Any = copy.deepcopy(schema)
    node = new
    path = tuple(on.split("."))
    for depth, name in enumerate(path):
        properties = node.get("properties") if isinstance(node, dict) else None
        if not isinstance(properties, dict) or name not in properties:
            raise UsageError(f"on={on!r}: the schema has no property {json_path(path[: depth + 1])}")
        holder, node = node, properties[name]
    holder["properties"][path[-1]] = opened(node, value, on)
    if confidence:
        if CONFIDENCE in holder["properties"]:
            raise UsageError(f"confidence=True: the property {CONFIDENCE!r} exists already")
        claim = {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": f"How sure you are of {path[-1]}, 0 to 1.",
        }
        holder["properties"][CONFIDENCE] = claim
        holder["required"] = [*holder.get("required", []), CONFIDENCE]
    return new, Hatch(path, value)


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

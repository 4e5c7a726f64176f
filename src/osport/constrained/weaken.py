"""A weaker schema that an engine enforces exactly, and the names of what is left to be verified afterwards."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

from osport.constrained.refusal import KeywordRefused
from osport.constrained.schema import NodePath, json_path

__all__ = ["weakened"]

MAX_DROPS = 200
MAX_SECONDS = 10.0

# What a dropped keyword takes with it, because it would mean something stronger alone.
WITH = {
    "patternProperties": ("additionalProperties", "unevaluatedProperties"),
    "prefixItems": ("items", "additionalItems", "unevaluatedItems"),
    "contains": ("minContains", "maxContains"),
    "minContains": ("contains", "maxContains"),
    "maxContains": ("contains", "minContains"),
    "if": ("then", "else"),
    "then": ("if", "else"),
    "else": ("if", "then"),
}
# Below these, a weaker schema makes the whole stronger.
TURNING = ("not", "if")


def weakened(schema: Any, enforce: Callable[[Any], object]) -> tuple[Any, tuple[str, ...]]:
    """The schema without what ``enforce`` refuses, which allows at least the same values; and what was dropped.

    ``enforce`` raises :class:`KeywordRefused` for the first keyword that the engine would not enforce;
    the same is raised here when nothing can be dropped where it points.
    """
    weaker = copy.deepcopy(schema)
    dropped: list[str] = []
    deadline = time.monotonic() + MAX_SECONDS
    for _ in range(MAX_DROPS):
        try:
            enforce(weaker)
        except KeywordRefused as refusal:
            if not isinstance(weaker, dict) or not refusal.path or time.monotonic() > deadline:
                raise
            dropped.append(drop(weaker, refusal))
        else:
            return weaker, tuple(dropped)
    enforce(weaker)
    return weaker, tuple(dropped)


def drop(schema: dict[str, Any], refusal: KeywordRefused) -> str:
    """Remove the refused keyword in place, or the outermost one around it that turns weaker into stronger."""
    path: NodePath = refusal.path
    at: Any = schema
    for depth, part in enumerate(path[:-1]):
        if isinstance(at, dict) and part in (*TURNING, "oneOf") and not name_of_property(path, depth):
            path = path[: depth + 1]
            break
        at = at[part]
    keyword = str(path[-1])
    if not isinstance(at, dict) or keyword not in at:
        raise refusal
    value = at.pop(keyword)
    if keyword == "oneOf":
        # One of several, or more than one: the union allows at least as much.
        at["allOf"] = [*at.get("allOf", []), {"anyOf": value}]
    for other in WITH.get(keyword, ()):
        at.pop(other, None)
    return f"{keyword} at {json_path(path)}"


def name_of_property(path: NodePath, depth: int) -> bool:
    """Whether a part of the path is a name that the schema's author chose, and no keyword."""
    before = path[depth - 1] if depth else ""
    maps = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
    return before in maps and not name_of_property(path, depth - 1)

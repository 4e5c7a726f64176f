"""A JSON Schema as a tree: where in it the subschemas stand, and how a place is called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

__all__ = ["NodePath", "Schema", "json_path", "pointed_at", "walk"]

Schema = Mapping[str, Any] | bool
NodePath = tuple[str | int, ...]

# Where subschemas stand under a keyword: in its value, in a list, or by names of the author's own.
PLACES: dict[str, frozenset[str]] = {}
for _kind, _keywords in {
    "one": "additionalItems additionalProperties contains else if items not propertyNames then unevaluatedItems "
    "unevaluatedProperties",
    "list": "allOf anyOf items oneOf prefixItems",
    "map": "$defs definitions dependencies dependentSchemas patternProperties properties",
}.items():
    for _keyword in _keywords.split():
        PLACES[_keyword] = PLACES.get(_keyword, frozenset()) | {_kind}


def walk(schema: Schema) -> Iterator[tuple[NodePath, Schema]]:
    """Every subschema with its path from the root, the root first, in document order.

    Last come those that stand where no keyword looks for a schema, and only a ``$ref`` finds them.
    """
    pending: list[tuple[NodePath, Any]] = [((), schema)]
    references: dict[str, None] = {}
    seen: set[int] = set()
    while pending:
        path, node = pending.pop()
        yield path, node
        if isinstance(node, dict):
            seen.add(id(node))
            below: list[tuple[NodePath, Any]] = []
            for keyword, value in node.items():
                if kinds := PLACES.get(keyword):
                    add_children(below, (*path, keyword), value, kinds)
                elif keyword == "$ref" and isinstance(value, str):
                    references[value] = None
            pending += reversed(below)
        while references and not pending:
            place, target = pointed_at(schema, references.popitem()[0]) or ((), None)
            if isinstance(target, dict) and id(target) not in seen:
                pending.append((place, target))


def add_children(into: list[tuple[NodePath, Any]], path: NodePath, value: Any, kinds: frozenset[str]) -> None:
    """Add the subschemas that stand under one keyword; ``kinds`` says in which ways they may."""
    if isinstance(value, dict) and "map" in kinds:
        into += [((*path, name), child) for name, child in value.items() if isinstance(child, dict | bool)]
    elif isinstance(value, dict | bool):
        if "one" in kinds:
            into.append((path, value))
    elif isinstance(value, list) and "list" in kinds:
        into += [((*path, index), child) for index, child in enumerate(value)]


def json_path(path: NodePath) -> str:
    """A path as people read it: ``$.properties.score.maximum``."""
    text = "$"
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if re.fullmatch(r"[\w$-]+", part) else f"[{json.dumps(part)}]"
    return text


def pointed_at(schema: Schema, reference: str) -> tuple[NodePath, Schema] | None:
    """The place and the subschema that a JSON pointer into the document leads to."""
    if reference == "#":
        return (), schema
    if not reference.startswith("#/"):
        return None
    at: Any = schema
    path: NodePath = ()
    for part in unquote(reference[2:]).split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(at, dict) and name in at:
            at, path = at[name], (*path, name)
        elif isinstance(at, list) and name.isdigit() and int(name) < len(at):
            at, path = at[int(name)], (*path, int(name))
        else:
            return None
    return (path, at) if isinstance(at, dict | bool) else None

"""A JSON Schema as a tree: where in it the subschemas stand, and how a place is called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

__all__ = [
    "TO_DEFINITION",
    "NodePath",
    "Schema",
    "json_path",
    "objects_and_depth",
    "objects_of",
    "places_of",
    "pointed_at",
    "walk",
]

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


# A reference to where walking comes by itself.
TO_DEFINITION = re.compile(r"#/(?:\$defs|definitions)/[^/~%]+")
SCHEMA = (dict, bool)  # making a union takes longer than asking for it


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
                elif keyword == "$ref" and isinstance(value, str) and not TO_DEFINITION.fullmatch(value):
                    references[value] = None
            below.reverse()
            pending += below
        while references and not pending:
            place, target = pointed_at(schema, references.popitem()[0]) or ((), None)
            if isinstance(target, dict) and id(target) not in seen:
                pending.append((place, target))


def objects_of(schema: Schema) -> list[dict[str, Any]]:
    """Every subschema that is an object, those included that only a ``$ref`` finds, the outer ones first.

    It takes a third of the time of :func:`walk`, which tells their places, too.
    """
    return objects_and_depth(schema)[0]


def objects_and_depth(schema: Schema) -> tuple[list[dict[str, Any]], int]:
    """The objects of a schema as in :func:`objects_of`, and how many of them stand in one another at most."""
    found: list[dict[str, Any]] = []
    seen: set[int] = set()
    references: dict[str, None] = {}  # in their order: of several faults always the same one is to be told
    level: list[Any] = [schema]
    depth = deepest = 0
    while level:
        below: list[Any] = []
        for node in level:
            if not isinstance(node, dict) or id(node) in seen:
                continue
            seen.add(id(node))
            found.append(node)
            for keyword, value in node.items():
                if kinds := PLACES.get(keyword):
                    if isinstance(value, dict):
                        if "map" in kinds:
                            below += value.values()
                        elif "one" in kinds:
                            below.append(value)
                    elif isinstance(value, list) and "list" in kinds:
                        below += value
                elif keyword == "$ref" and isinstance(value, str) and not TO_DEFINITION.fullmatch(value):
                    references[value] = None
        depth += 1
        deepest = max(deepest, depth)
        level = below
        if not level and references:
            depth = 0
            level = [target for reference in references for target in (pointed_at(schema, reference) or ())[1:]]
            references.clear()
    return found, deepest


def places_of(schema: Schema) -> dict[int, NodePath]:
    """The path of every subschema that is an object, by its ``id``."""
    return {id(node): path for path, node in walk(schema) if isinstance(node, dict)}


def add_children(into: list[tuple[NodePath, Any]], path: NodePath, value: Any, kinds: frozenset[str]) -> None:
    """Add the subschemas that stand under one keyword; ``kinds`` says in which ways they may."""
    if isinstance(value, dict) and "map" in kinds:
        into += [((*path, name), child) for name, child in value.items() if isinstance(child, SCHEMA)]
    elif isinstance(value, SCHEMA):
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
    pointer = unquote(reference[2:]) if "%" in reference else reference[2:]
    for part in pointer.split("/"):
        name = part.replace("~1", "/").replace("~0", "~") if "~" in part else part
        if isinstance(at, dict) and name in at:
            at, path = at[name], (*path, name)
        elif isinstance(at, list) and name.isdigit() and int(name) < len(at):
            at, path = at[int(name)], (*path, int(name))
        else:
            return None
    return (path, at) if isinstance(at, dict | bool) else None

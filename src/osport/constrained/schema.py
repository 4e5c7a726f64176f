"""A JSON Schema as a document: is it one, is every word in it understood, is all of it here."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

from osport.constrained.formats import CHECKER
from osport.errors import UnsupportedFeature, UsageError

__all__ = ["NodePath", "Schema", "check_schema", "json_path", "walk"]

Schema = Mapping[str, Any] | bool
NodePath = tuple[str | int, ...]

MAX_BYTES = 2_000_000
MAX_DEPTH = 100

ONE_SCHEMA = (
    "additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
LIST_OF_SCHEMAS = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
MAP_OF_SCHEMAS = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")

# Keywords that constrain nothing by themselves: names, places, and notes for people.
ANNOTATIONS = frozenset({
    "$anchor", "$comment", "$defs", "$dynamicAnchor", "$id", "$recursiveAnchor", "$schema", "$vocabulary",
    "contentEncoding", "contentMediaType", "contentSchema", "default", "definitions", "deprecated", "description",
    "examples", "id", "readOnly", "title", "writeOnly",
})  # fmt: skip
# Keywords that the validator reads through another one.
COMPANIONS = {
    "additionalItems": "items",
    "else": "if",
    "exclusiveMaximum": "maximum",
    "exclusiveMinimum": "minimum",
    "maxContains": "contains",
    "minContains": "contains",
    "then": "if",
}


def walk(schema: Schema) -> Iterator[tuple[NodePath, Schema]]:
    """Every subschema with its path from the root, the root first, in document order."""
    pending: list[tuple[NodePath, Any]] = [((), schema)]
    while pending:
        path, node = pending.pop()
        yield path, node
        if isinstance(node, Mapping):
            pending.extend(reversed(list(children(path, node))))


def children(path: NodePath, node: Mapping[str, Any]) -> Iterator[tuple[NodePath, Schema]]:
    """The subschemas directly below a node, in document order."""
    for keyword, value in node.items():
        if keyword in MAP_OF_SCHEMAS and isinstance(value, Mapping):
            for name, child in value.items():
                if isinstance(child, Mapping | bool):
                    yield (*path, keyword, name), child
        elif keyword in LIST_OF_SCHEMAS and isinstance(value, list | tuple):
            for index, child in enumerate(value):
                yield (*path, keyword, index), child
        elif keyword in ONE_SCHEMA and isinstance(value, Mapping | bool):
            yield (*path, keyword), value


def json_path(path: NodePath) -> str:
    """A path as people read it: ``$.properties.score.maximum``."""
    text = "$"
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if re.fullmatch(r"[\w$-]+", part) else f"[{json.dumps(part)}]"
    return text


def check_schema(schema: Schema) -> Validator:
    """The validator of a schema that was found in order.

    Raises :class:`~osport.errors.UsageError` with the path for what is no schema, for a keyword that
    is unknown to the schema's draft (2020-12 unless ``$schema`` says otherwise; names with the prefix
    ``x-`` are free), for a ``$ref`` that leads nowhere or out of the document, for a pattern that does
    not compile; :class:`~osport.errors.UnsupportedFeature` for a format that cannot be verified.
    """
    if schema is False:
        raise UsageError("the schema is false: no value can conform to it")
    if not isinstance(schema, Mapping | bool):
        raise UsageError(f"a JSON Schema is an object or a boolean, not {type(schema).__name__}")
    check_extent(schema)
    draft = draft_of(schema)
    try:
        draft.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise UsageError(f"not a JSON Schema: {json_path(tuple(error.path))}: {shortened(error.message)}") from error
    for path, node in walk(schema):
        if isinstance(node, Mapping):
            check_keywords(path, node, draft)
            check_strings(path, node)
    registry = check_references(schema)
    validator: Validator = draft(schema, registry=registry, format_checker=CHECKER)
    return validator


def check_extent(schema: Schema) -> None:
    """Refuse what is no JSON, too large, or too deep to be walked without danger."""
    pending: list[tuple[Any, int]] = [(schema, 0)]
    while pending:
        value, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise UsageError(f"the schema is nested more than {MAX_DEPTH} levels deep")
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        pending.extend((item, depth + 1) for item in inner)
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"the schema is not JSON: {error}") from error
    if size > MAX_BYTES:
        raise UsageError(f"the schema has {size:,} bytes, more than {MAX_BYTES:,}")


def draft_of(schema: Schema) -> Any:
    """The validator class of the draft that ``$schema`` names."""
    named = schema.get("$schema") if isinstance(schema, Mapping) else None
    if named is None:
        return jsonschema.Draft202012Validator
    unknown: Any = None
    draft = jsonschema.validators.validator_for(schema, default=unknown) if isinstance(named, str) else None
    if draft is None:
        raise UsageError(f"$.$schema: unknown draft {named!r}; known: drafts 3, 4, 6, 7, 2019-09 and 2020-12")
    return draft


def check_keywords(path: NodePath, node: Mapping[str, Any], draft: Any) -> None:
    """Refuse a keyword that nobody would heed: to JSON Schema it would be an annotation."""
    known = ANNOTATIONS | set(draft.VALIDATORS)
    known |= {keyword for keyword, reader in COMPANIONS.items() if reader in draft.VALIDATORS}
    for keyword in node:
        if keyword in known or keyword.startswith("x-"):
            continue
        close = difflib.get_close_matches(keyword, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "prefix it with x- if it is a note of your own"
        raise UsageError(f"unknown keyword {keyword!r} at {json_path(path)}: it would constrain nothing; {hint}")


def check_strings(path: NodePath, node: Mapping[str, Any]) -> None:
    """Refuse formats and patterns that could not be verified afterwards."""
    name = node.get("format")
    if name is not None and name not in CHECKER.checkers:
        raise UnsupportedFeature(
            f"the format {name!r} at {json_path((*path, 'format'))}",
            "osport",
            reason=f"it could not be verified; known formats: {', '.join(sorted(CHECKER.checkers))}",
        )
    patterns = [((*path, "pattern"), node["pattern"])] if "pattern" in node else []
    patterns += [((*path, "patternProperties", p), p) for p in node.get("patternProperties", {})]
    for place, pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{json_path(place)}: {pattern!r} is no regular expression: {error}") from error


def check_references(schema: Schema) -> Registry[Any]:
    """A registry of the document alone, after every reference was found to end inside it."""
    if isinstance(schema, bool):
        return Registry()
    specification = specification_with(schema["$schema"]) if "$schema" in schema else DRAFT202012
    root: Resource[Any] = Resource.from_contents(schema, default_specification=specification)
    base = root.id() or ""
    registry: Registry[Any] = Registry().with_resource(base, root).crawl()
    bases: dict[NodePath, Any] = {(): registry.resolver(base)}
    for path, node in walk(schema):
        if not isinstance(node, Mapping):
            continue
        resolver = next(bases[path[:end]] for end in range(len(path), -1, -1) if path[:end] in bases)
        if path and isinstance(node.get("$id"), str):
            resolver = bases[path] = resolver.in_subresource(specification.create_resource(node))
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if keyword not in node:
                continue
            try:
                resolver.lookup(node[keyword])
            except Unresolvable as error:
                inside = str(node[keyword]).startswith("#")
                why = "leads nowhere" if inside else "leaves the document; osport fetches nothing"
                raise UsageError(f"{json_path((*path, keyword))}: {node[keyword]!r} {why}") from error
    return registry


def shortened(text: str, limit: int = 300) -> str:
    """A message without the bulk of a document that it quotes."""
    return text if len(text) <= limit else text[:limit] + " ..."

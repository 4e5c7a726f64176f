"""A JSON Schema as a document: is it one, is every word in it understood, is all of it here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import jsonschema
from attrs import frozen
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

from osport.constrained.formats import CHECKER
from osport.constrained.keywords import (
    ANNOTATIONS,
    EVER_CONSTRAINING,
    NEWEST,
    OLDER,
    constraining,
    known,
    misspelt,
    well_shaped,
)
from osport.constrained.patterns import with_safe_patterns
from osport.errors import UnsupportedFeature, UsageError

__all__ = [
    "CheckedSchema",
    "NodePath",
    "Schema",
    "check_references",
    "checked",
    "json_path",
    "specification_of",
    "walk",
]

Schema = Mapping[str, Any] | bool
NodePath = tuple[str | int, ...]

MAX_BYTES = 2_000_000
MAX_DEPTH = 100

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


@frozen
class CheckedSchema:
    """A schema that was found in order: its own copy, its draft, and what in it constrains nothing.

    ``unknown_formats``: the places of formats that nobody can verify; they are left out of ``schema``.
    """

    schema: Schema
    draft: Any
    notes: tuple[str, ...] = ()
    unknown_formats: tuple[NodePath, ...] = ()
    refers: bool = False

    def validator(self) -> Validator:
        """What verifies a value, formats included; no reference is fetched."""
        safe = with_safe_patterns(self.draft)
        validator: Validator = safe(self.schema, registry=check_references(self.schema), format_checker=CHECKER)
        return validator


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


def checked(schema: Schema, *, unknown_formats: str = "refuse") -> CheckedSchema:
    """The schema, once it was found in order.

    Raises :class:`~osport.errors.UsageError` with the path for what is no schema, for a misspelt
    keyword, for one of another draft than ``$schema`` says, for a ``$ref`` that leads nowhere or out
    of the document, for a pattern that does not compile; :class:`~osport.errors.UnsupportedFeature`
    for a format that cannot be verified, unless ``unknown_formats`` is ``drop``. Without ``$schema`` the
    newest draft that knows all words is taken.
    """
    if schema is False:
        raise UsageError("the schema is false: no value can conform to it")
    if not isinstance(schema, dict | bool):
        raise UsageError(f"a JSON Schema is an object or a boolean, not {type(schema).__name__}")
    try:
        text = json.dumps(schema, allow_nan=False)
    except RecursionError:
        raise UsageError(f"the schema is nested more than {MAX_DEPTH} levels deep") from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"the schema is not JSON: {error}") from error
    if len(text) > MAX_BYTES:
        raise UsageError(f"the schema has {len(text):,} bytes, more than {MAX_BYTES:,}")
    own: Schema = json.loads(text)
    draft = draft_of(own)
    strange: list[tuple[NodePath, str]] = []
    notes: list[str] = []
    unknown: list[NodePath] = []
    doubtful = refers = False
    for path, node in walk(own):
        if len(path) > 2 * MAX_DEPTH:
            raise UsageError(f"the schema is nested more than {MAX_DEPTH} levels deep")
        if not isinstance(node, dict):
            doubtful = doubtful or not isinstance(node, bool)
            continue
        for keyword, value in node.items():
            if not well_shaped(keyword, value, draft) and keyword != "$schema":
                strange.append((path, keyword))
                doubtful = doubtful or keyword in EVER_CONSTRAINING or keyword in ANNOTATIONS
        refers = refers or "$ref" in node or "$dynamicRef" in node or "$recursiveRef" in node
        if "pattern" in node or "patternProperties" in node or "format" in node:
            unverifiable = check_strings(path, node)
            if unverifiable is not None and unknown_formats != "drop":
                raise unverifiable
            if unverifiable is not None:
                notes.append(f"{unverifiable.feature} is enforced and verified by nobody")
                unknown.append((*path, "format"))
                del node["format"]
    if doubtful:
        draft = fitting_draft(own, draft)
        check_form(own, draft)
    notes.extend(check_words(strange, draft))
    if refers:
        check_references(own)
    return CheckedSchema(own, draft, tuple(notes), tuple(unknown), refers)


def draft_of(schema: Schema) -> Any:
    """The draft that ``$schema`` names; 2020-12 without one."""
    named = schema.get("$schema") if isinstance(schema, dict) else None
    if named is None:
        return NEWEST
    unknown: Any = None
    draft = jsonschema.validators.validator_for(schema, default=unknown) if isinstance(named, str) else None
    if draft is None:
        raise UsageError(f"$.$schema: unknown draft {named!r}; known: drafts 3, 4, 6, 7, 2019-09 and 2020-12")
    return draft


def fitting_draft(schema: Schema, draft: Any) -> Any:
    """For a schema that names no draft, the newest one that knows all its constraining words."""
    if isinstance(schema, dict) and "$schema" in schema:
        return draft
    words = {word for _, node in walk(schema) if isinstance(node, dict) for word in node} & EVER_CONSTRAINING
    fitting = (
        older
        for older in (NEWEST, *OLDER[:-1])  # draft 3 takes any word for a type
        if words <= constraining(older) and older(older.META_SCHEMA).is_valid(schema)
    )
    return next(fitting, draft)


def check_form(schema: Schema, draft: Any) -> None:
    """Refuse what the draft's meta-schema refuses."""
    try:
        draft.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise UsageError(f"not a JSON Schema: {json_path(tuple(error.path))}: {shortened(error.message)}") from error


def check_words(strange: list[tuple[NodePath, str]], draft: Any) -> Iterator[str]:
    """Refuse a keyword that was meant to constrain and would not; name the others that constrain nothing."""
    for path, keyword in strange:
        if keyword in known(draft) or keyword.startswith("x-"):
            continue
        if keyword == "nullable":
            raise UsageError(f'nullable at {json_path(path)} is OpenAPI and no JSON Schema; add "null" to the type')
        if keyword in EVER_CONSTRAINING:
            raise UsageError(
                f"{keyword!r} at {json_path(path)} constrains nothing in {draft.__name__}; state another $schema"
            )
        meant = misspelt(keyword)
        if meant is not None:
            hint = f"did you mean {meant!r}? Prefix it with x- if it is a note of your own"
            raise UsageError(f"unknown keyword {keyword!r} at {json_path(path)}: it would constrain nothing; {hint}")
        yield f"{keyword} at {json_path(path)} is no keyword of JSON Schema and constrains nothing"


def check_strings(path: NodePath, node: Mapping[str, Any]) -> UnsupportedFeature | None:
    """Refuse a pattern that does not compile; the error for a format that could not be verified."""
    patterns = [((*path, "pattern"), node["pattern"])] if "pattern" in node else []
    if isinstance(node.get("patternProperties"), dict):
        patterns += [((*path, "patternProperties", pattern), pattern) for pattern in node["patternProperties"]]
    for place, pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError, OverflowError, RecursionError) as error:
            raise UsageError(f"{json_path(place)}: {pattern!r} is no regular expression: {error}") from error
    name = node.get("format")
    kinds = node.get("type", "string")
    says_something = "string" in ([kinds] if isinstance(kinds, str) else kinds)
    if not isinstance(name, str) or name in CHECKER.checkers or not says_something:
        return None
    return UnsupportedFeature(
        f"the format {shortened(name, 40)!r} at {json_path((*path, 'format'))}",
        "osport",
        reason=f"it could not be verified; known formats: {', '.join(sorted(CHECKER.checkers))}",
    )


def check_references(schema: Schema) -> Registry[Any]:
    """A registry of the document alone, after every reference was found to end inside it."""
    if isinstance(schema, bool):
        return Registry()
    specification = specification_of(schema)
    root = root_of(schema, specification)
    nodes = [(path, node) for path, node in walk(schema) if isinstance(node, dict)]
    own = [node["$ref"] for _, node in nodes if isinstance(node.get("$ref"), str)]
    if all(pointed_at(schema, reference) for reference in own) and not any(
        word in node
        for path, node in nodes
        for word in ("$dynamicRef", "$recursiveRef", *(("$id", "id") if path else ()))
    ):
        simple: Registry[Any] = Registry().with_resource(root.id() or "", root)
        return simple
    registry: Registry[Any] = Registry().with_resource(root.id() or "", root).crawl()
    bases: dict[NodePath, Any] = {(): registry.resolver(root.id() or "")}
    for path, node in nodes:
        resolver = next(bases[path[:end]] for end in range(len(path), -1, -1) if path[:end] in bases)
        if path and isinstance(node.get("$id", node.get("id")), str):
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


def root_of(schema: Schema, specification: Any) -> Resource[Any]:
    """The document as a resource of its draft."""
    root: Resource[Any] = Resource.from_contents(schema, default_specification=specification)
    return root


def specification_of(schema: Schema) -> Any:
    """How references are read in the schema's draft."""
    named = schema.get("$schema") if isinstance(schema, dict) else None
    return DRAFT202012 if named is None else specification_with(named)


def shortened(text: str, limit: int = 300) -> str:
    """A message without the bulk of a document that it quotes."""
    return text if len(text) <= limit else text[:limit] + " ..."

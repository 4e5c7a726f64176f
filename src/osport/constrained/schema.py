"""A JSON Schema as a document: is it one, is every word in it understood, is all of it here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import jsonschema
from attrs import frozen
from jsonschema.protocols import Validator

from osport.constrained.formats import CHECKER
from osport.constrained.keywords import (
    ANNOTATIONS,
    EVER_CONSTRAINING,
    NEWEST,
    OLDER,
    constraining,
    known,
    misspelt,
    shapes_of,
)
from osport.constrained.patterns import is_readable, with_safe_patterns
from osport.constrained.references import check_references, refers_to_itself
from osport.constrained.tree import NodePath, Schema, json_path, objects_and_depth, objects_of, places_of, walk
from osport.errors import UnsupportedFeature, UsageError

__all__ = [
    "CheckedSchema",
    "NodePath",
    "Schema",
    "checked",
    "json_path",
    "ref_overrides",
    "walk",
]

MAX_BYTES = 2_000_000
MAX_DEPTH = 100
# What ECMA 262 takes in a pattern and neither Python nor llguidance may read.
OF_ECMA = re.compile(r"\\[pP]\{|\\c|\\u\{|\[\^?\]|\(\?<|\\k<")


@frozen(slots=False, eq=False)
class CheckedSchema:
    """A schema that was found in order: its own copy, its draft, and what in it constrains nothing.

    ``text``: the same as JSON. ``unknown_formats``: the places of formats and patterns that nobody can verify; they are
    left out of ``schema``.
    """

    schema: Schema
    text: str
    draft: Any
    recursive: bool = False
    unknown_formats: tuple[NodePath, ...] = ()
    _unverified: tuple[str, ...] = ()
    _unknown_words: tuple[tuple[Mapping[str, Any], str], ...] = ()

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What constrains nothing, with its places, which nobody looks for before they are asked for."""
        places = Places(self.schema)
        return self._unverified + tuple(
            f"{keyword} at {json_path(places.of(node))} is no keyword of JSON Schema and constrains nothing"
            for node, keyword in self._unknown_words
        )

    def validator(self) -> Validator:
        """What verifies a value, formats included; no reference is fetched."""
        safe = with_safe_patterns(self.draft)
        validator: Validator = safe(self.schema, registry=check_references(self.schema), format_checker=CHECKER)
        return validator


def checked(schema: Schema, *, unknown_formats: str = "refuse") -> CheckedSchema:
    """The schema, once it was found in order.

    Raises :class:`~osport.errors.UsageError` with the path for what is no schema, for a misspelt
    keyword, for one of another draft than ``$schema`` says, for a ``$ref`` that leads nowhere or out
    of the document, for a pattern that does not compile; :class:`~osport.errors.UnsupportedFeature`
    for a format or a pattern that cannot be verified, unless ``unknown_formats`` is ``drop``. Without ``$schema`` the
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
    shapes = shapes_of(draft)
    nodes, depth = objects_and_depth(own)
    if depth > MAX_DEPTH:
        raise UsageError(f"the schema is nested more than {MAX_DEPTH} levels deep")
    places = Places(own)
    strange: list[tuple[dict[str, Any], str]] = []
    unverified: list[str] = []
    unknown: list[NodePath] = []
    doubtful = refers = False
    for node in nodes:
        for keyword, value in node.items():
            shape = shapes.get(keyword)
            if (shape is None or not shape(value)) and keyword != "$schema":
                strange.append((node, keyword))
                doubtful = doubtful or keyword in EVER_CONSTRAINING or keyword in ANNOTATIONS
        refers = refers or "$ref" in node or "$dynamicRef" in node or "$recursiveRef" in node
        if "pattern" in node or "patternProperties" in node or "format" in node:
            for keyword, unverifiable in list(check_strings(node, places)):
                if unknown_formats != "drop":
                    raise unverifiable
                unverified.append(f"{unverifiable.feature} is enforced and verified by nobody")
                unknown.append((*places.of(node), keyword))
                del node[keyword]
    if doubtful:
        draft = fitting_draft(own, draft)
        check_form(own, draft)
    words = tuple(unknown_words(strange, draft, places))
    if refers:
        check_references(own, nodes)
    if unknown:
        text = json.dumps(own)
    recursive = refers and refers_to_itself(own, nodes)
    return CheckedSchema(own, text, draft, recursive, tuple(unknown), tuple(unverified), words)


class Places:
    """Where the objects of a schema stand; looked for once somebody asks."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def of(self, node: Mapping[str, Any]) -> NodePath:
        """The path of one of them."""
        return self._known[id(node)]

    @cached_property
    def _known(self) -> dict[int, NodePath]:
        return places_of(self._schema)


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
    words = set().union(*objects_of(schema)) & EVER_CONSTRAINING
    fitting = (
        older
        for older in (NEWEST, *OLDER[:-1])  # draft 3 takes any word for a type
        if words <= constraining(older) and older(older.META_SCHEMA).is_valid(schema)
    )
    return next(fitting, draft)


# Without a $schema, only these make a schema one of a draft in which a reference overrides what stands beside it.
OLD_WORDS = re.compile(r'"(?:dependencies|divisibleBy|extends|disallow)"|"exclusiveM\w+": (?:true|false)')


def ref_overrides(schema: Schema) -> bool:
    """Whether the schema's draft reads nothing beside a ``$ref``."""
    if isinstance(schema, dict) and "$schema" in schema:
        draft = draft_of(schema)
    else:
        draft = fitting_draft(schema, NEWEST) if OLD_WORDS.search(json.dumps(schema)) else NEWEST
    return draft not in (NEWEST, jsonschema.Draft201909Validator)


def check_form(schema: Schema, draft: Any) -> None:
    """Refuse what the draft's meta-schema refuses."""
    try:
        draft.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise UsageError(f"not a JSON Schema: {json_path(tuple(error.path))}: {shortened(error.message)}") from error


def unknown_words(
    strange: Iterable[tuple[Mapping[str, Any], str]], draft: Any, places: Places
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Refuse a keyword that was meant to constrain and would not; the others that constrain nothing."""
    for node, keyword in strange:
        if keyword in known(draft) or keyword.startswith("x-"):
            continue
        if keyword == "nullable":
            where = json_path(places.of(node))
            raise UsageError(f'nullable at {where} is OpenAPI and no JSON Schema; add "null" to the type')
        if keyword in EVER_CONSTRAINING:
            where = json_path(places.of(node))
            raise UsageError(f"{keyword!r} at {where} constrains nothing in {draft.__name__}; state another $schema")
        meant = misspelt(keyword)
        if meant is not None:
            where = json_path(places.of(node))
            hint = f"did you mean {meant!r}? Prefix it with x- if it is a note of your own"
            raise UsageError(f"unknown keyword {keyword!r} at {where}: it would constrain nothing; {hint}")
        yield node, keyword


def check_strings(node: Mapping[str, Any], places: Places) -> Iterator[tuple[str, UnsupportedFeature]]:
    """Refuse a pattern that is none; the keywords of a node that could not be verified, each with the error for it."""
    patterns: list[tuple[NodePath, Any]] = [(("pattern",), node["pattern"])] if "pattern" in node else []
    if isinstance(node.get("patternProperties"), dict):
        patterns += [(("patternProperties", pattern), pattern) for pattern in node["patternProperties"]]
    for place, pattern in patterns:
        if isinstance(pattern, str) and is_readable(pattern):
            continue
        where = json_path((*places.of(node), *place))
        if not isinstance(pattern, str) or not OF_ECMA.search(pattern):
            why = "not a text"
            try:
                re.compile(pattern)
            except (re.error, TypeError, OverflowError, RecursionError) as error:
                why = str(error)
            raise UsageError(f"{where}: {pattern!r} is no regular expression: {why}")
        unread = UnsupportedFeature(
            f"the pattern {shortened(pattern, 40)!r} at {where}", "osport", reason="it could not be verified"
        )
        if place[0] == "patternProperties":
            raise unread
        yield "pattern", unread
    name = node.get("format")
    kinds = node.get("type", "string")
    says_something = "string" in ([kinds] if isinstance(kinds, str) else kinds)
    if isinstance(name, str) and name not in CHECKER.checkers and says_something:
        yield (
            "format",
            UnsupportedFeature(
                f"the format {shortened(name, 40)!r} at {json_path((*places.of(node), 'format'))}",
                "osport",
                reason=f"it could not be verified; known formats: {', '.join(sorted(CHECKER.checkers))}",
            ),
        )


def shortened(text: str, limit: int = 300) -> str:
    """A message without the bulk of a document that it quotes."""
    return text if len(text) <= limit else text[:limit] + " ..."

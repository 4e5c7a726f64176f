"""The words of JSON Schema: what each draft knows, what constrains, and what shape a value must have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jsonschema

__all__ = ["CONSTRAINING", "EVER_CONSTRAINING", "NEWEST", "OLDER", "constraining", "known", "misspelt", "shapes_of"]

# Keywords that constrain nothing by themselves: names, places, and notes for people.
ANNOTATIONS = frozenset({
    "$anchor", "$comment", "$defs", "$dynamicAnchor", "$id", "$recursiveAnchor", "$schema", "$vocabulary",
    "contentEncoding", "contentMediaType", "contentSchema", "default", "definitions", "deprecated", "description",
    "example", "examples", "id", "readOnly", "title", "writeOnly",
})  # fmt: skip
# Keywords that a validator reads through another one.
COMPANIONS = {
    "additionalItems": "items",
    "else": "if",
    "exclusiveMaximum": "maximum",
    "exclusiveMinimum": "minimum",
    "maxContains": "contains",
    "minContains": "contains",
    "then": "if",
}
NEWEST = jsonschema.Draft202012Validator
OLDER = (
    jsonschema.Draft201909Validator, jsonschema.Draft7Validator, jsonschema.Draft6Validator, jsonschema.Draft4Validator,
    jsonschema.Draft3Validator,
)  # fmt: skip
TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


@cache
def constraining(draft: Any) -> frozenset[str]:
    """The keywords that constrain in a draft."""
    heeded = frozenset(draft.VALIDATORS) - {"$schema"}
    gone = {"additionalItems"} if draft is NEWEST else frozenset()
    return (heeded | {word for word, reader in COMPANIONS.items() if reader in heeded}) - gone


CONSTRAINING = constraining(NEWEST)
EVER_CONSTRAINING = CONSTRAINING.union(*(constraining(draft) for draft in OLDER)) | {"nullable"}


@cache
def known(draft: Any) -> frozenset[str]:
    """The keywords that a draft knows, and the notes of any draft."""
    return constraining(draft) | ANNOTATIONS


@cache
def misspelt(word: str) -> str | None:
    """The constraining keyword that an unknown word seems to stand for.

    A word with a prefix of its own (``_format``, ``x-type``) is a note; so is one far from every keyword.
    """
    if not word or not word[0].isalpha():
        return None
    plain = word.strip().replace("-", "").replace("_", "").lower()
    for keyword in sorted(EVER_CONSTRAINING):
        if plain == keyword.lower():
            return keyword
    # Two letters may differ in a long word, one in a short one.
    for keyword in sorted(EVER_CONSTRAINING):
        allowed = 2 if len(keyword) >= 9 else 1
        near = (
            len(keyword) > 3
            and abs(len(keyword) - len(word)) <= allowed
            and len(set(word) ^ set(keyword)) <= 2 * allowed
        )
        if near and edits(word, keyword) <= allowed:
            return keyword
    return None


def edits(one: str, other: str) -> int:
    """Letters to insert, delete, replace or swap with a neighbour (optimal string alignment distance)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, mine in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, theirs in enumerate(other, 1):
            best = min(before[j] + 1, row[-1] + 1, before[j - 1] + (mine != theirs))
            if i > 1 and j > 1 and mine == other[j - 2] and theirs == one[i - 2]:
                best = min(best, earlier[j - 2] + 1)
            row.append(best)
    return row[-1]


SCHEMA = (dict, bool)  # making a union takes longer than asking for it


def _schema(value: Any) -> bool:
    return isinstance(value, SCHEMA)


def _schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_schema, value))


def _map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_schema, value.values()))


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value)) and len(set(value)) == len(value)


def _type(value: Any) -> bool:
    return value in TYPES if isinstance(value, str) else _names(value) and bool(value) and TYPES.issuperset(value)


def _switch(value: Any) -> bool:
    return isinstance(value, bool)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_object, value))


def _object_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_object, value.values()))


def _anything(value: Any) -> bool:
    return True


# A schema whose keywords all pass is well formed in draft 2020-12; anything else is left to the meta-schema.
SHAPES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _schemas),
    **dict.fromkeys(("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"), _map),
    **dict.fromkeys(("additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"), _schema),
    **dict.fromkeys(("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"), _schema),
    **dict.fromkeys(("maxContains", "maxItems", "maxLength", "maxProperties"), _count),
    **dict.fromkeys(("minContains", "minItems", "minLength", "minProperties"), _count),
    **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"), _number),
    **dict.fromkeys(
        ("$anchor", "$comment", "$id", "$ref", "contentEncoding", "contentMediaType", "description"), _text
    ),
    **dict.fromkeys(("format", "id", "pattern", "title"), _text),
    **dict.fromkeys(("deprecated", "readOnly", "uniqueItems", "writeOnly"), _switch),
    **dict.fromkeys(("const", "default", "example"), _anything),
    "dependentRequired": lambda value: isinstance(value, dict) and all(map(_names, value.values())),
    "enum": lambda value: isinstance(value, list),
    "examples": lambda value: isinstance(value, list),
    "multipleOf": lambda value: _number(value) and value > 0,
    "required": _names,
    "type": _type,
}


def _old_items(value: Any) -> bool:
    return _schema(value) or (isinstance(value, list) and all(map(_schema, value)))


def _dependencies(value: Any) -> bool:
    return isinstance(value, dict) and all(_schema(rule) or _names(rule) for rule in value.values())


OLD_SHAPES: dict[str, Callable[[Any], bool]] = {
    "additionalItems": _schema,
    "dependencies": _dependencies,
    "items": _old_items,
}


def _distinct(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and len({json.dumps(item) for item in value}) == len(value)


# Draft 4 knows boolean schemas in two places only, and its bounds are made strict by a switch.
DRAFT4_SHAPES: dict[str, Callable[[Any], bool]] = {
    **OLD_SHAPES,
    **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum"), _switch),
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), _objects),
    **dict.fromkeys(("definitions", "properties", "patternProperties"), _object_map),
    "enum": _distinct,
    "items": lambda value: isinstance(value, dict) or _objects(value),
    "not": _object,
    "required": lambda value: _names(value) and bool(value),
}


@cache
def shapes_of(draft: Any) -> Mapping[str, Callable[[Any], bool]]:
    """What tells of each keyword of the draft whether a value is certainly allowed for it; empty for draft 3."""
    if draft is NEWEST:
        return SHAPES
    if draft is jsonschema.Draft3Validator:
        return {}
    older = DRAFT4_SHAPES if draft is jsonschema.Draft4Validator else OLD_SHAPES
    return {keyword: shape for keyword, shape in {**SHAPES, **older}.items() if keyword in known(draft)}

"""What of a JSON Schema survives llama.cpp's own grammar converter, and the refusal of the rest.

The converter reads a closed set of keywords and drops all others without a word; which ones it
reads depends on the type of the node. Source: common/json-schema-to-grammar of llama.cpp as of
2026, and a probe of each keyword with an instance that breaks only it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from osport.constrained.schema import ANNOTATIONS, Schema, json_path, walk
from osport.errors import UnsupportedFeature

__all__ = ["refuse_unless_gbnf_enforces"]

ENGINE = "llama.cpp-gbnf"
ALTERNATIVES = ("llama_cpp",)

BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
ENFORCED: dict[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "format"}),
    "integer": BOUNDS,
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}
FORMATS = frozenset({"date", "date-time", "uuid"})
# Read first by the converter, which then leaves everything beside them unread.
ALONE = ("$ref", "anyOf", "oneOf", "const", "enum")


def refuse_unless_gbnf_enforces(schema: Schema) -> None:
    """Raise :class:`~osport.errors.UnsupportedFeature` for the first keyword that would be dropped."""
    for path, node in walk(schema):
        if isinstance(node, Mapping):
            for keyword, reason in dropped(node):
                raise UnsupportedFeature(
                    f"the keyword {keyword} at {json_path((*path, keyword))}",
                    ENGINE,
                    reason=reason,
                    alternatives=ALTERNATIVES,
                )
        elif path and path[-1] not in ("additionalProperties", "additionalItems"):
            raise UnsupportedFeature(f"a boolean schema at {json_path(path)}", ENGINE, alternatives=ALTERNATIVES)


def dropped(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keywords of a node that the converter would not enforce, each with the reason."""
    rules = {keyword: value for keyword, value in node.items() if keyword not in ANNOTATIONS and keyword[:2] != "x-"}
    first = next((keyword for keyword in ALONE if keyword in rules), None)
    if first is not None:
        yield from dropped_beside(first, rules)
        return
    types = types_of(rules)
    enforced = frozenset[str]().union(*(ENFORCED.get(kind, frozenset()) for kind in types)) | {"type"}
    for keyword in rules:
        if keyword not in enforced:
            yield keyword, f"the converter drops it on {' or '.join(types) or 'a node without a type'}"
        elif keyword in BOUNDS and "number" in types:
            yield keyword, "the converter drops bounds of numbers that need not be integers"
    if "format" in enforced & set(rules) and rules["format"] not in FORMATS:
        yield "format", f"the converter knows only {', '.join(sorted(FORMATS))}"
    undeclared = [name for name in rules.get("required", ()) if name not in rules.get("properties", {})]
    if undeclared:
        yield "required", f"the converter drops names without a property: {', '.join(undeclared)}"


def dropped_beside(first: str, rules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is lost beside a keyword that the converter reads alone."""
    values = rules["enum"] if first == "enum" else [rules["const"]] if first == "const" else None
    for keyword in rules:
        if keyword == first:
            continue
        if keyword == "type" and values is not None and all(has_type(value, rules["type"]) for value in values):
            continue
        yield keyword, f"the converter reads {first} and nothing beside it"
    if first == "oneOf":
        types = [types_of(branch) if isinstance(branch, Mapping) else () for branch in rules["oneOf"]]
        names = [kind for kinds in types for kind in ({"number"} if "integer" in kinds else set()) | set(kinds)]
        if not all(types) or len(set(names)) < len(names):
            yield "oneOf", "the converter takes it for anyOf, which is the same only for branches of different types"


def types_of(node: Mapping[str, Any]) -> tuple[str, ...]:
    """The types that a node states, or that the converter concludes from its keywords."""
    stated = node.get("type")
    if stated is None:
        return ("object",) if "properties" in node else ("array",) if "items" in node else ()
    return (stated,) if isinstance(stated, str) else tuple(stated)


def has_type(value: Any, stated: str | list[str]) -> bool:
    """Whether a JSON value is of a type, as JSON Schema counts types."""
    kinds = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "null": value is None,
        "array": isinstance(value, list | tuple),
        "object": isinstance(value, Mapping),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "integer": isinstance(value, int) and not isinstance(value, bool),
    }
    return any(kinds.get(kind, False) for kind in ([stated] if isinstance(stated, str) else stated))

"""Whether two schemas can be seen to have no value in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from osport.constrained.formats import CHECKER
from osport.constrained.keywords import NEWEST
from osport.constrained.patterns import matches, with_safe_patterns
from osport.constrained.values import ALL_TYPES, same, type_of

__all__ = ["View", "disjoint", "is_valid", "view"]

DEEPEST = 12
LOW = (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))
TYPES_OF_BOUND = ({"number"}, {"string"}, {"array"}, {"object"})


@frozen
class View:
    """What all conjuncts of a schema say together, as far as it is needed to tell schemas apart."""

    conjuncts: list[Mapping[str, Any]]
    types: frozenset[str]
    values: list[Any] | None
    required: frozenset[str]
    names: frozenset[str] | None = None
    """The only property names that an object can have, when that is known."""
    branches: list[Sequence[Any]] = field(factory=list)

    def rules(self, name: str) -> list[Any]:
        """What the conjuncts demand of one property's value."""
        rules = []
        for node in self.conjuncts:
            own = [node["properties"][name]] if name in node.get("properties", {}) else []
            own += [rule for pattern, rule in node.get("patternProperties", {}).items() if matches(pattern, name)]
            rules += own or [node.get("additionalProperties", True)]
        return [rule for rule in rules if rule is not True]


def view(schema: Any, definitions: Mapping[str, Any]) -> View | None:
    """The view of a schema; None when it allows nothing."""
    conjuncts: list[Mapping[str, Any]] = []
    if not _gather(schema, definitions, conjuncts, frozenset()):
        return None
    types = ALL_TYPES
    values: list[Any] | None = None
    required: set[str] = set()
    names: frozenset[str] | None = None
    branches = []
    for node in conjuncts:
        if "type" in node:
            stated = {node["type"]} if isinstance(node["type"], str) else set(node["type"])
            types &= {"number" if kind == "integer" else kind for kind in stated}
        if "const" in node or "enum" in node:
            own = [node["const"]] if "const" in node else list(node["enum"])
            values = own if values is None else [v for v in values if any(same(v, other) for other in own)]
        required |= set(node.get("required", ()))
        if node.get("additionalProperties") is False and not node.get("patternProperties"):
            declared = frozenset(node.get("properties", {}))
            names = declared if names is None else names & declared
        branches += [node[keyword] for keyword in ("anyOf", "oneOf") if keyword in node]
    if values is not None:
        types &= {type_of(value) for value in values}
    return View(conjuncts, types, values, frozenset(required), names, branches)


def disjoint(one: Any, other: Any, definitions: Mapping[str, Any], depth: int = 0) -> bool:
    """True only when no value can conform to both."""
    if depth > DEEPEST:
        return False
    left, right = view(one, definitions), view(other, definitions)
    if left is None or right is None or not left.types & right.types:
        return True
    for mine, schema in ((left, other), (right, one)):
        if mine.values is not None:
            return not any(is_valid(value, schema, definitions) for value in mine.values)
    common = left.types & right.types
    if any(kinds >= common and _bounds_apart(low, high, left, right)
           for (low, high), kinds in zip(LOW, TYPES_OF_BOUND, strict=True)):  # fmt: skip
        return True
    if common == {"object"} and _objects_apart(left, right, definitions, depth):
        return True
    # A choice is apart from a schema when each of its branches is.
    for mine, schema in ((left, other), (right, one)):
        for branches in mine.branches:
            if all(disjoint(branch, schema, definitions, depth + 1) for branch in branches):
                return True
    return False


def _gather(schema: Any, definitions: Mapping[str, Any], into: list[Mapping[str, Any]], seen: frozenset[str]) -> bool:
    if isinstance(schema, bool):
        return schema
    into.append(schema)
    if "$ref" in schema and schema["$ref"] not in seen:
        name = schema["$ref"].removeprefix("#/$defs/")
        if not _gather(definitions[name], definitions, into, seen | {schema["$ref"]}):
            return False
    return all(_gather(branch, definitions, into, seen) for branch in schema.get("allOf", ()))


def _bounds_apart(low: str, high: str, left: View, right: View) -> bool:
    def extreme(side: View, keyword: str, best: Any) -> float | None:
        found = [
            node[key] for node in side.conjuncts for key in (keyword, "exclusive" + keyword.capitalize()) if key in node
        ]
        return best(found) if found else None

    for mine, theirs in ((left, right), (right, left)):
        lowest, highest = extreme(mine, low, max), extreme(theirs, high, min)
        if lowest is not None and highest is not None and lowest > highest:
            return True
    return False


def _objects_apart(left: View, right: View, definitions: Mapping[str, Any], depth: int) -> bool:
    for mine, theirs in ((left, right), (right, left)):
        if mine.names is not None and theirs.required - mine.names:
            return True
        if _forbidden(mine) & theirs.required:
            return True
    for name in left.required | right.required:
        for one in left.rules(name):
            for other in right.rules(name):
                if disjoint(one, other, definitions, depth + 1):
                    return True
    return False


def _forbidden(side: View) -> set[str]:
    return {name for node in side.conjuncts for name, rule in node.get("properties", {}).items() if rule is False}


def is_valid(value: Any, schema: Any, definitions: Mapping[str, Any]) -> bool:
    """Whether a value conforms to a part of a bundle, formats included."""
    whole = schema if isinstance(schema, bool) else {**schema, "$defs": definitions}
    return bool(with_safe_patterns(NEWEST)(whole, format_checker=CHECKER).is_valid(value))

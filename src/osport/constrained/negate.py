"""The values that a schema does not allow, as schemas: what ``not`` and ``oneOf`` need to be written without them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from osport.constrained.disjoint import View, view
from osport.constrained.patterns import matches
from osport.constrained.values import ALL_TYPES, same, type_of, unlike

__all__ = ["Inexpressible", "negation"]

Cells = list[Any]
MAX_CELLS = 200


class Inexpressible(Exception):
    """The complement cannot be written with the keywords that engines enforce."""

    def __init__(self, keyword: str) -> None:
        super().__init__(keyword)
        self.keyword = keyword


def negation(schema: Any, definitions: Mapping[str, Any], beside: View | None = None) -> Cells:
    """Schemas that together, among the values of ``beside``, allow exactly what ``schema`` forbids.

    ``beside``: what else must hold where this is used; rules that it makes need no complement.
    Raises :class:`Inexpressible` with the keyword.
    """
    return Negation(definitions, beside).of(schema)


# Keywords whose meaning no keyword beside them changes.
INDEPENDENT = frozenset({
    "$ref", "allOf", "anyOf", "const", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "maxItems",
    "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf", "not",
    "oneOf", "pattern", "propertyNames", "required", "type", "uniqueItems",
})  # fmt: skip


class Negation:
    """One complement; ``beside`` is what else holds at the level that is looked at."""

    def __init__(self, definitions: Mapping[str, Any], beside: View | None) -> None:
        self.definitions = definitions
        self.beside = beside
        self.open: set[str] = set()

    @property
    def names(self) -> frozenset[str] | None:
        """The only property names that an object can have here, when that is known."""
        return self.beside.names if self.beside is not None else None

    def of(self, schema: Any) -> Cells:
        """The complement of a schema: of its keywords, one or another must fail."""
        if isinstance(schema, bool):
            return [] if schema else [{}]
        cells: Cells = []
        for keyword, value in schema.items():
            if self.holds_anyway(keyword, value):
                continue
            rule = getattr(self, f"_{keyword.lstrip('$')}", None)
            if rule is None:
                raise Inexpressible(keyword)
            cells.extend(rule(value, schema))
            if len(cells) > MAX_CELLS:
                raise Inexpressible(keyword)
        return cells

    def holds_anyway(self, keyword: str, value: Any) -> bool:
        """Whether a schema beside makes the same rule, so that it cannot be broken."""
        if self.beside is None or keyword not in INDEPENDENT:
            return False
        return any(keyword in node and same(node[keyword], value) for node in self.beside.conjuncts)

    def inner(self, schema: Any, beside: View | None = None) -> Any:
        """The complement of a subschema one level down, as one schema; False when nothing is left."""
        outer, self.beside = self.beside, beside
        try:
            return union(self.of(schema))
        finally:
            self.beside = outer

    def _defs(self, value: Any, node: Any) -> Cells:
        return []

    def _ref(self, value: str, node: Any) -> Cells:
        name = value.removeprefix("#/$defs/")
        if name in self.open:
            raise Inexpressible("$ref")
        self.open.add(name)
        try:
            return self.of(self.definitions[name])
        finally:
            self.open.discard(name)

    def _type(self, value: Any, node: Any) -> Cells:
        stated = {value} if isinstance(value, str) else set(value)
        if "integer" in stated and "number" not in stated:
            stated.add("number")  # there is no keyword for numbers that are no integers
            beside = self.beside.conjuncts if self.beside is not None else []
            if not any("type" in node and "number" not in [node["type"], *node["type"]] for node in beside):
                raise Inexpressible("type")
        left = sorted(ALL_TYPES - stated)
        return [{"type": left}] if left else []

    def _const(self, value: Any, node: Any) -> Cells:
        return self._enum([value], node)

    def _enum(self, values: Sequence[Any], node: Any) -> Cells:
        cells: Cells = []
        for kind in sorted(ALL_TYPES):
            cells.extend(unlike(kind, [value for value in values if type_of(value) == kind], self.inner))
        return cells

    def _minLength(self, value: int, node: Any) -> Cells:  # noqa: N802 - named after the keyword, as all below
        return [{"type": "string", "maxLength": value - 1}] if value > 0 else []

    def _maxLength(self, value: int, node: Any) -> Cells:  # noqa: N802
        return [{"type": "string", "minLength": value + 1}]

    def _minimum(self, value: float, node: Any) -> Cells:
        return [{"type": "number", "exclusiveMaximum": value}]

    def _maximum(self, value: float, node: Any) -> Cells:
        return [{"type": "number", "exclusiveMinimum": value}]

    def _exclusiveMinimum(self, value: float, node: Any) -> Cells:  # noqa: N802
        return [{"type": "number", "maximum": value}]

    def _exclusiveMaximum(self, value: float, node: Any) -> Cells:  # noqa: N802
        return [{"type": "number", "minimum": value}]

    def _minItems(self, value: int, node: Any) -> Cells:  # noqa: N802
        return [{"type": "array", "maxItems": value - 1}] if value > 0 else []

    def _maxItems(self, value: int, node: Any) -> Cells:  # noqa: N802
        return [{"type": "array", "minItems": value + 1}]

    def _prefixItems(self, value: Sequence[Any], node: Any) -> Cells:  # noqa: N802
        return [
            {"type": "array", "prefixItems": [*itertools.repeat(True, at), wrong], "minItems": at + 1}
            for at, item in enumerate(value)
            if (wrong := self.inner(item)) is not False
        ]

    def _items(self, value: Any, node: Mapping[str, Any]) -> Cells:
        start = len(node.get("prefixItems", ()))
        beside = self.beside.conjuncts if self.beside is not None else []
        if not start and any("prefixItems" not in other and same(other.get("items", True), value) for other in beside):
            return []
        wrong = self.inner(value)
        if wrong is False:
            return []
        if value is False:
            return [{"type": "array", "minItems": start + 1}]
        last = node.get("maxItems", start + 9)
        if last > start + 8:
            raise Inexpressible("items")  # "some item is wrong" needs a keyword that no engine enforces
        return [
            {"type": "array", "prefixItems": [*itertools.repeat(True, at), wrong], "minItems": at + 1}
            for at in range(start, last)
        ]

    def _contains(self, value: Any, node: Mapping[str, Any]) -> Cells:
        if node.get("minContains", 1) != 1 or "maxContains" in node:
            raise Inexpressible("contains")
        return [{"type": "array", "items": self.inner(value)}]

    def _required(self, value: Sequence[str], node: Any) -> Cells:
        return [{"type": "object", "properties": {name: False}} for name in value]

    def _properties(self, value: Mapping[str, Any], node: Any) -> Cells:
        return list(self.wrong_property(value.items()))

    def _patternProperties(self, value: Mapping[str, Any], node: Any) -> Cells:  # noqa: N802
        if all(rule is True or rule == {} for rule in value.values()):
            return []
        if self.names is None:
            raise Inexpressible("patternProperties")
        pairs = [
            (name, rule) for pattern, rule in value.items() for name in sorted(self.names) if matches(pattern, name)
        ]
        return list(self.wrong_property(pairs))

    def _additionalProperties(self, value: Any, node: Mapping[str, Any]) -> Cells:  # noqa: N802
        if value is True or value == {}:
            return []
        if self.names is None:
            raise Inexpressible("additionalProperties")
        declared = set(node.get("properties", {}))
        patterns = node.get("patternProperties", {})
        extra = [n for n in sorted(self.names - declared) if not any(matches(pattern, n) for pattern in patterns)]
        return list(self.wrong_property((name, value) for name in extra))

    def wrong_property(self, rules: Any) -> Iterator[Any]:
        """Objects in which one named property is there and breaks its rule."""
        for name, rule in rules:
            own = self.beside.rules(name) if self.beside is not None else []
            wrong = self.inner(rule, view({"allOf": own}, self.definitions) if own else None)
            if wrong is not False:
                yield {"type": "object", "required": [name], "properties": {name: wrong}}

    def _propertyNames(self, value: Any, node: Any) -> Cells:  # noqa: N802
        refused = value.get("not") if isinstance(value, dict) and len(value) == 1 else None
        if not isinstance(refused, dict) or set(refused) - {"const", "enum"} or not refused:
            raise Inexpressible("propertyNames")
        names = refused.get("enum", [refused.get("const")])
        return [{"type": "object", "required": [name]} for name in names if isinstance(name, str)]

    def _minProperties(self, value: int, node: Any) -> Cells:  # noqa: N802
        return [{"type": "object", "maxProperties": value - 1}] if value > 0 else []

    def _maxProperties(self, value: int, node: Any) -> Cells:  # noqa: N802
        return [{"type": "object", "minProperties": value + 1}]

    def _dependentRequired(self, value: Mapping[str, Sequence[str]], node: Any) -> Cells:  # noqa: N802
        return [
            {"type": "object", "required": [name], "properties": {other: False}}
            for name, others in value.items()
            for other in others
        ]

    def _dependentSchemas(self, value: Mapping[str, Any], node: Any) -> Cells:  # noqa: N802
        return [
            intersection([{"type": "object", "required": [name]}, cell])
            for name, rule in value.items()
            for cell in self.of(rule)
        ]

    def _if(self, value: Any, node: Mapping[str, Any]) -> Cells:
        met = [intersection([value, cell]) for cell in self.of(node.get("then", True))]
        unmet = self.of(value) if "else" in node else []
        return met + [intersection(pair) for pair in itertools.product(unmet, self.of(node.get("else", True)))]

    def _then(self, value: Any, node: Any) -> Cells:
        return []

    _else = _then

    def _not(self, value: Any, node: Any) -> Cells:
        return [value]

    def _allOf(self, value: Sequence[Any], node: Any) -> Cells:  # noqa: N802
        return [cell for branch in value for cell in self.of(branch)]

    def _anyOf(self, value: Sequence[Any], node: Any) -> Cells:  # noqa: N802
        parts = [union(self.of(branch)) for branch in value]
        return [] if False in parts else [intersection(parts)]

    def _oneOf(self, value: Sequence[Any], node: Any) -> Cells:  # noqa: N802
        pairs = [intersection(pair) for pair in itertools.combinations(value, 2)]
        return self._anyOf(value, node) + pairs


def union(cells: Cells) -> Any:
    """One schema for several; False for none."""
    if not cells:
        return False
    return cells[0] if len(cells) == 1 else {"anyOf": cells}


def intersection(parts: Sequence[Any]) -> Any:
    """One schema that demands all of several."""
    return parts[0] if len(parts) == 1 else {"allOf": list(parts)}

"""A schema written without the keywords that engines refuse: the same values, other words.

The input is a bundle (see :func:`osport.constrained.bundle.bundled`). A keyword that cannot be
written otherwise stays where it is, so that the engine refuses it by name.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from osport.constrained.bundle import LISTS, MAPS, SINGLES
from osport.constrained.disjoint import disjoint, view
from osport.constrained.negate import Inexpressible, intersection, negation, union
from osport.constrained.patterns import matches
from osport.constrained.values import same

__all__ = ["rewritten"]

MAX_BRANCHES = 64

Node = dict[str, Any]


def rewritten(bundle: Mapping[str, Any]) -> dict[str, Any]:
    """The bundle in other words."""
    work = Rewriting(bundle.get("$defs", {}))
    root = work.node({key: value for key, value in bundle.items() if key != "$defs"})
    definitions = {name: work.node(value) for name, value in work.definitions.items()}
    if isinstance(root, bool):
        root = {} if root else {"not": {}}
    return {**root, "$defs": definitions} if definitions else root


class Rewriting:
    """One pass over a bundle, from the leaves up. Complements are taken of the schema as it was written."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self.definitions = dict(definitions)
        self.rules: tuple[tuple[str, Callable[[Node], Any]], ...] = (
            ("if", self.conditional),
            ("dependentRequired", self.dependent_required),
            ("dependentSchemas", self.dependent_schemas),
            ("not", self.negated),
            ("oneOf", self.exclusive),
            ("propertyNames", self.names),
            ("uniqueItems", self.unique),
            ("contains", self.contained),
            ("minProperties", self.counted),
            ("maxProperties", self.counted),
        )

    def node(self, schema: Any) -> Any:
        """The schema with each rule applied where its keyword stands, then the same below."""
        if isinstance(schema, bool):
            return schema
        node = {key: value for key, value in schema.items() if key not in ("then", "else") or "if" in schema}
        for keyword, rule in self.rules:
            if keyword in node:
                try:
                    changed = rule(node)
                except Inexpressible:
                    continue
                if isinstance(changed, bool):
                    return changed
                if changed is not None:
                    node = changed
        return {keyword: self.below(keyword, value) for keyword, value in node.items()}

    def below(self, keyword: str, value: Any) -> Any:
        """The subschemas under a keyword."""
        if keyword in LISTS:
            return [self.node(branch) for branch in value]
        if keyword in MAPS:
            return {name: self.node(branch) for name, branch in value.items()}
        return self.node(value) if keyword in SINGLES else value

    def complement(self, schema: Any, beside: Node) -> list[Any]:
        """What a schema forbids among the values of another."""
        return negation(schema, self.definitions, view(beside, self.definitions))

    def conditional(self, node: Node) -> Node | None:
        """``if`` and ``then``, or not ``if`` and ``else``."""
        rest = without(node, "if", "then", "else")
        condition, then, other = node["if"], node.get("then", True), node.get("else", True)
        if then is True and other is True:
            return rest
        met = intersection([condition, then]) if then is not True else condition
        unmet = [cell if other is True else intersection([cell, other]) for cell in self.complement(condition, rest)]
        return also(rest, union([met, *unmet]))

    def dependent_required(self, node: Node) -> Node | None:
        """A property is absent, or the others are there too."""
        rest = without(node, "dependentRequired")
        for name, others in node["dependentRequired"].items():
            if others:
                rest = also(rest, union([{"properties": {name: False}}, {"required": [name, *others]}]))
        return rest

    def dependent_schemas(self, node: Node) -> Node | None:
        """A property is absent, or the whole object conforms."""
        rest = without(node, "dependentSchemas")
        for name, rule in node["dependentSchemas"].items():
            if rule is True or rule == {}:
                continue
            absent = {"properties": {name: False}}
            rest = also(rest, absent if rule is False else union([absent, {"required": [name], "allOf": [rule]}]))
        return rest

    def negated(self, node: Node) -> Any:
        """``not`` as the union of what its schema forbids."""
        rest = without(node, "not")
        cells = self.complement(node["not"], rest)
        return also(rest, union(cells)) if cells else False if not rest else also(rest, False)

    def exclusive(self, node: Node) -> Node | None:
        """``oneOf`` as a union of branches, each without what it shares with another."""
        branches = list(node["oneOf"])
        if len(branches) == 1:
            return also(without(node, "oneOf"), branches[0])
        rest = without(node, "oneOf")
        alone = []
        for at, branch in enumerate(branches):
            parts = [branch]
            beside = also(rest, branch)
            for position, other in enumerate(branches):
                if position == at or disjoint(beside, other, self.definitions):
                    continue
                cells = [
                    cell for cell in self.complement(other, beside) if not disjoint(beside, cell, self.definitions)
                ]
                parts.append(union(cells))
            if False not in parts:
                alone.append(intersection(parts))
        return also(rest, union(alone))

    def names(self, node: Node) -> Node | None:
        """Rules for property names as patterns of a closed object."""
        rule = node["propertyNames"]
        if rule is True or rule == {}:
            return without(node, "propertyNames")
        if rule is False:
            return also(without(node, "propertyNames"), {"maxProperties": 0})
        pattern = pattern_of(rule)
        if pattern is None or "patternProperties" in node:
            return None
        rest = without(node, "propertyNames", "additionalProperties")
        properties = {n: r if matches(pattern, n) else False for n, r in node.get("properties", {}).items()}
        others = node.get("additionalProperties", True)
        if properties and others is not False:
            return None  # the pattern would also rule the declared names
        if properties:
            rest["properties"] = properties
        return {
            **rest,
            "patternProperties": {pattern: others} if others is not False else {},
            "additionalProperties": False,
        }

    def unique(self, node: Node) -> Node | None:
        """Different items, where they come from a short list, as a list of arrays."""
        rest = without(node, "uniqueItems")
        if (
            node["uniqueItems"] is False
            or node.get("maxItems", 2) < 2
            or (node.get("items") is False and "prefixItems" not in node)
        ):
            return rest
        seen = view(node.get("items", True), self.definitions)
        if seen is None or seen.values is None or node.get("prefixItems"):
            return None
        values = [value for value in seen.values if not disjoint({"const": value}, node["items"], self.definitions)]
        values = [value for at, value in enumerate(values) if not any(same(value, other) for other in values[:at])]
        lengths = range(node.get("minItems", 0), min(len(values), node.get("maxItems", len(values))) + 1)
        arrays: list[Any] = []
        for length in lengths:
            arrays += map(
                list, itertools.islice(itertools.permutations(values, length), MAX_BRANCHES * 6 + 1 - len(arrays))
            )
            if len(arrays) > MAX_BRANCHES * 6:
                return None
        if node.get("type") == "array":
            return also(without(rest, "items", "minItems", "maxItems"), {"enum": arrays} if arrays else False)
        return also(rest, union([{"type": list(EXCEPT_ARRAY)}, {"enum": arrays} if arrays else False]))

    def contained(self, node: Node) -> Node | None:
        """An item of any kind is a number of items; one of few is in one place or another."""
        least, most = node.get("minContains", 1), node.get("maxContains")
        rest = without(node, "contains", "minContains", "maxContains")
        if node["contains"] in (True, {}):
            bounds = {"minItems": least, **({} if most is None else {"maxItems": most})}
            return also(rest, bounds)
        if least == 0 and most is None:
            return rest
        longest = node.get("maxItems")
        if most is not None or least != 1 or longest is None or longest > 8:
            return None
        places = [{"prefixItems": [*[True] * at, node["contains"]], "minItems": at + 1} for at in range(longest)]
        return also(rest, union([{"type": list(EXCEPT_ARRAY)}, *places]))

    def counted(self, node: Node) -> Node | None:
        """Numbers of properties, where some are optional, as a choice of which are there."""
        rules = node.get("properties", {})
        optional = [name for name, rule in rules.items() if name not in node.get("required", ()) and rule is not False]
        if not optional:
            return None
        least = node.get("minProperties", 0) - len(node.get("required", ()))
        most = node.get("maxProperties")
        if least <= 0 and most is None:
            return without(node, "minProperties")
        room = len(optional) if most is None else min(len(optional), most - len(node.get("required", ())))
        exact = range(room + 1) if most is not None else range(min(least, room + 1))
        # ``exact``: which optional ones are there, and no other; the last cell of an open end: at least these.
        cells: list[Any] = []
        if most is None and least <= len(optional):
            if math.comb(len(optional), least) > MAX_BRANCHES:
                return None
            cells += [{"required": list(some)} for some in itertools.combinations(optional, least)]
        closed = node.get("additionalProperties") is False and not node.get("patternProperties")
        bounds = {key: node[key] for key in ("minProperties", "maxProperties") if key in node}
        for count in exact:
            if closed and count < least:
                continue
            for some in itertools.combinations(optional, count):
                absent = {name: False for name in optional if name not in some}
                cells.append({"required": list(some), "properties": absent, **({} if closed else bounds)})
                if len(cells) > MAX_BRANCHES:
                    return None
        if node.get("type") != "object":
            cells.append({"type": [kind for kind in EXCEPT_ARRAY if kind != "object"] + ["array"]})
        return also(without(node, "minProperties", "maxProperties"), union(cells))


EXCEPT_ARRAY = ("boolean", "null", "number", "object", "string")


def without(node: Node, *keywords: str) -> Node:
    """The node with some keywords left out."""
    return {key: value for key, value in node.items() if key not in keywords}


def also(node: Node, schema: Any) -> Node:
    """The node with one more schema that must hold."""
    return {**node, "allOf": [*node.get("allOf", ()), schema]}


def pattern_of(rule: Any) -> str | None:
    """A rule for strings as one pattern that is searched for; None when it is more than that."""
    if set(rule) <= {"pattern", "type"} and "pattern" in rule and rule.get("type", "string") == "string":
        return str(rule["pattern"])
    if set(rule) <= {"enum", "type"} and "enum" in rule and rule.get("type", "string") == "string":
        return f"^(?:{'|'.join(re.escape(name) for name in rule['enum'] if isinstance(name, str))})$"
    if set(rule) <= {"minLength", "maxLength", "type"} and rule.get("type", "string") == "string":
        return rf"^[\s\S]{{{rule.get('minLength', 0)},{rule.get('maxLength', '')}}}$"
    return None

"""One self-contained schema in the words of draft 2020-12, whatever draft it was written in.

Every reference of the result is ``#/$defs/<name>``, so that the tree around it may be rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from osport.constrained.keywords import CONSTRAINING
from osport.constrained.references import DYNAMIC, check_references, specification_of
from osport.constrained.schema import ref_overrides
from osport.constrained.tree import Schema, objects_of

__all__ = ["bundled", "dynamic_references", "endless_reference"]

LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
MAPS = ("dependentSchemas", "patternProperties", "properties")
SINGLES = (
    "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then", "unevaluatedItems",
    "unevaluatedProperties",
)  # fmt: skip

COUNTS = frozenset({
    "maxContains", "maxItems", "maxLength", "maxProperties", "minContains", "minItems", "minLength", "minProperties",
})  # fmt: skip


def bundled(schema: Schema) -> dict[str, Any]:
    """The schema without annotations, ids and older spellings, and with its references under ``$defs``."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    nodes = objects_of(schema)
    bundle = Bundle(
        overriding=ref_overrides(schema),
        specification=specification_of(schema, nodes),
        embedded=any("$id" in node or "id" in node for node in nodes[1:]),
    )
    resolver = check_references(schema, nodes).resolver(bundle.specification.create_resource(schema).id() or "")
    root = bundle.node(schema, resolver, entered=True)
    while bundle.pending:
        name, target, at = bundle.pending.pop()
        bundle.definitions[name] = bundle.node(target, at, entered=True)
    if isinstance(root, bool):
        root = {} if root else {"not": {}}
    return {**root, "$defs": bundle.definitions} if bundle.definitions else dict(root)


# Keywords whose subschemas speak about the very value that the schema speaks about.
IN_PLACE = ("allOf", "anyOf", "dependentSchemas", "else", "if", "not", "oneOf", "then")


def endless_reference(bundle: Mapping[str, Any]) -> bool:
    """Whether a reference comes back to itself without a step into the value: no validator would ever end."""
    definitions = bundle.get("$defs", {})
    reached = {name: set(referred_in_place(rule)) for name, rule in definitions.items()}
    while True:
        further = {name: found.union(*(reached[other] for other in found)) for name, found in reached.items()}
        if further == reached:
            return any(name in found for name, found in reached.items())
        reached = further


def referred_in_place(schema: Any) -> Iterator[str]:
    """The definitions that speak about the same value."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield schema["$ref"].removeprefix("#/$defs/")
    for keyword in IN_PLACE:
        below = schema.get(keyword)
        if keyword in LISTS or keyword in MAPS:
            for child in below.values() if isinstance(below, dict) else below or ():
                yield from referred_in_place(child)
        else:
            yield from referred_in_place(below)


def dynamic_references(bundle: Mapping[str, Any]) -> set[str]:
    """The words of references that were kept, because only the whole document tells where they lead."""
    return set().union(*objects_of(bundle)) & DYNAMIC


class Bundle:
    """The definitions found so far, by the identity of what a reference ends in."""

    def __init__(self, *, overriding: bool, specification: Any, embedded: bool) -> None:
        self.overriding = overriding
        self.specification = specification
        self.embedded = embedded  # schemas with ids of their own; without, a dynamic reference has one target only
        self.names: dict[int, str] = {}
        self.definitions: dict[str, Schema] = {}
        self.pending: list[tuple[str, Schema, Any]] = []

    def node(self, schema: Schema, resolver: Any, *, entered: bool = False) -> Schema:
        """The subschema in the new words. ``entered``: the resolver stands in it, its id is joined already."""
        if isinstance(schema, bool):
            return schema
        if not entered and isinstance(schema.get("$id", schema.get("id")), str):
            resolver = resolver.in_subresource(self.specification.create_resource(schema))
        if self.overriding and "$ref" in schema:
            return {"$ref": self.reference(schema["$ref"], resolver)}
        node: dict[str, Any] = {}
        for keyword, value in modern(schema).items():
            if keyword not in CONSTRAINING and keyword != "$recursiveRef":
                continue
            if keyword in ("$dynamicRef", "$recursiveRef") and self.embedded:
                node[keyword] = value  # kept by its name, so that an engine refuses it
            elif keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
                target = self.reference(value, resolver)
                if "$ref" in node:
                    node["allOf"] = [*node.get("allOf", ()), {"$ref": target}]
                else:
                    node["$ref"] = target
            elif keyword in LISTS:
                node[keyword] = [self.node(branch, resolver) for branch in value]
            elif keyword in MAPS:
                node[keyword] = {name: self.node(branch, resolver) for name, branch in value.items()}
            elif keyword in SINGLES:
                node[keyword] = self.node(value, resolver)
            else:
                node[keyword] = value
        return node

    def reference(self, reference: str, resolver: Any) -> str:
        """The new name of what a reference ends in."""
        found = resolver.lookup(reference)
        name = self.names.get(id(found.contents))
        if name is None:
            name = self.names[id(found.contents)] = f"r{len(self.names)}"
            self.pending.append((name, found.contents, found.resolver))
        return f"#/$defs/{name}"


def modern(node: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a node in the spelling of draft 2020-12."""
    new = dict(node)
    for word in COUNTS & node.keys():
        if isinstance(new[word], float) and new[word].is_integer():
            new[word] = int(new[word])
    for bound, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(new.get(strict), bool) and new.pop(strict) and bound in new:
            new[strict] = new.pop(bound)
    if isinstance(new.get("items"), list):
        new["prefixItems"] = new.pop("items")
        if "additionalItems" in new:
            new["items"] = new["additionalItems"]
    new.pop("additionalItems", None)
    for name, rule in new.pop("dependencies", {}).items():
        if isinstance(rule, list | str):
            new["dependentRequired"] = {
                **new.get("dependentRequired", {}),
                name: [rule] if isinstance(rule, str) else rule,
            }
        else:
            new["dependentSchemas"] = {**new.get("dependentSchemas", {}), name: rule}
    return new

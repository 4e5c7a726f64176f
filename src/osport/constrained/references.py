"""The references of a JSON Schema: all of them end inside the document, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT201909, DRAFT202012, specification_with

from osport.constrained.tree import TO_DEFINITION, NodePath, Schema, json_path, objects_of, pointed_at, walk
from osport.errors import UsageError

__all__ = ["DYNAMIC", "check_references", "refers_to_itself", "specification_of"]


DYNAMIC = frozenset({"$dynamicRef", "$recursiveRef"})
# Without these, below the root for the ids, a reference is a pointer from the root.
UNUSUAL = DYNAMIC | {"$id", "id"}

Nodes = Sequence[Mapping[str, Any]]


def nodes_of(schema: Schema) -> Sequence[tuple[NodePath, Mapping[str, Any]]]:
    """The subschemas that are objects, with their paths."""
    return [(path, node) for path, node in walk(schema) if isinstance(node, dict)]


def refers_to_itself(schema: Schema, nodes: Nodes) -> bool:
    """Whether a reference may lead back to where it stands; always true for one that is no JSON pointer."""
    if not all(map(DYNAMIC.isdisjoint, nodes)):
        return True
    places = {}
    for reference in references_in(nodes):
        place = pointed_at(schema, reference)
        if place is None:
            return True
        places[reference] = place
    if all(map(TO_DEFINITION.fullmatch, places)):  # these do not stand in one another
        leads: dict[Any, set[Any]] = {key: references_in(objects_of(target)) for key, (_, target) in places.items()}
    else:
        leads = {path: set() for path, _ in places.values()}
        for path, node in nodes_of(schema):
            if isinstance(pointer := node.get("$ref"), str):
                for end in range(len(path) + 1):
                    if path[:end] in leads:
                        leads[path[:end]].add(places[pointer][0])
    # Places that lead nowhere further are taken away until only circles are left.
    while ends := {place for place, further in leads.items() if not further & leads.keys()}:
        leads = {place: further for place, further in leads.items() if place not in ends}
    return bool(leads)


def references_in(nodes: Nodes) -> set[str]:
    """All ``$ref`` of some objects."""
    return {reference for node in nodes if isinstance(reference := node.get("$ref"), str)}


def check_references(schema: Schema, nodes: Nodes | None = None) -> Registry[Any]:
    """A registry of the document alone, after every reference was found to end inside it."""
    if isinstance(schema, bool):
        return Registry()
    nodes = objects_of(schema) if nodes is None else nodes
    specification = specification_of(schema, nodes)
    root = root_of(schema, specification)
    usual = all(map(UNUSUAL.isdisjoint, nodes[1:])) and DYNAMIC.isdisjoint(schema)
    if usual and all(pointed_at(schema, reference) for reference in references_in(nodes)):
        simple: Registry[Any] = Registry().with_resource(root.id() or "", root)
        return simple
    registry: Registry[Any] = Registry().with_resource(root.id() or "", root).crawl()
    bases: dict[NodePath, Any] = {(): registry.resolver(root.id() or "")}
    for path, node in nodes_of(schema):
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


def root_of(schema: Schema, specification: Any) -> Resource[Any]:
    """The document as a resource of its draft."""
    root: Resource[Any] = Resource.from_contents(schema, default_specification=specification)
    return root


def specification_of(schema: Schema, nodes: Nodes) -> Any:
    """How references are read in the schema's draft; without ``$schema`` in the newest that fits."""
    named = schema.get("$schema") if isinstance(schema, dict) else None
    if named is not None:
        return specification_with(named)
    # The newest one's reader fails on a list of items.
    listed = any(isinstance(node.get("items"), list) for node in nodes)
    return DRAFT201909 if listed else DRAFT202012

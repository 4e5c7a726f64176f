"""The references of a JSON Schema: all of them end inside the document, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

from osport.constrained.tree import NodePath, Schema, json_path, pointed_at, walk
from osport.errors import UsageError

__all__ = ["check_references", "refers_to_itself", "specification_of"]


Nodes = Sequence[tuple[NodePath, Mapping[str, Any]]]


def nodes_of(schema: Schema) -> Nodes:
    """The subschemas that are objects, with their paths."""
    return [(path, node) for path, node in walk(schema) if isinstance(node, dict)]


def refers_to_itself(schema: Schema, nodes: Nodes) -> bool:
    """Whether a reference may lead back to where it stands; always true for one that is no JSON pointer."""
    places: list[tuple[NodePath, NodePath]] = []
    found: dict[str, NodePath] = {}
    for path, node in nodes:
        if "$dynamicRef" in node or "$recursiveRef" in node:
            return True
        reference = node.get("$ref")
        if isinstance(reference, str):
            if reference not in found:
                place = pointed_at(schema, reference)
                if place is None:
                    return True
                found[reference] = place[0]
            places.append((path, found[reference]))
    leads: dict[NodePath, set[NodePath]] = {target: set() for target in found.values()}
    for path, target in places:
        for end in range(len(path) + 1):
            if path[:end] in leads:
                leads[path[:end]].add(target)
    # Places that lead nowhere further are taken away until only circles are left.
    while ends := {place for place, further in leads.items() if not further & leads.keys()}:
        leads = {place: further for place, further in leads.items() if place not in ends}
    return bool(leads)


def check_references(schema: Schema, nodes: Nodes | None = None) -> Registry[Any]:
    """A registry of the document alone, after every reference was found to end inside it."""
    if isinstance(schema, bool):
        return Registry()
    specification = specification_of(schema)
    root = root_of(schema, specification)
    nodes = nodes_of(schema) if nodes is None else nodes
    if not any("$dynamicRef" in node or "$recursiveRef" in node for _, node in nodes) and not any(
        path and ("$id" in node or "id" in node) for path, node in nodes
    ):
        own = {node["$ref"] for _, node in nodes if isinstance(node.get("$ref"), str)}
        if all(pointed_at(schema, reference) for reference in own):
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


def root_of(schema: Schema, specification: Any) -> Resource[Any]:
    """The document as a resource of its draft."""
    root: Resource[Any] = Resource.from_contents(schema, default_specification=specification)
    return root


def specification_of(schema: Schema) -> Any:
    """How references are read in the schema's draft."""
    named = schema.get("$schema") if isinstance(schema, dict) else None
    return DRAFT202012 if named is None else specification_with(named)

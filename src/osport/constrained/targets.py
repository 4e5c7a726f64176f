"""Classes as schemas, and verified JSON values as their instances."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin, is_typeddict

import attrs
import cattrs
from attrs import frozen

from osport.errors import UsageError

__all__ = ["Target", "target_of"]

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


@frozen
class Target:
    """A class, the schema of its instances, and how a verified value becomes one."""

    schema: dict[str, Any]
    load: Callable[[Any], Any]


def target_of(target: type) -> Target:
    """The target of an attrs class, a dataclass, a TypedDict or a pydantic model.

    Optional fields are those with a default. Raises :class:`~osport.errors.UsageError` for any other
    class, and for a field whose type has no JSON Schema.
    """
    if hasattr(target, "model_json_schema") and hasattr(target, "model_validate"):
        return Target(target.model_json_schema(), target.model_validate)
    if not fields_of(target):
        raise UsageError(f"{target!r}: an attrs class, a dataclass, a TypedDict or a pydantic model with fields")
    definitions: dict[str, Any] = {}
    root = schema_of(target, definitions, target.__qualname__)
    converter = cattrs.Converter()
    schema = {**root, "$defs": definitions} if definitions else root
    return Target(schema, lambda value: converter.structure(value, target))


def fields_of(target: Any) -> dict[str, tuple[Any, bool]]:
    """The fields of a class: name to type and whether it must be given. Empty for a class of another kind."""
    if attrs.has(target):
        hints = typing.get_type_hints(target)
        return {f.alias or f.name: (hints[f.name], f.default is attrs.NOTHING) for f in attrs.fields(target) if f.init}
    if dataclasses.is_dataclass(target):
        hints = typing.get_type_hints(target)
        missing = dataclasses.MISSING
        return {
            f.name: (hints[f.name], f.default is missing and f.default_factory is missing)
            for f in dataclasses.fields(target)
            if f.init
        }
    if is_typeddict(target):
        return {name: (kind, name in target.__required_keys__) for name, kind in typing.get_type_hints(target).items()}
    return {}


def schema_of(kind: Any, definitions: dict[str, Any], where: str) -> dict[str, Any]:
    """The schema of a type; classes that contain themselves go through ``definitions``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(part, definitions, where) for part in arguments]}
    if origin in (list, tuple) and arguments and (origin is list or arguments[1:] == (Ellipsis,)):
        return {"type": "array", "items": schema_of(arguments[0], definitions, where)}
    if origin is dict and arguments and arguments[0] is str:
        return {"type": "object", "additionalProperties": schema_of(arguments[1], definitions, where)}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    members = fields_of(kind)
    if not members:
        raise UsageError(f"{where}: {kind!r} has no JSON Schema; use plain types, Literal, Enum, list, dict or a class")
    name = kind.__name__
    if name in definitions:
        return {"$ref": f"#/$defs/{name}"}
    definitions[name] = {}
    node = {
        "type": "object",
        "properties": {f: schema_of(t, definitions, f"{name}.{f}") for f, (t, _) in members.items()},
        "required": [f for f, (_, needed) in members.items() if needed],
        "additionalProperties": False,
    }
    definitions[name] = node
    return {"$ref": f"#/$defs/{name}"}

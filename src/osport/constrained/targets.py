"""Classes as schemas, and verified JSON values as their instances."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import partial
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, is_typeddict

import attrs
import cattrs
from attrs import frozen
from cattrs.preconf.json import make_converter

from osport.errors import ConstraintViolated, UsageError

__all__ = ["Target", "is_target", "target_of"]

PLAIN = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
}
Definitions = dict[Any, tuple[str, dict[str, Any]]]
"""By class: its name in ``$defs``, which no other class has, and its schema."""


@frozen
class Target:
    """A class, the schema of its instances, and how a verified value becomes one."""

    schema: dict[str, Any]
    load: Callable[[Any], Any]


def is_target(given: object) -> bool:
    """Whether it is a class, or made from classes as ``list[Item]`` is."""
    return isinstance(given, type) or get_origin(given) is not None


def target_of(target: Any) -> Target:
    """The target of an attrs class, a dataclass, a TypedDict or a pydantic model, or of ``list[Item]`` and the like.

    Optional fields are those with a default. ``load`` raises :class:`~osport.errors.ConstraintViolated` with the
    keyword ``class`` for what a validator or converter of the class refuses. Raises
    :class:`~osport.errors.UsageError` for any other class, and for a field whose type has no JSON Schema.
    """
    if hasattr(target, "model_json_schema") and hasattr(target, "model_validate"):
        return Target(target.model_json_schema(), partial(_loaded, target, target.model_validate))
    if get_origin(target) is None and not fields_of(target):
        raise UsageError(f"{target!r}: an attrs class, a dataclass, a TypedDict or a pydantic model with fields")
    definitions: Definitions = {}
    root = schema_of(target, definitions, named(target))
    converter = make_converter(use_alias=True)
    try:
        build = converter.get_structure_hook(target)
    except Exception as error:
        raise UsageError(f"{named(target)}: no values can be made of it: {error}") from error
    schemas = dict(definitions.values())
    return Target({**root, "$defs": schemas}, partial(_loaded, target, lambda value: build(value, target)))


def named(target: Any) -> str:
    """A class by its name, and what is made from classes as it is written."""
    return target.__qualname__ if isinstance(target, type) else repr(target)


def _loaded(target: Any, build: Callable[[Any], Any], value: Any) -> Any:
    try:
        return build(value)
    except Exception as error:
        if isinstance(error, cattrs.BaseValidationError):
            why = "; ".join(cattrs.transform_error(error, format_exception=lambda fault, _: str(fault)))
        else:
            why = str(error)
        raise ConstraintViolated(f"{named(target)} does not take the value: {why}", keyword="class") from error


def fields_of(target: Any) -> dict[str, tuple[Any, bool]]:
    """The fields of a class: name to type and whether it must be given. Empty for a class of another kind."""
    if attrs.has(target):
        hints = _hints(target)
        return {f.alias or f.name: (hints[f.name], f.default is attrs.NOTHING) for f in attrs.fields(target) if f.init}
    if dataclasses.is_dataclass(target):
        hints = _hints(target)
        missing = dataclasses.MISSING
        return {
            f.name: (hints[f.name], f.default is missing and f.default_factory is missing)
            for f in dataclasses.fields(target)
            if f.init
        }
    if is_typeddict(target):
        needed = target.__required_keys__
        for name, kind in _hints(target, include_extras=True).items():
            mark = get_origin(kind)
            if mark in (Required, NotRequired) and (mark is Required) != (name in needed):
                raise UsageError(
                    f"{named(target)}.{name}: Python does not see {mark} where annotations are texts; leave out "
                    "`from __future__ import annotations`, or part the class in two, one of them with total=False"
                )
        return {name: (kind, name in needed) for name, kind in _hints(target).items()}
    return {}


def _hints(target: Any, *, include_extras: bool = False) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target, include_extras=include_extras)
    except NameError as error:
        raise UsageError(
            f"{named(target)}: {error}; annotations that are texts are looked up in the class's module, "
            "so define the classes there and not in a function"
        ) from error


def schema_of(kind: Any, definitions: Definitions, where: str) -> dict[str, Any]:
    """The schema of a type; classes that contain themselves go through ``definitions``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if kind in PLAIN:
        return dict(PLAIN[kind])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(part, definitions, where) for part in arguments]}
    if origin in (list, Sequence) or (origin is tuple and arguments[1:] == (Ellipsis,)):
        return {"type": "array", "items": schema_of(arguments[0], definitions, where)}
    if origin is tuple:
        items = [schema_of(part, definitions, where) for part in arguments]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items), "maxItems": len(items)}
    if origin is dict and arguments and arguments[0] is str:
        return {"type": "object", "additionalProperties": schema_of(arguments[1], definitions, where)}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    members = fields_of(kind)
    if not members:
        raise UsageError(f"{where}: {kind!r} has no JSON Schema; use plain types, Literal, Enum, list, dict or a class")
    if kind not in definitions:
        taken = {name for name, _ in definitions.values()}
        names = (kind.__name__, *(f"{kind.__name__}{number}" for number in range(2, len(taken) + 3)))
        name = next(name for name in names if name not in taken)
        node: dict[str, Any] = {}
        definitions[kind] = name, node
        node["type"] = "object"
        node["properties"] = {f: schema_of(t, definitions, f"{name}.{f}") for f, (t, _) in members.items()}
        node["required"] = [f for f, (_, needed) in members.items() if needed]
        node["additionalProperties"] = False
    return {"$ref": f"#/$defs/{definitions[kind][0]}"}

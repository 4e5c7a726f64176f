"""A TOML table as an attrs class: every key known, every type right, or an error that says where."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import attrs

from osport.errors import UsageError

__all__ = ["nearest", "read_table"]

T = TypeVar("T")


def read_table(kind: type[T], table: object, where: str, **given: Any) -> T:
    """Build ``kind`` from a TOML table; ``given`` holds the fields that do not come from it.

    An unknown key, a missing key, a wrong type or a value that the class refuses is a
    :class:`~osport.errors.UsageError` that names the table and the key.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"{where}: must be a table, not {table!r}")
    hints = get_type_hints(kind)
    fields = {f.name: f for f in attrs.fields(kind) if f.init and f.name not in given}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise UsageError(f"{where}: unknown key {key!r}{nearest(key, fields)}")
    missing = [name for name, f in fields.items() if f.default is attrs.NOTHING and name not in table]
    if missing:
        raise UsageError(f"{where}: missing key {', '.join(missing)}")
    values = {key: typed(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values, **given)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    except ValueError as error:  # from an attrs validator, whose first argument is the message
        raise UsageError(f"{where}: {error.args[0]}") from error


def nearest(key: str, known: Mapping[str, object]) -> str:
    """A hint at what the caller may have meant."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def typed(hint: Any, value: Any, where: str) -> Any:
    allowed = tuple(get_origin(part) or part for part in (get_args(hint) or (hint,)) if part is not type(None))
    if get_origin(hint) in (dict, Mapping):
        allowed = (dict,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join(kind.__name__ for kind in allowed)
        raise UsageError(f"{where} must be a {names}, not {value!r}")
    return value

"""JSON as its standard has it: Python's own reader takes NaN, infinities, and a name given twice."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["STRICT", "RepeatedName"]


class RepeatedName(ValueError):
    """A name stands twice in one object."""


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits} is beyond every number that can be kept")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RepeatedName(f"the name {twice!r} stands twice in one object")
    return value


STRICT = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_each_once)
"""Raises :class:`ValueError`, and :class:`RecursionError` for what is nested too deeply."""

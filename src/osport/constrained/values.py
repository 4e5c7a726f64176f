"""JSON values as JSON Schema tells them apart: by type, by equality, and by what differs from them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

__all__ = ["ALL_TYPES", "has_type", "is_multiple", "other_strings", "same", "type_of", "unlike"]

ALL_TYPES = frozenset({"array", "boolean", "null", "number", "object", "string"})


def type_of(value: Any) -> str:
    """The type of a JSON value; integers are numbers."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Mapping) else "array"


def has_type(value: Any, stated: str | Sequence[str]) -> bool:
    """Whether a JSON value is of a stated type; 1.0 is an integer."""
    kinds = {type_of(value)}
    if "number" in kinds and value == int(value):
        kinds.add("integer")
    return not kinds.isdisjoint([stated] if isinstance(stated, str) else stated)


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 is 1.0, and true is not 1."""
    if type_of(one) != type_of(other):
        return False
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def is_multiple(value: int | float, of: int | float) -> bool:
    """Whether a number is a multiple of another by their decimal digits, in which 0.3 is one of 0.1."""
    return exact(value) % exact(of) == 0


def exact(number: int | float) -> Fraction:
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def unlike(kind: str, values: Sequence[Any], negate: Callable[[Any], Any]) -> list[Any]:
    """Schemas for the values of one type that equal none of ``values``."""
    if not values:
        return [{"type": kind}]
    if kind == "null":
        return []
    if kind == "boolean":
        left = [value for value in (False, True) if value not in values]
        return [{"enum": left}] if left else []
    if kind == "string":
        return [{"type": "string", "pattern": other_strings(values)}]
    if kind == "number":
        return list(gaps(sorted(set(values))))
    apart = [list(unlike_array(value, negate) if kind == "array" else unlike_object(value, negate)) for value in values]
    return [{"allOf": [{"anyOf": cells} for cells in apart]}] if len(apart) > 1 else apart[0]


def gaps(numbers: Sequence[float]) -> Iterator[Any]:
    """The numbers below, between and above some numbers."""
    yield {"type": "number", "exclusiveMaximum": numbers[0]}
    for low, high in itertools.pairwise(numbers):
        yield {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high}
    yield {"type": "number", "exclusiveMinimum": numbers[-1]}


def unlike_array(value: Sequence[Any], negate: Callable[[Any], Any]) -> Iterator[Any]:
    """Arrays of another length, or with another value in one place."""
    if value:
        yield {"type": "array", "maxItems": len(value) - 1}
    yield {"type": "array", "minItems": len(value) + 1}
    for at, item in enumerate(value):
        prefix = [*[True] * at, negate({"const": item})]
        yield {"type": "array", "prefixItems": prefix, "minItems": at + 1, "maxItems": len(value)}


def unlike_object(value: Mapping[str, Any], negate: Callable[[Any], Any]) -> Iterator[Any]:
    """Objects with more properties, without one of them, or with another value in one."""
    yield {"type": "object", "minProperties": len(value) + 1}
    for name, item in value.items():
        yield {"type": "object", "properties": {name: False}}
        yield {"type": "object", "required": [name], "properties": {name: negate({"const": item})}}


def other_strings(words: Sequence[str]) -> str:
    """A pattern that every string matches except these words."""
    return f"^{_other(sorted(set(words)))}$"


def _other(words: Sequence[str]) -> str:
    heads = sorted({word[0] for word in words if word})
    parts = []
    if heads:
        parts.append(f"[^{''.join(_in_class(c) for c in heads)}]{ANY}")
        parts += [re.escape(head) + _other([word[1:] for word in words if word[:1] == head]) for head in heads]
    else:
        parts.append(f"{ANYTHING}+")
    # The empty rest is one of the other strings unless a word ends here.
    rest = f"(?:{'|'.join(parts)})"
    return rest if "" in words else f"(?:{rest})?"


ANYTHING = r"[\s\S]"
ANY = ANYTHING + "*"


def _in_class(character: str) -> str:
    return "\\" + character if character in r"\]^-[&~|" else character

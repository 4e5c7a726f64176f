"""Which family a template belongs to, and what is known about it."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from attrs import field, frozen

from osport.data import load

__all__ = ["Family", "families", "family_of"]


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen
class Family:
    """What models that share a way of writing have in common; empty where a family has no such thing.

    ``calls``: the form of a tool call. ``reasoning``: the pair that opens and closes thinking.
    ``ids``: the only shape of call id that the template understands. ``vllm``: its tool and reasoning parser.
    """

    name: str
    marks: tuple[str, ...] = field(converter=_texts)
    without: tuple[str, ...] = field(default=(), converter=_texts)
    stop: tuple[str, ...] = field(default=(), converter=_texts)
    calls: str = ""
    ids: str = ""
    reasoning: tuple[str, ...] = field(default=(), converter=_texts)
    always_thinks: bool = False
    levels: tuple[str, ...] = field(default=(), converter=_texts)
    vllm: tuple[str, ...] = field(default=("", ""), converter=_texts)
    tags: tuple[str, ...] = field(default=(), converter=_texts)


@functools.cache
def families() -> tuple[Family, ...]:
    """All families, the special ones before the general."""
    return tuple(Family(**row) for row in load("families.toml")["family"])


@functools.lru_cache(maxsize=256)
def family_of(source: str) -> Family | None:
    """The family of a template by what stands in its text; None when it is not known."""
    for family in families():
        if all(mark in source for mark in family.marks) and not any(mark in source for mark in family.without):
            return family
    return None

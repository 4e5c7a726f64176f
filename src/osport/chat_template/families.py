"""Which family a template belongs to, and what is known about it."""

from __future__ import annotations

import functools

from attrs import field, frozen

from osport.data import load

__all__ = ["Family", "families", "family_of"]


@frozen
class Family:
    """What models that share a way of writing have in common; empty where a family has no such thing.

    ``calls``: the form of a tool call. ``reasoning``: the pair that opens and closes thinking.
    ``ids``: the only shape of call id that the template understands. ``vllm``: its tool and reasoning parser.
    """

    name: str
    marks: tuple[str, ...] = field(converter=tuple)
    without: tuple[str, ...] = field(default=(), converter=tuple)
    stop: tuple[str, ...] = field(default=(), converter=tuple)
    calls: str = ""
    ids: str = ""
    reasoning: tuple[str, ...] = field(default=(), converter=tuple)
    always_thinks: bool = False
    levels: tuple[str, ...] = field(default=(), converter=tuple)
    vllm: tuple[str, ...] = field(default=("", ""), converter=tuple)
    tags: tuple[str, ...] = field(default=(), converter=tuple)


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

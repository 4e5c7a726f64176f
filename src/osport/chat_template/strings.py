"""Everything that the caller wrote into a request: each string and each name of a field, and where it stands."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["any_of", "holds_one_of", "strings", "without"]

HARMLESS = "kq"  # in place of a control token; not nothing, or a turn might become empty


def strings(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> Iterator[tuple[str, str]]:
    """(place, text) of all of it, as templates read the request."""
    for name, values in (("messages", messages), ("tools", tools or ())):
        for index, value in enumerate(values):
            for place, text in _inside(value, f"{name}[{index}]"):
                yield place.replace(".function", "", 1), text


def _inside(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield place, key
            yield from _inside(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _inside(item, f"{place}[{index}]")


def holds_one_of(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None, words: frozenset[str]
) -> bool:
    """Whether one of these words stands anywhere in the request."""
    pattern = any_of(words)
    return any(pattern.search(text) for _, text in strings(messages, tools))


def without(value: Any, words: frozenset[str]) -> Any:
    """The same value with something harmless in place of these words."""
    return _replaced(value, any_of(words))


def _replaced(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(HARMLESS, value)
    if isinstance(value, Mapping):
        return {_replaced(key, pattern): _replaced(item, pattern) for key, item in value.items()}
    return [_replaced(item, pattern) for item in value] if isinstance(value, list | tuple) else value


@functools.lru_cache(maxsize=64)
def any_of(words: frozenset[str]) -> re.Pattern[str]:
    """Finds the longest of these words; of no words, nothing. Some tokenizers have thousands, so it is kept."""
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or "(?!)")

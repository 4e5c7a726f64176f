"""What is known about a model, every value with its source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import evolve, field, frozen

__all__ = ["Fact", "ModelFacts"]


@frozen
class Fact:
    """One value, where it came from, and when the source was read (ISO date, empty if live)."""

    value: Any
    source: str
    date: str = ""


@frozen
class ModelFacts:
    """Facts by name: ``architecture``, ``context_length``, ``chat_template``, ``license``,
    ``quantization``, ``parameters``, ``path``, ``sha256``, ``engine``, and what else a source offers.

    >>> facts = ModelFacts.of("config.json", architecture="llama")
    >>> facts["architecture"], facts.fact("architecture").source
    ('llama', 'config.json')
    """

    known: Mapping[str, Fact] = field(factory=dict)

    @classmethod
    def of(cls, source: str, date: str = "", **values: Any) -> ModelFacts:
        """Facts that share one source; values that are None are left out."""
        return cls({k: Fact(v, source, date) for k, v in values.items() if v is not None})

    def __getitem__(self, name: str) -> Any:
        return self.known[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __contains__(self, name: object) -> bool:
        return name in self.known

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or ``default`` when it is not known."""
        return self.known[name].value if name in self.known else default

    def fact(self, name: str) -> Fact:
        """The value with its source. Raises KeyError when it is not known."""
        return self.known[name]

    def merged(self, other: ModelFacts) -> ModelFacts:
        """These facts, with what ``other`` knows besides; on both sides, these win."""
        return evolve(self, known={**other.known, **self.known})

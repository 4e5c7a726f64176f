"""What osport asks of a mask engine."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

from osport.constrained.vocabulary import Vocabulary
from osport.core.capabilities import THINKING_FIRST
from osport.core.thought import Thought
from osport.core.types import Constraint
from osport.errors import MissingDependency, UnsupportedFeature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Compiled", "Engine", "Matcher", "imported", "refuse_thought"]


class Matcher(Protocol):
    """What may come next in one answer, kept over the tokens that came so far."""

    def fill(self, bits: NDArray[np.int32]) -> None:
        """Set the bit of each allowed token, and no other. ``bits``: one row, 32 tokens a number.

        Raises :class:`~osport.errors.BackendError` when the engine failed: its mask would mean nothing.
        """

    def advance(self, token: int) -> bool:
        """Take a token; False when the form forbids it, and the matcher is then of no more use."""

    def forced(self) -> bytes:
        """The bytes that must come next, as far as there is no choice; empty where the engine does not say."""

    def rollback(self, tokens: int) -> None:
        """Undo the last tokens, an end among them."""

    @property
    def is_accepting(self) -> bool:
        """Whether the answer may end here."""

    @property
    def is_stopped(self) -> bool:
        """Whether nothing but the end may follow."""


class Compiled(Protocol):
    """A constraint compiled for one vocabulary."""

    def start(self) -> Matcher:
        """A matcher at the beginning of an answer; each request has one of its own."""


class Engine(Protocol):
    """One mask engine. ``kinds``: the kinds of constraint that it takes."""

    @property
    def name(self) -> str: ...  # noqa: D102 - the name in constraints and tables

    @property
    def kinds(self) -> frozenset[str]: ...  # noqa: D102 - see the class

    def version(self) -> str:
        """Package and version, for the record. Raises :class:`~osport.errors.MissingDependency`."""

    def compile(self, constraint: Constraint, vocabulary: Vocabulary, thought: Thought | None = None) -> Compiled:
        """``thought``: what the form holds behind; only llguidance takes one.

        Raises :class:`~osport.errors.UnsupportedFeature`, for a schema with keyword and path.
        """


def imported(module: str, extra: str) -> Any:
    """A package that an engine needs, or the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(module.replace("_", "-"), extra) from error


def refuse_thought(thought: Thought | None, engine: str) -> None:
    """Raise :class:`~osport.errors.UnsupportedFeature` for a thought at an engine whose forms begin at once."""
    if thought is not None:
        raise UnsupportedFeature(THINKING_FIRST, engine, alternatives=("engine='llguidance'",))

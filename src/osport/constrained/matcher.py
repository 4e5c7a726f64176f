"""The mask alone, replayed without a model: what a form allows, byte by byte or token by token."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from osport.constrained.protocol import Compiled, Matcher
from osport.constrained.vocabulary import Vocabulary

__all__ = ["OutputMatcher"]


class OutputMatcher:
    """A form over a vocabulary, at one place of an answer."""

    def __init__(self, compiled: Compiled, vocabulary: Vocabulary) -> None:
        self._compiled = compiled
        self._vocabulary = vocabulary

    @cached_property
    def _matcher(self) -> Matcher:
        return self._compiled.start()

    def accepts(self, text: str | bytes) -> bool:
        """Whether a whole answer from the beginning is allowed, whatever was advanced before.

        Raises :class:`~osport.errors.BackendError` when the engine failed on the way.
        """
        matcher = self._compiled.start()
        try:
            data = text.encode() if isinstance(text, str) else text
        except UnicodeEncodeError:  # half a surrogate pair, which no token spells
            return False
        return all(matcher.advance(token) for token in self._vocabulary.tokens_of(data)) and matcher.is_accepting

    def advance(self, data: bytes) -> bool:
        """Take the next bytes of the answer; False when the form forbids them."""
        return all(self._matcher.advance(token) for token in self._vocabulary.tokens_of(data))

    def allowed(self) -> frozenset[int]:
        """The tokens that may come next; with ``bytes`` their values, and 256 for the end."""
        import numpy as np

        size = len(self._vocabulary.pieces)
        bits = np.zeros((size + 31) // 32, dtype=np.int32)
        self._matcher.fill(bits)
        flags: Any = np.unpackbits(bits.view(np.uint8), count=size, bitorder="little")
        return frozenset(np.flatnonzero(flags).tolist())

    @property
    def is_accepting(self) -> bool:
        """Whether the answer may end here."""
        return self._matcher.is_accepting

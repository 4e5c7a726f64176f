"""The token masks of one model, for engines whose logits osport sees in process.

Everything here works on a copy of the model's vocabulary. No pointer into the model is kept, so a mask
that outlives its model is harmless.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import attrs

from osport.constrained.engines import DEFAULT_ENGINE, engine_named
from osport.constrained.protocol import Compiled, Matcher
from osport.constrained.vocabulary import Vocabulary
from osport.core.thought import Thought
from osport.core.types import Constraint
from osport.errors import BackendError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ModelMasks", "TokenMask"]

MAX_COMPILED = 64
# Above this share of the vocabulary a list of tokens costs more than a table over all of them.
SPARSE = 8


@attrs.define(eq=False)
class ModelMasks:
    """Masks over the vocabulary of one model; what was compiled is kept, what was used least recently goes first.

    Thread-safe: one thread may compile while others take what is there.
    """

    vocabulary: Vocabulary
    _compiled: dict[tuple[str, str, str, Thought | None], Compiled] = attrs.field(init=False, factory=dict)
    _lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)

    def mask(self, constraint: Constraint, thought: Thought | None = None) -> TokenMask:
        """The mask of one answer, by the engine that the constraint names (llguidance where it names none).

        ``thought``: the reasoning behind which the form begins.

        Raises :class:`~osport.errors.UnsupportedFeature` for what the engine would not enforce, or not compile within
        its limits, :class:`~osport.errors.UsageError` for an engine that osport does not know.
        """
        name = constraint.engine or DEFAULT_ENGINE
        key = (name, constraint.kind, constraint.text, thought)
        with self._lock:
            compiled = self._compiled.get(key)
        if compiled is None:
            compiled = engine_named(name).compile(constraint, self.vocabulary, thought)
        with self._lock:
            self._compiled.pop(key, None)
            self._compiled[key] = compiled
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.pop(next(iter(self._compiled)))
        return TokenMask(compiled.start(), self.vocabulary)


class TokenMask:
    """What may come next in one answer.

    For every token: :meth:`apply` to the logits, sample, :meth:`advance` with what was sampled. A mask belongs
    to one request and must see each token once, in order: no drafted ones that may be taken back.
    The answer is complete when :attr:`is_accepting` holds, whatever reason the engine gives for its end.
    """

    def __init__(self, matcher: Matcher, vocabulary: Vocabulary) -> None:
        import numpy as np

        self._matcher = matcher
        self._size = len(vocabulary.pieces)
        self._bits = np.zeros(vocabulary.words, dtype=np.int32)
        # A token has one bit; those beyond the vocabulary, in the last number, are never asked for.
        self._places = np.arange(32, dtype=np.intp)
        self._table: NDArray[np.float32] | None = None
        self._failed = ""

    def apply(self, scores: NDArray[np.float32]) -> None:
        """Set every forbidden logit to minus infinity, in place; allowed ones keep their value.

        ``scores`` is one row of float32 logits, strided or not, at least as long as the vocabulary.
        Raises :class:`~osport.errors.BackendError` when the engine failed, or when it allows no token at all;
        the scores are as they were then.
        """
        import numpy as np

        if scores.dtype != np.float32 or scores.ndim != 1:
            raise UsageError("scores must be one row of float32")
        if len(scores) < self._size:
            raise UsageError(f"{len(scores)} scores for a vocabulary of {self._size} tokens")
        if self._failed:
            raise BackendError(f"the constraint failed midway: {self._failed}")
        self._matcher.fill(self._bits)
        some = np.flatnonzero(self._bits)
        if not len(some):
            raise BackendError("the constraint failed midway: it allows no token, not even the end")
        if len(some) * SPARSE < len(self._bits):
            allowed = self._tokens(some, self._bits)
            kept = scores[allowed]
            scores.fill(-np.inf)
            scores[allowed] = kept
            return
        lacking = np.flatnonzero(self._bits != -1)
        if len(lacking) * SPARSE < len(self._bits):
            scores[self._tokens(lacking, ~self._bits)] = -np.inf
        else:
            self._add_penalties(scores)
        if len(scores) > self._size:
            scores[self._size :] = -np.inf

    def advance(self, token: int) -> None:
        """Take the token that was sampled.

        Raises :class:`~osport.errors.BackendError` for a token that the mask had forbidden.
        """
        if not self._matcher.advance(token):
            self._failed = f"the engine sampled token {token}, which the constraint forbids"
            raise BackendError(self._failed)

    def rollback(self, tokens: int) -> None:
        """Undo the last tokens."""
        self._matcher.rollback(tokens)

    @property
    def is_accepting(self) -> bool:
        """Whether the answer may end here as a complete one."""
        return not self._failed and self._matcher.is_accepting

    @property
    def is_stopped(self) -> bool:
        """Whether nothing but the end may follow; also true after a failure."""
        return bool(self._failed) or self._matcher.is_stopped

    def _tokens(self, words: NDArray[np.intp], bits: NDArray[np.int32]) -> NDArray[np.intp]:
        """The tokens whose bits are set in some numbers of a mask."""
        import numpy as np

        flags = np.unpackbits(bits[words].view(np.uint8), bitorder="little").view(np.bool_)
        tokens = (words[:, None] * 32 + self._places).reshape(-1)[flags]
        return tokens if len(tokens) and tokens[-1] < self._size else tokens[tokens < self._size]

    def _add_penalties(self, scores: NDArray[np.float32]) -> None:
        """Eight tokens a byte, looked up as what to add to their logits: far cheaper than a branch for each."""
        import numpy as np

        if self._table is None:
            bits_of_bytes = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
            self._table = np.where(bits_of_bytes == 1, np.float32(0), np.float32(-np.inf))
            self._penalties: Any = np.empty((len(self._bits) * 4, 8), dtype=np.float32)
        np.take(self._table, self._bits.view(np.uint8), axis=0, out=self._penalties, mode="clip")
        scores[: self._size] += self._penalties.reshape(-1)[: self._size]

"""The token mask of one constrained answer, for engines whose logits osport sees in process.

A mask belongs to one request. None of its methods may raise inside an engine's callback without
the engine being told: llama-cpp-python swallows such an exception and goes on unconstrained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from osport.errors import BackendError, MissingDependency, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LlguidanceMask", "llama_tokenizer"]

MISSING = MissingDependency("llguidance", "constrained")


def llama_tokenizer(model: Any) -> Any:
    """The llguidance tokenizer of a loaded ``llama_cpp.Llama``; every end-of-generation token ends an answer.

    Costs about 0.4 s for 49,000 tokens and 2 s for 262,000: build it once a model and keep it beside
    the model. It holds a pointer into the model's vocabulary, so no mask may be used after the model is closed.
    """
    try:
        from llguidance.llamacpp import lltokenizer_from_vocab
    except ImportError as error:
        raise MISSING from error
    import llama_cpp

    vocabulary = llama_cpp.llama_model_get_vocab(model._model.model)
    size = llama_cpp.llama_vocab_n_tokens(vocabulary)
    ends = [token for token in range(size) if llama_cpp.llama_vocab_is_eog(vocabulary, token)]
    if not ends:
        raise UsageError("no token of the model's vocabulary ends an answer")
    return lltokenizer_from_vocab(vocabulary, eos_token=ends)


@attrs.define(init=False, eq=False)
class LlguidanceMask:
    """What may come next, kept by llguidance over the tokens that came so far.

    ``grammar`` is llguidance's Lark text, see :func:`osport.constrained.dialects.to_llguidance`.
    For every token: :meth:`apply` to the logits, sample, :meth:`advance` with what was sampled.
    The answer is complete when :attr:`is_accepting` holds, whatever reason the engine gives for its end.
    """

    _matcher: Any
    _bits: NDArray[np.int32]
    _table: NDArray[np.float32]
    _penalties: NDArray[np.float32]
    _size: int

    def __init__(self, grammar: str, tokenizer: Any) -> None:
        try:
            import llguidance
        except ImportError as error:
            raise MISSING from error
        import numpy as np

        self._matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        # The constructor does not raise: unasked, a refused matcher allows only the end, and the answer is empty.
        if self._matcher.is_error():
            raise UsageError(f"llguidance does not take the grammar: {self._matcher.get_error()}")
        self._size = tokenizer.vocab_size
        self._bits = np.zeros((self._size + 31) // 32, dtype=np.int32)
        bits_of_bytes = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
        self._table = np.where(bits_of_bytes == 1, np.float32(0), np.float32(-np.inf))
        self._penalties = np.empty((len(self._bits) * 4, 8), dtype=np.float32)

    def apply(self, scores: NDArray[np.float32]) -> None:
        """Set every forbidden logit to minus infinity, in place.

        ``scores`` is one row of logits: float32, contiguous, at least as long as the vocabulary.
        Raises :class:`~osport.errors.BackendError` when the matcher failed, and leaves the scores alone then.
        """
        import numpy as np

        if scores.dtype != np.float32 or scores.ndim != 1 or not scores.flags.c_contiguous:
            raise UsageError("scores must be one contiguous row of float32")
        if len(scores) < self._size:
            raise UsageError(f"{len(scores)} scores for a vocabulary of {self._size} tokens")
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        # Eight tokens a byte, looked up as what to add to their logits: far cheaper than a branch for each.
        np.take(self._table, self._bits.view(np.uint8), axis=0, out=self._penalties, mode="clip")
        scores[: self._size] += self._penalties.reshape(-1)[: self._size]
        scores[self._size :] = -np.inf

    def advance(self, token: int) -> None:
        """Take the token that was sampled.

        Raises :class:`~osport.errors.BackendError` for a token that the mask had forbidden.
        """
        if not self._matcher.consume_token(token):
            why = self._matcher.get_error()
            raise BackendError(f"the engine sampled token {token}, which the constraint forbids: {why}")

    @property
    def is_accepting(self) -> bool:
        """Whether the answer may end here as a complete one."""
        return bool(self._matcher.is_accepting())

    @property
    def is_stopped(self) -> bool:
        """Whether nothing but the end may follow; also true after a failure."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise BackendError(f"the constraint failed midway: {self._matcher.get_error()}")

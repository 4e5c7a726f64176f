"""llguidance as a mask engine: it refuses by itself what it does not enforce, and bounds its own time and memory."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from osport.constrained.dialects import HEADER, import_llguidance, lark_of_schema, plain, taken, to_llguidance
from osport.constrained.protocol import Compiled, Matcher
from osport.constrained.thoughts import behind_thought
from osport.constrained.vocabulary import BYTES, Vocabulary
from osport.core.thought import Thought
from osport.core.types import Constraint
from osport.errors import BackendError, UnsupportedFeature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LlguidanceEngine"]


class LlguidanceEngine:
    """The default: no torch, and nothing dropped without a word."""

    name = "llguidance"
    kinds = frozenset({"json_schema", "choice", "regex", "grammar", "tools"})

    def version(self) -> str:
        """Package and version."""
        import_llguidance()
        return f"llguidance {version('llguidance')}"

    def compile(self, constraint: Constraint, vocabulary: Vocabulary, thought: Thought | None = None) -> Compiled:
        """Raises :class:`~osport.errors.UnsupportedFeature` with keyword and path."""
        if constraint.kind == "json_schema":
            form = taken(constraint.text)
            if vocabulary is BYTES and thought is None:
                return _LlguidanceCompiled(form.matcher)
            text = lark_of_schema(form.schema)
        else:
            text = to_llguidance(constraint)
        if thought is not None:
            text = behind_thought(text, thought, vocabulary.whole(thought.opening or "", thought.closing))
        # Forced tokens would be spelt by a tokenizer that a bare vocabulary does not have.
        free = text.replace(HEADER, '%llguidance {"no_forcing": true}\n', 1)
        tokenizer = vocabulary.prepared(self.name, llguidance_tokenizer)
        matcher = import_llguidance().LLMatcher(tokenizer, free, log_level=0)
        # The constructor does not raise: unasked, a refused matcher allows only the end, and the answer is empty.
        if matcher.is_error():
            raise UnsupportedFeature(f"this {constraint.kind}", self.name, reason=matcher.get_error())
        return _LlguidanceCompiled(matcher)


class _LlguidanceCompiled:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def start(self) -> Matcher:
        return _LlguidanceMatcher(self._matcher.deep_copy())


class _LlguidanceMatcher:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill(self, bits: NDArray[np.int32]) -> None:
        self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        self._raise_fault()

    def advance(self, token: int) -> bool:
        taken = self._matcher.try_consume_tokens([token])
        self._raise_fault()
        return bool(taken)

    def _raise_fault(self) -> None:
        """A token that the form forbids is no fault."""
        if self._matcher.is_error():
            raise BackendError(f"the constraint failed midway: {plain(self._matcher.get_error())}")

    def forced(self) -> bytes:
        return bytes(self._matcher.compute_ff_bytes())

    def rollback(self, tokens: int) -> None:
        self._matcher.rollback(tokens)

    @property
    def is_accepting(self) -> bool:
        return bool(self._matcher.is_accepting())

    @property
    def is_stopped(self) -> bool:
        return bool(self._matcher.is_stopped())


def llguidance_tokenizer(vocabulary: Vocabulary) -> Any:
    """The vocabulary as llguidance takes it."""
    llguidance = import_llguidance()
    spelt = vocabulary.tokens_of

    class Pieces:
        """Must not hold the vocabulary, which holds what is made of this: Python would never find the circle."""

        eos_token_id = vocabulary.ends[0]
        bos_token_id = None
        # Each by a name of its own: llguidance takes tokens of the same bytes for one.
        tokens = tuple(piece or f"<|{token}|>".encode() for token, piece in enumerate(vocabulary.pieces))
        special_token_ids = tuple(token for token, piece in enumerate(vocabulary.pieces) if not piece)

        def __call__(self, text: bytes) -> list[int]:
            return spelt(text)

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Pieces()), eos_token=list(vocabulary.ends))

"""The mask engines behind one small protocol: llguidance, xgrammar and outlines-core."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from osport.constrained.dialects import HEADER, import_llguidance, lark_of_schema, taken, to_llguidance
from osport.constrained.support import refuse_unless_enforced
from osport.constrained.vocabulary import BYTES, Vocabulary
from osport.core.types import Constraint
from osport.errors import BackendError, MissingDependency, UnsupportedFeature, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ENGINES", "Compiled", "Matcher", "engine_named"]


class Matcher(Protocol):
    """What may come next in one answer, kept over the tokens that came so far."""

    def fill(self, bits: NDArray[np.int32]) -> None:
        """Set the bit of each allowed token, and no other. ``bits``: one row, 32 tokens a number."""

    def advance(self, token: int) -> bool:
        """Take a token; False when the form forbids it, and the matcher is then of no more use."""

    def forced(self) -> bytes:
        """The bytes that must come next, as far as there is no choice; empty where the engine does not say."""

    def rollback(self, tokens: int) -> None:
        """Undo the last tokens."""

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


class LlguidanceEngine:
    """llguidance: refuses by itself what it does not enforce, and bounds its own time and memory."""

    name = "llguidance"

    def compile(self, constraint: Constraint, vocabulary: Vocabulary) -> Compiled:
        """Raises :class:`~osport.errors.UnsupportedFeature` with keyword and path."""
        if constraint.kind == "json_schema":
            form = taken(json.dumps(constraint.value))
            if vocabulary is BYTES:
                return _LlguidanceCompiled(form.matcher)
            text = lark_of_schema(form.schema)
        else:
            text = to_llguidance(constraint)
        # Forced tokens would be spelt by a tokenizer that a bare vocabulary does not have.
        free = text.replace(HEADER, '%llguidance {"no_forcing": true}\n', 1)
        matcher = import_llguidance().LLMatcher(llguidance_tokenizer(vocabulary), free, log_level=0)
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
        if self._matcher.is_error():
            raise BackendError(f"the constraint failed midway: {self._matcher.get_error()}")

    def advance(self, token: int) -> bool:
        return bool(self._matcher.consume_token(token))

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


class XgrammarEngine:
    """xgrammar: fast masks on large batches; it drops keywords without a word, so osport's table stands before it."""

    name = "xgrammar"

    def compile(self, constraint: Constraint, vocabulary: Vocabulary) -> Compiled:
        """Raises :class:`~osport.errors.UnsupportedFeature` with keyword and path."""
        xgrammar = _imported("xgrammar", "xgrammar")
        compiler = xgrammar_compiler(vocabulary)
        try:
            if constraint.kind == "json_schema":
                refuse_unless_enforced(constraint.value, self.name)
                compiled = compiler.compile_json_schema(
                    json.dumps(constraint.value), any_whitespace=False, separators=(",", ":"), strict_mode=False
                )
            elif constraint.kind == "choice":
                from osport.constrained.dialects import to_gbnf_choice

                compiled = compiler.compile_grammar(to_gbnf_choice(constraint.value))
            elif constraint.kind == "grammar":
                compiled = compiler.compile_grammar(constraint.value)
            else:
                raise UnsupportedFeature(
                    "a regex", self.name, reason="it ignores look-around and anchors without a word"
                )
        except RuntimeError as error:
            raise UnsupportedFeature(f"this {constraint.kind}", self.name, reason=str(error)) from error
        return _XgrammarCompiled(xgrammar, compiled)


class _XgrammarCompiled:
    def __init__(self, package: Any, compiled: Any) -> None:
        self._package = package
        self._compiled = compiled

    def start(self) -> Matcher:
        return _XgrammarMatcher(self._package.GrammarMatcher(self._compiled))


class _XgrammarMatcher:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill(self, bits: NDArray[np.int32]) -> None:
        if self._matcher.is_terminated():
            bits.fill(0)
        else:
            self._matcher.fill_next_token_bitmask(bits.reshape(1, -1))

    def advance(self, token: int) -> bool:
        return bool(self._matcher.accept_token(token))

    def forced(self) -> bytes:
        return str(self._matcher.find_jump_forward_string()).encode()

    def rollback(self, tokens: int) -> None:
        self._matcher.rollback(tokens)

    @property
    def is_accepting(self) -> bool:
        return bool(self._matcher.is_completed())

    @property
    def is_stopped(self) -> bool:
        return bool(self._matcher.is_terminated() or (self._matcher.is_completed() and self._only_the_end()))

    def _only_the_end(self) -> bool:
        import numpy as np

        size = (max(self._matcher.stop_token_ids) // 32 + 1) * 32
        bits = np.zeros(-(-size // 32) + 1, dtype=np.int32)
        try:
            self.fill(bits)
        except (RuntimeError, ValueError):
            return False
        allowed = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
        return set(allowed.tolist()) <= set(self._matcher.stop_token_ids)


# Seen in outlines-core 0.2.14: of "no(pe)?" only "no" remains.
LOST = "where an answer may end, it forgets the ways on that do not end at once"


class OutlinesEngine:
    """outlines-core: a form as one regular expression; small schemas only, behind osport's table."""

    name = "outlines"

    def compile(self, constraint: Constraint, vocabulary: Vocabulary) -> Compiled:
        """Raises :class:`~osport.errors.UnsupportedFeature` with keyword and path."""
        outlines_core = _imported("outlines_core", "outlines")
        if constraint.kind == "json_schema":
            refuse_unless_enforced(constraint.value, self.name)
            pattern = outlines_core.json_schema.build_regex_from_schema(
                json.dumps(constraint.value), whitespace_pattern=""
            )
        elif constraint.kind == "choice":
            labels = constraint.value
            if any(one != other and other.startswith(one) for one in labels for other in labels):
                raise UnsupportedFeature("a label that begins another", self.name, reason=LOST)
            pattern = "|".join(re.escape(label) for label in labels)
        else:
            raise UnsupportedFeature(f"constrained output of kind {constraint.kind}", self.name, reason=LOST)
        try:
            index = outlines_core.Index(pattern, outlines_vocabulary(vocabulary))
        except ValueError as error:
            raise UnsupportedFeature(f"this {constraint.kind}", self.name, reason=str(error)) from error
        return _OutlinesCompiled(outlines_core, index, vocabulary.ends)


class _OutlinesCompiled:
    def __init__(self, package: Any, index: Any, ends: Sequence[int]) -> None:
        self._package = package
        self._index = index
        self._ends = ends

    def start(self) -> Matcher:
        return _OutlinesMatcher(self._package.Guide(self._index), self._index, self._ends)


class _OutlinesMatcher:
    def __init__(self, guide: Any, index: Any, ends: Sequence[int]) -> None:
        self._guide = guide
        self._index = index
        self._ends = set(ends)
        self._ended = False

    def fill(self, bits: NDArray[np.int32]) -> None:
        bits.fill(0)
        if not self._ended:
            self._guide.write_mask_into(bits.ctypes.data, bits.size, bits.itemsize)

    def advance(self, token: int) -> bool:
        if self._ended:
            return False
        if token in self._ends:
            self._ended = self.is_accepting
            return self._ended
        try:
            self._guide.advance(token, return_tokens=False)
        except ValueError:
            return False
        return True

    def forced(self) -> bytes:
        return b""

    def rollback(self, tokens: int) -> None:
        if self._ended and tokens:
            self._ended = False
            tokens -= 1
        if tokens:
            self._guide.rollback_state(tokens)

    @property
    def is_accepting(self) -> bool:
        return bool(self._index.is_final_state(self._guide.get_state()))

    @property
    def is_stopped(self) -> bool:
        return self._ended or (self.is_accepting and set(self._guide.get_tokens()) <= self._ends)


ENGINES: dict[str, Any] = {engine.name: engine for engine in (LlguidanceEngine(), XgrammarEngine(), OutlinesEngine())}


def engine_named(name: str) -> Any:
    """The engine under a name. Raises :class:`~osport.errors.UsageError` with the names there are."""
    if name not in ENGINES:
        raise UsageError(f"engine={name!r}: one of {', '.join(sorted(ENGINES))}")
    return ENGINES[name]


@lru_cache(maxsize=4)
def llguidance_tokenizer(vocabulary: Vocabulary) -> Any:
    """The vocabulary as llguidance takes it; it costs seconds for a large one, so it is kept."""
    llguidance = import_llguidance()

    class Pieces:
        def __init__(self) -> None:
            self.eos_token_id = vocabulary.ends[0]
            self.bos_token_id = None
            self.tokens = vocabulary.pieces
            self.special_token_ids = [token for token, piece in enumerate(vocabulary.pieces) if not piece]

        def __call__(self, text: bytes) -> list[int]:
            return vocabulary.tokens_of(text)

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Pieces()), eos_token=list(vocabulary.ends))


@lru_cache(maxsize=4)
def xgrammar_compiler(vocabulary: Vocabulary) -> Any:
    """xgrammar's compiler for a vocabulary, with a cache of bounded size and one thread."""
    xgrammar = _imported("xgrammar", "xgrammar")
    info = xgrammar.TokenizerInfo(
        list(vocabulary.pieces),
        xgrammar.VocabType.RAW,
        vocab_size=len(vocabulary.pieces),
        stop_token_ids=list(vocabulary.ends),
    )
    return xgrammar.GrammarCompiler(info, max_threads=1, cache_limit_bytes=64_000_000)


@lru_cache(maxsize=4)
def outlines_vocabulary(vocabulary: Vocabulary) -> Any:
    """The vocabulary as outlines-core takes it; tokens that spell the same bytes share an entry."""
    outlines_core = _imported("outlines_core", "outlines")
    entries: dict[bytes, list[int]] = {}
    for token, piece in enumerate(vocabulary.pieces):
        if piece and token not in vocabulary.ends:
            entries.setdefault(piece, []).append(token)
    return outlines_core.Vocabulary(vocabulary.ends[0], entries)


def _imported(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(module.replace("_", "-"), extra) from error

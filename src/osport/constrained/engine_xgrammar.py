"""xgrammar as a mask engine: it drops keywords without a word, so osport's table stands before it."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from osport.constrained.dialects import to_gbnf_choice
from osport.constrained.protocol import Compiled, Matcher, imported, refuse_thought
from osport.constrained.support import refuse_unless_enforced
from osport.constrained.vocabulary import Vocabulary
from osport.core.thought import Thought
from osport.core.types import Constraint
from osport.errors import UnsupportedFeature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["XgrammarEngine"]

EXTRA = "xgrammar"
# Read without a word as something else: look-around, flags, word boundaries, back references, anchors inside;
# a dot takes a line break, and the classes are those of ASCII, so that their opposites take too much.
UNREAD = re.compile(r"\(\?(?!:)|(?<!\\)(?:\\\\)*(?:\\[AbBzZ1-9DWS]|[.$^])")
CACHE_BYTES = 64_000_000


class XgrammarEngine:
    """Fast masks on large batches; needs torch and transformers."""

    name = "xgrammar"
    kinds = frozenset({"json_schema", "choice", "regex", "grammar"})

    def version(self) -> str:
        """Package and version."""
        imported("xgrammar", EXTRA)
        return f"xgrammar {version('xgrammar')}"

    def compile(self, constraint: Constraint, vocabulary: Vocabulary, thought: Thought | None = None) -> Compiled:
        """Raises :class:`~osport.errors.UnsupportedFeature` with keyword and path, and for a thought."""
        refuse_thought(thought, self.name)
        xgrammar = imported("xgrammar", EXTRA)
        compiler = vocabulary.prepared(self.name, xgrammar_compiler)
        try:
            compiled = self._compiled(compiler, constraint)
        except RuntimeError as error:
            raise UnsupportedFeature(f"this {constraint.kind}", self.name, reason=str(error)) from error
        return _XgrammarCompiled(xgrammar, compiled, vocabulary)

    def _compiled(self, compiler: Any, constraint: Constraint) -> Any:
        value = constraint.value
        if constraint.kind == "json_schema":
            refuse_unless_enforced(value, self.name)
            return compiler.compile_json_schema(
                json.dumps(value), any_whitespace=False, separators=(",", ":"), strict_mode=False
            )
        if constraint.kind == "choice":
            return compiler.compile_grammar(to_gbnf_choice(value))
        if constraint.kind == "grammar":
            return compiler.compile_grammar(value)
        if constraint.kind == "regex":
            return compiler.compile_regex(plain_regex(value))
        raise UnsupportedFeature(f"constrained output of kind {constraint.kind}", self.name)


def plain_regex(pattern: str) -> str:
    """A pattern of which xgrammar reads every part, without the outermost anchors that a full match implies."""
    body = re.sub(r"^\^", "", pattern)
    body = re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1", body)
    outside_classes = re.sub(r"(\\.)|\[\^?\]?(?:\\.|[^\]\\])*\]", lambda found: found[1] or "", body)
    if found := UNREAD.search(outside_classes) or re.search(r"\\[DWS]", body):
        raise UnsupportedFeature(
            f"{found[0]} in a regex", XgrammarEngine.name, reason="it reads it as something else without a word"
        )
    return body


class _XgrammarCompiled:
    def __init__(self, package: Any, compiled: Any, vocabulary: Vocabulary) -> None:
        self._package = package
        self._compiled = compiled
        self._vocabulary = vocabulary

    def start(self) -> Matcher:
        return _XgrammarMatcher(self._package.GrammarMatcher(self._compiled), self._vocabulary)


class _XgrammarMatcher:
    def __init__(self, matcher: Any, vocabulary: Vocabulary) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def fill(self, bits: NDArray[np.int32]) -> None:
        if self._matcher.is_terminated():
            bits.fill(0)
        else:
            self._matcher.fill_next_token_bitmask(bits.reshape(1, -1))

    def advance(self, token: int) -> bool:
        return not self._matcher.is_terminated() and bool(self._matcher.accept_token(token))

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

        bits = np.zeros(self._vocabulary.words, dtype=np.int32)
        self.fill(bits)
        allowed = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
        return set(allowed.tolist()) <= set(self._vocabulary.ends)


def xgrammar_compiler(vocabulary: Vocabulary) -> Any:
    """xgrammar's compiler for a vocabulary, with a cache of bounded size and one thread."""
    xgrammar = imported("xgrammar", EXTRA)
    info = xgrammar.TokenizerInfo(
        list(vocabulary.pieces),
        xgrammar.VocabType.RAW,
        vocab_size=len(vocabulary.pieces),
        stop_token_ids=list(vocabulary.ends),
    )
    return xgrammar.GrammarCompiler(info, max_threads=1, cache_limit_bytes=CACHE_BYTES)

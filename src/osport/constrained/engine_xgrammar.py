"""xgrammar as a mask engine: it drops keywords without a word, so osport's table stands before it."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from osport.constrained.dialects import to_gbnf_choice
from osport.constrained.elsewhere import NotTaken, compiled_elsewhere, serve_compiler
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
        text = self._text(constraint)

        def load(stored: bytes) -> Any:
            return xgrammar.CompiledGrammar.deserialize_json(
                stored.decode(), vocabulary.prepared(self.name, xgrammar_tokens)
            )

        compiled = compiled_elsewhere(self, constraint.kind, text, vocabulary, load)
        return _XgrammarCompiled(xgrammar, compiled, vocabulary)

    def _text(self, constraint: Constraint) -> str:
        """A schema, a grammar or a pattern for a full match."""
        value = constraint.value
        if constraint.kind == "json_schema":
            refuse_unless_enforced(value, self.name)
            return json.dumps(value)
        if constraint.kind == "choice":
            return to_gbnf_choice(value)
        if constraint.kind == "grammar":
            return str(value)
        if constraint.kind == "regex":
            return plain_regex(value)
        raise UnsupportedFeature(f"constrained output of kind {constraint.kind}", self.name)


def compiled_bytes(how: str, text: str, vocabulary: Vocabulary) -> bytes:
    """A compiled form, in xgrammar's own JSON. Raises :class:`NotTaken`."""
    compiler = vocabulary.prepared(f"{EXTRA} compiler", xgrammar_compiler)
    try:
        if how == "json_schema":
            compiled = compiler.compile_json_schema(
                text, any_whitespace=False, separators=(",", ":"), strict_mode=False
            )
        elif how == "regex":
            compiled = compiler.compile_regex(text)
        else:
            compiled = compiler.compile_grammar(text)
    except RuntimeError as error:
        raise NotTaken(str(error)) from error
    return str(compiled.serialize_json()).encode()


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


def xgrammar_tokens(vocabulary: Vocabulary) -> Any:
    """The vocabulary as xgrammar takes it."""
    xgrammar = imported("xgrammar", EXTRA)
    return xgrammar.TokenizerInfo(
        list(vocabulary.pieces),
        xgrammar.VocabType.RAW,
        vocab_size=len(vocabulary.pieces),
        stop_token_ids=list(vocabulary.ends),
    )


def xgrammar_compiler(vocabulary: Vocabulary) -> Any:
    """xgrammar's compiler for a vocabulary, with one thread; what it compiled is kept elsewhere."""
    xgrammar = imported("xgrammar", EXTRA)
    return xgrammar.GrammarCompiler(xgrammar_tokens(vocabulary), max_threads=1, cache_enabled=False)


def main() -> None:
    """The child process that compiles."""
    serve_compiler(compiled_bytes)

"""outlines-core as a mask engine: a form as one regular expression, behind osport's table."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

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

__all__ = ["OutlinesEngine"]

# Where an answer may end, outlines-core 0.2.14 forgets the ways on that do not end at once: of "no(pe)?" only "no"
# remains. So every form ends with a byte of its own, which only the end token spells, and no form ends before it.
END = b"\x03"
END_PATTERN = r"\x03"


class OutlinesEngine:
    """Small forms, whose index it builds in advance; no torch."""

    name = "outlines"
    kinds = frozenset({"json_schema", "choice", "regex"})

    def version(self) -> str:
        """Package and version."""
        imported("outlines_core", self.name)
        return f"outlines-core {version('outlines-core')}"

    def compile(self, constraint: Constraint, vocabulary: Vocabulary, thought: Thought | None = None) -> Compiled:
        """Raises :class:`~osport.errors.UnsupportedFeature` with keyword and path, and for a thought."""
        refuse_thought(thought, self.name)
        outlines_core = imported("outlines_core", self.name)
        text = self._text(constraint)
        load = outlines_core.Index.from_binary
        index = compiled_elsewhere(self, constraint.kind, text, vocabulary, load)
        return _OutlinesCompiled(outlines_core, index, vocabulary)

    def _text(self, constraint: Constraint) -> str:
        """A schema, or a pattern for a full match."""
        value = constraint.value
        if constraint.kind == "json_schema":
            refuse_unless_enforced(value, self.name)
            return json.dumps(value)
        if constraint.kind == "choice":
            return "|".join(re.escape(label) for label in value)
        if constraint.kind == "regex":
            # In a full match the outermost anchors say nothing; elsewhere nothing could stand beyond them.
            body = re.sub(r"^(\^|\\A)", "", value)
            return re.sub(r"(?<!\\)((?:\\\\)*)(\$|\\Z)$", r"\1", body)
        raise UnsupportedFeature(f"constrained output of kind {constraint.kind}", self.name)


def compiled_bytes(how: str, text: str, vocabulary: Vocabulary) -> bytes:
    """The index of a form, in the words of outlines-core itself. Raises :class:`NotTaken`."""
    outlines_core = imported("outlines_core", OutlinesEngine.name)
    try:
        if how == "json_schema":
            text = outlines_core.json_schema.build_regex_from_schema(text, whitespace_pattern="")
        entries = vocabulary.prepared(OutlinesEngine.name, outlines_vocabulary)
        index = outlines_core.Index(f"(?:{text}){END_PATTERN}", entries)
    except (ValueError, TypeError) as error:  # TypeError: a schema that is nested too deeply for its parser
        raise NotTaken(str(error)) from error
    _, (stored,) = index.__reduce__()
    return bytes(stored)


class _OutlinesCompiled:
    def __init__(self, package: Any, index: Any, vocabulary: Vocabulary) -> None:
        self._package = package
        self._index = index
        self._vocabulary = vocabulary

    def start(self) -> Matcher:
        return _OutlinesMatcher(self._package.Guide(self._index), self._index, self._vocabulary)


class _OutlinesMatcher:
    def __init__(self, guide: Any, index: Any, vocabulary: Vocabulary) -> None:
        self._guide = guide
        self._index = index
        self._ends = vocabulary.ends
        self._ended = False

    def fill(self, bits: NDArray[np.int32]) -> None:
        bits.fill(0)
        if self._ended:
            return
        self._guide.write_mask_into(bits.ctypes.data, bits.size, bits.itemsize)
        if not self.is_accepting:
            # A pattern such as "." takes the byte of the end for one of its own.
            flags = bits.view("uint8")
            for end in self._ends:
                flags[end // 8] &= 0xFF ^ (1 << end % 8)

    def advance(self, token: int) -> bool:
        if self._ended or (token in self._ends and not self.is_accepting):
            return False
        try:
            self._guide.advance(token, return_tokens=False)
        except ValueError:
            return False
        self._ended = token in self._ends
        return True

    def forced(self) -> bytes:
        return b""

    def rollback(self, tokens: int) -> None:
        if tokens:
            self._guide.rollback_state(tokens)
            self._ended = False

    @property
    def is_accepting(self) -> bool:
        if self._ended:
            return True
        behind = self._index.get_next_state(self._guide.get_state(), self._ends[0])
        return behind is not None and bool(self._index.is_final_state(behind))

    @property
    def is_stopped(self) -> bool:
        return self._ended or (self.is_accepting and set(self._guide.get_tokens()) <= set(self._ends))


def outlines_vocabulary(vocabulary: Vocabulary) -> Any:
    """The vocabulary as outlines-core takes it; tokens that spell the same bytes share an entry."""
    outlines_core = imported("outlines_core", OutlinesEngine.name)
    entries: dict[bytes, list[int]] = {}
    for token, piece in enumerate(vocabulary.pieces):
        if piece and token not in vocabulary.ends and END not in piece:
            entries.setdefault(piece, []).append(token)
    entries[END] = list(vocabulary.ends)
    # Its own end token would end an answer behind the end; no model has this one.
    return outlines_core.Vocabulary(len(vocabulary.pieces), entries)


def main() -> None:
    """The child process that compiles."""
    serve_compiler(compiled_bytes)

"""The tokens of a model as bytes, which is all that a mask engine needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import field, frozen

from osport.errors import UsageError

__all__ = ["BYTES", "Vocabulary", "llama_vocabulary"]


def _pieces(given: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(given)


def _ends(given: Iterable[int]) -> tuple[int, ...]:
    return tuple(given)


@frozen(eq=False)
class Spelling:
    """Which token spells which bytes; ``longest``: the most bytes that one of them has."""

    table: dict[bytes, int]
    longest: int

    def tokens_of(self, data: bytes) -> list[int]:
        """Tokens that spell the bytes, the longest that fits first. Raises UsageError where none fits."""
        tokens = []
        at = 0
        while at < len(data):
            for length in range(min(self.longest, len(data) - at), 0, -1):
                token = self.table.get(data[at : at + length])
                if token is not None:
                    tokens.append(token)
                    at += length
                    break
            else:
                raise UsageError(f"no token begins with byte {data[at]:#04x} at offset {at}")
        return tokens


@frozen(eq=False)
class Vocabulary:
    """``pieces``: the bytes of each token, in the order of their ids; empty for a token that has none.

    ``ends``: the tokens that end an answer. They and the empty ones never stand inside one. ``controls``: the control
    tokens by name, for marks around a thought: those may stand before an answer.
    A vocabulary is a copy: it may outlive the model that it was read from.
    """

    pieces: tuple[bytes, ...] = field(converter=_pieces, repr=False)
    ends: tuple[int, ...] = field(converter=_ends)
    controls: Mapping[str, int] = field(factory=dict, repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.ends or not all(0 <= end < len(self.pieces) for end in self.ends):
            raise UsageError(f"ends={self.ends!r}: at least one token id, each below {len(self.pieces)}")

    @property
    def words(self) -> int:
        """How many numbers of 32 bits a mask over the vocabulary has."""
        return (len(self.pieces) + 31) // 32

    def prepared(self, engine: str, prepare: Callable[[Vocabulary], Any]) -> Any:
        """What an engine makes of the vocabulary: made once and kept here, for it costs seconds for a large one."""
        if engine not in self._prepared:
            self._prepared[engine] = prepare(self)
        return self._prepared[engine]

    def whole(self, *marks: str) -> dict[str, int]:
        """Those of the marks that are one token each, a control token or one with these bytes."""
        found = {mark: self.controls.get(mark, self._spelling.table.get(mark.encode())) for mark in marks}
        return {mark: token for mark, token in found.items() if token is not None}

    @property
    def tokens_of(self) -> Callable[[bytes], list[int]]:
        """See :meth:`Spelling.tokens_of`. What it returns keeps no vocabulary alive."""
        return self._spelling.tokens_of

    _prepared: dict[str, Any] = field(init=False, repr=False, factory=dict)
    _spelling: Spelling = field(init=False, repr=False)

    @_spelling.default
    def _index(self) -> Spelling:
        table = {piece: token for token, piece in enumerate(self.pieces) if piece and token not in self.ends}
        return Spelling(table, max(map(len, table), default=0))


BYTES = Vocabulary((*(bytes([value]) for value in range(256)), b""), (256,))
"""One token a byte, and one that ends: masks of any engine can be replayed on it without a model."""


def llama_vocabulary(model: Any) -> Vocabulary:
    """The vocabulary of a loaded ``llama_cpp.Llama``; every end-of-generation token ends an answer.

    Control tokens have no bytes here, so that no constraint lets one through.
    Raises :class:`~osport.errors.UsageError` for a vocabulary in which no token ends an answer.
    """
    import ctypes

    import llama_cpp

    vocabulary = llama_cpp.llama_model_get_vocab(model._model.model)
    buffer = ctypes.create_string_buffer(256)

    def piece(token: int, *, special: bool) -> bytes:
        nonlocal buffer
        size = llama_cpp.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, special)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            return piece(token, special=special)
        return buffer.raw[:size]

    pieces = []
    ends = []
    controls = {}
    for token in range(llama_cpp.llama_vocab_n_tokens(vocabulary)):
        is_end = llama_cpp.llama_vocab_is_eog(vocabulary, token)
        is_control = llama_cpp.llama_vocab_is_control(vocabulary, token)
        if is_end:
            ends.append(token)
        elif is_control:
            controls[piece(token, special=True).decode("utf-8", "replace")] = token
        pieces.append(b"" if is_end or is_control else piece(token, special=False))
    if not ends:
        raise UsageError("no token of the model's vocabulary ends an answer")
    return Vocabulary(pieces, ends, controls)

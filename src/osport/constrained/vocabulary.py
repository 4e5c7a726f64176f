"""The tokens of a model as bytes, which is all that a mask engine needs to know of it."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from osport.errors import UsageError

__all__ = ["BYTES", "Vocabulary"]


def _pieces(given: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(given)


def _ends(given: Iterable[int]) -> tuple[int, ...]:
    return tuple(given)


@frozen
class Vocabulary:
    """``pieces``: the bytes of each token, in the order of their ids; empty for a token that has none.

    ``ends``: the tokens that end an answer. They and the empty ones never stand inside one.
    """

    pieces: tuple[bytes, ...] = field(converter=_pieces, repr=False)
    ends: tuple[int, ...] = field(converter=_ends)

    def __attrs_post_init__(self) -> None:
        if not self.ends or not all(0 <= end < len(self.pieces) for end in self.ends):
            raise UsageError(f"ends={self.ends!r}: at least one token id, each below {len(self.pieces)}")

    def tokens_of(self, data: bytes) -> list[int]:
        """Tokens that spell the bytes, the longest that fits first. Raises UsageError where none fits."""
        table = self._table
        tokens = []
        at = 0
        while at < len(data):
            for length in range(min(self._longest, len(data) - at), 0, -1):
                token = table.get(data[at : at + length])
                if token is not None:
                    tokens.append(token)
                    at += length
                    break
            else:
                raise UsageError(f"no token begins with byte {data[at]:#04x} at offset {at}")
        return tokens

    _table: dict[bytes, int] = field(init=False, repr=False, eq=False)
    _longest: int = field(init=False, repr=False, eq=False)

    @_table.default
    def _index(self) -> dict[bytes, int]:
        return {piece: token for token, piece in enumerate(self.pieces) if piece and token not in self.ends}

    @_longest.default
    def _measure(self) -> int:
        return max((len(piece) for piece in self.pieces), default=0)


BYTES = Vocabulary((*(bytes([value]) for value in range(256)), b""), (256,))
"""One token a byte, and one that ends: masks of any engine can be replayed on it without a model."""

"""Streams: pieces that add up, one whole completion at the end, and a clock that can be believed."""

from __future__ import annotations

import pytest

from osport.core.types import Completion, Delta
from osport.errors import UnsupportedFeature
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["StreamChecks"]


class StreamChecks(Area):
    """What an answer that comes piece by piece must be."""

    def test_a_stream_adds_up_or_is_refused(self, model: Model) -> None:
        """The pieces joined are the text of the completion that ends the stream."""
        if not model.capabilities.stream:
            with pytest.raises(UnsupportedFeature):
                list(model.stream(self._request(model)))
            return
        pieces, last = self._streamed(model)
        assert "".join(piece.text for piece in pieces) == last.text

    def test_only_the_last_piece_carries_the_completion(self, model: Model) -> None:
        """What comes after it would be lost on a caller who stops there."""
        self._needs(model, "stream")
        asked = self._as_the_backend_gets_it(model, self._request(model, **self._short(model)))
        pieces = list(model.backend.stream(asked))
        assert [piece.completion is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]

    def test_a_stream_comes_piece_by_piece(self, model: Model) -> None:
        """Not everything at once at the end."""
        self._needs(model, "stream")
        pieces, last = self._streamed(model)
        if len(last.text.split()) > 4:
            assert sum(bool(piece.text) for piece in pieces) > 1

    def test_a_streamed_answer_equals_the_whole_one(self, model: Model) -> None:
        """Greedy: the same text, finish reason and count, both ways."""
        self._needs(model, "stream", "temperature")
        whole, (_, last) = self._ask(model), self._streamed(model)
        assert (last.text, last.finish_reason) == (whole.text, whole.finish_reason)

    def test_a_streamed_answer_records_what_was_sent(self, model: Model) -> None:
        """``effective`` is as full as without a stream."""
        self._needs(model, "stream")
        assert not set(model.capabilities.sampling) - set(self._streamed(model)[1].effective)

    def test_the_first_token_comes_before_the_last(self, model: Model) -> None:
        """``ttft`` lies within ``latency``."""
        self._needs(model, "stream")
        last = self._streamed(model)[1]
        if last.text:
            assert last.ttft is not None
            assert 0 <= last.ttft <= last.latency

    def _streamed(self, model: Model) -> tuple[list[Delta], Completion]:
        pieces = list(model.stream(self._request(model, **self._short(model))))
        last = pieces[-1].completion
        assert last is not None
        return pieces, last

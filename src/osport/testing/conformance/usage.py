"""Usage: tokens as the engine counts them, alike in every way of asking."""

from __future__ import annotations

import pytest

from osport.errors import UnsupportedFeature
from osport.model import Model
from osport.testing.conformance.area import MANY_TOKENS, Area

__all__ = ["UsageChecks"]


class UsageChecks(Area):
    """What the counts of an answer must be."""

    def test_counts_make_sense(self, model: Model) -> None:
        """Not negative, parts no larger than the whole, and nothing that was not asked for."""
        usage = self._ask(model).usage
        for count in (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens):
            assert count is None or (type(count) is int and count >= 0)
        assert usage.prompt_tokens is None or usage.prompt_tokens > 0
        assert (usage.cached_tokens or 0) <= (usage.prompt_tokens or 0)
        assert (usage.reasoning_tokens or 0) <= (usage.completion_tokens or 0)
        assert (usage.completion_tokens or 0) <= MANY_TOKENS

    def test_a_streamed_answer_is_counted_alike(self, model: Model) -> None:
        """A stream ends with the usage that the whole answer has."""
        self._needs(model, "stream")
        whole = self._ask(model)
        last = list(model.stream(self._request(model, **self._short(model))))[-1].completion
        assert last is not None
        assert last.usage.prompt_tokens == whole.usage.prompt_tokens
        if self._takes(model, "temperature"):
            assert last.usage.completion_tokens == whole.usage.completion_tokens

    def test_tokens_are_counted_or_that_is_refused(self, model: Model) -> None:
        """The count is the one that the engine reports."""
        if not model.capabilities.count_tokens:
            with pytest.raises(UnsupportedFeature):
                model.count_tokens(self.prompt)
            return
        assert model.count_tokens(self.prompt) == self._ask(model).usage.prompt_tokens

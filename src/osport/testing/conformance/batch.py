"""Batches and threads: every item its own answer or its own error, in order."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import pytest

from osport.core.types import Completion, Message, Request
from osport.errors import OsportError
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["BatchChecks"]

QUESTIONS = (
    "Tell me about the sea.",
    "Name a colour, and say in one sentence why a painter of the north would like it best of all.",
    "Why?",
)


class BatchChecks(Area):
    """What many requests at once must come to."""

    def test_a_batch_keeps_its_order(self, model: Model) -> None:
        """Each answer is the one to the question in its place."""
        alone = [self._ask(model, question) for question in QUESTIONS]
        answers = model.batch([self._request(model, q) for q in QUESTIONS], concurrency=2, **self._short(model))
        assert len(answers) == len(QUESTIONS)
        for one, other in zip(alone, answers, strict=True):
            assert isinstance(other, Completion)
            assert one.usage.prompt_tokens == other.usage.prompt_tokens
            if one.usage.prompt_tokens is None and self._takes(model, "temperature"):
                assert one.text == other.text

    def test_a_batch_isolates_an_item_that_fails(self, model: Model) -> None:
        """One bad item is one error; the others are answered."""
        bad = self._hopeless(model)
        if bad is None:
            pytest.skip("the backend declares everything and no prompt is too long: no item fails")
        good = self._request(model)
        first, failed, last = model.batch([good, bad, good], concurrency=2, **self._short(model))
        assert isinstance(failed, OsportError)
        assert isinstance(first, Completion)
        assert isinstance(last, Completion)

    def test_threads_may_share_a_model(self, model: Model) -> None:
        """Calls from several threads at once all answer."""
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: self._ask(model), range(3)))
        assert all(isinstance(answer, Completion) for answer in answers)

    def _hopeless(self, model: Model) -> Request | None:
        can = model.capabilities
        if self.overflow is not None:
            return self._request(model, self.overflow)
        if not can.tools:
            return self._request(model, [Message.tool("x", tool_call_id="1")])
        if not can.images:
            return self._request(model, [Message("user", "?", images=("http://127.0.0.1/none.png",))])
        missing: dict[str, Any] = {} if can.thinking else {"thinking": True}
        return self._request(model, **missing) if missing else None

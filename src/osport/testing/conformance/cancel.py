"""Cancelling: who leaves frees the engine, and who sets a limit is not kept waiting."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time

from osport.errors import TimedOut
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["CancelChecks"]

SHORT_TIMEOUT = 0.3


class CancelChecks(Area):
    """What must be true after a call was given up."""

    def test_a_stream_that_is_left_leaves_the_model_usable(self, model: Model) -> None:
        """Closing a stream half way, and the next question is answered."""
        self._needs(model, "stream")
        self._within(self.patience, lambda: self._leave_a_stream(model), "leaving a stream")
        assert isinstance(self._within(self.patience, lambda: self._ask(model).text, "the call after it"), str)

    def test_leaving_a_stream_frees_the_engine(self, model: Model) -> None:
        """The engine does not finish an answer that nobody reads: the next question need not wait for it."""
        self._needs(model, "stream", "max_tokens")
        self._ask(model)
        began = time.perf_counter()
        model.generate(self._request(model, **self._long(model)))
        to_the_end = time.perf_counter() - began
        began = time.perf_counter()
        self._ask(model)
        alone = time.perf_counter() - began
        self._leave_a_stream(model)
        began = time.perf_counter()
        self._ask(model)
        after = time.perf_counter() - began
        # Between machines and under load all three figures vary; a freed engine is far from the limit.
        limit = max(2 * alone, alone + to_the_end / 2, 0.2)
        said = f"{after:.2f} s after a stream was left, {alone:.2f} s alone, {to_the_end:.2f} s to the end"
        assert after < limit, said

    def test_a_cancelled_task_leaves_the_model_usable(self, model: Model) -> None:
        """Cancelling ``agenerate``, as ``asyncio.wait_for`` does."""

        async def cancel() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(model.agenerate(self._request(model, **self._long(model))), 0.05)

        self._within(self.patience, lambda: asyncio.run(cancel()), "cancelling a task")
        assert isinstance(self._within(self.patience, lambda: self._ask(model).text, "the call after it"), str)

    def test_a_timeout_ends_a_call(self, model: Model) -> None:
        """The answer is there within ``timeout``, or the call is a TimedOut; then the model answers again."""
        self._ask(model)
        began = time.perf_counter()
        with contextlib.suppress(TimedOut):
            self._within(
                self.patience,
                lambda: model.generate(self._request(model, timeout=SHORT_TIMEOUT, **self._long(model))),
                f"a call with timeout={SHORT_TIMEOUT}",
            )
            took = time.perf_counter() - began
            assert took < 3 * SHORT_TIMEOUT, f"answered after {took:.2f} s, the timeout was {SHORT_TIMEOUT} s"
        assert isinstance(self._within(self.patience, lambda: self._ask(model).text, "the call after it"), str)

    def _leave_a_stream(self, model: Model) -> None:
        pieces = model.stream(self._request(model, **self._long(model)))
        assert next(pieces) is not None
        assert inspect.isgenerator(pieces)
        pieces.close()

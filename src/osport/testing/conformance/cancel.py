"""Cancelling: who leaves frees the engine, and who sets a limit is not kept waiting."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Callable

from osport.errors import TimedOut
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["CancelChecks"]

SHORT_TIMEOUT = 0.3
SOON = 0.05


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

        def leave_and_ask() -> float:
            self._leave_a_stream(model)
            left = time.perf_counter()
            self._ask(model)
            return time.perf_counter() - left

        self._frees_the_engine(model, leave_and_ask, "a stream was left")

    def test_a_cancelled_task_leaves_the_model_usable(self, model: Model) -> None:
        """Cancelling ``agenerate``, as ``asyncio.wait_for`` does."""

        async def cancel() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(model.agenerate(self._request(model, **self._long(model))), SOON)

        self._within(self.patience, lambda: asyncio.run(cancel()), "cancelling a task")
        assert isinstance(self._within(self.patience, lambda: self._ask(model).text, "the call after it"), str)

    def test_cancelling_a_task_frees_the_engine(self, model: Model) -> None:
        """Nor does it finish an answer whose task was cancelled."""
        self._needs(model, "max_tokens")

        async def cancel_and_ask() -> float:
            began = time.perf_counter()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(model.agenerate(self._request(model, **self._long(model))), SOON)
            await model.agenerate(self._request(model, **self._short(model)))
            # From when the task was cancelled, not from when it had ended: that may be what takes long.
            return time.perf_counter() - began - SOON

        self._frees_the_engine(model, lambda: asyncio.run(cancel_and_ask()), "a task was cancelled")

    def test_a_timeout_ends_a_call(self, model: Model) -> None:
        """The answer, or the TimedOut, is there when ``timeout`` is over; then the model answers again."""
        self._ask(model)
        what = f"a call with timeout={SHORT_TIMEOUT}"
        began = time.perf_counter()
        with contextlib.suppress(TimedOut):
            request = self._request(model, timeout=SHORT_TIMEOUT, **self._long(model))
            self._within(self.patience, lambda: model.generate(request), what)
        took = time.perf_counter() - began
        assert took < 3 * SHORT_TIMEOUT, f"{what} ended after {took:.2f} s"
        assert isinstance(self._within(self.patience, lambda: self._ask(model).text, "the call after it"), str)

    def _frees_the_engine(self, model: Model, leave_and_ask: Callable[[], float], what: str) -> None:
        """``leave_and_ask`` gives the seconds from leaving a long answer to the end of a short one."""
        self._ask(model)
        began = time.perf_counter()
        model.generate(self._request(model, **self._long(model)))
        to_the_end = time.perf_counter() - began
        began = time.perf_counter()
        self._ask(model)
        alone = time.perf_counter() - began
        after = self._within(self.patience, leave_and_ask, f"the call after {what}")
        # Between machines and under load all three figures vary; a freed engine is far from the limit.
        limit = max(2 * alone, alone + to_the_end / 2, 0.2)
        assert after < limit, f"{after:.2f} s after {what}, {alone:.2f} s alone, {to_the_end:.2f} s to the end"

    def _leave_a_stream(self, model: Model) -> None:
        pieces = model.stream(self._request(model, **self._long(model)))
        assert next(pieces) is not None
        assert inspect.isgenerator(pieces)
        pieces.close()

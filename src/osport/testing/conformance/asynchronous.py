"""asyncio: the same answers, and a loop that goes on turning."""

from __future__ import annotations

import asyncio
import contextlib
import time

from osport.core.types import Completion
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["AsyncChecks"]

WORTH_MEASURING = 0.2
"""Seconds that a call must take before it can be said to have held the loop up."""


class AsyncChecks(Area):
    """What ``agenerate`` and ``astream`` must be."""

    def test_agenerate_answers_as_generate_does(self, model: Model) -> None:
        """The same text when greedy."""
        answer = asyncio.run(model.agenerate(self._request(model, **self._short(model))))
        assert isinstance(answer, Completion)
        if self._takes(model, "temperature"):
            assert answer.text == self._ask(model).text

    def test_astream_answers_as_stream_does(self, model: Model) -> None:
        """The pieces add up, and are the same text when greedy."""
        self._needs(model, "stream")

        async def streamed() -> tuple[str, Completion | None]:
            pieces = [piece async for piece in model.astream(self._request(model, **self._short(model)))]
            return "".join(piece.text for piece in pieces), pieces[-1].completion

        text, last = asyncio.run(streamed())
        assert last is not None
        assert last.text == text
        if self._takes(model, "temperature"):
            assert text == self._ask(model).text

    def test_the_loop_is_not_held_up(self, model: Model) -> None:
        """Other tasks run while the engine works."""

        async def longest_standstill() -> tuple[float, float]:
            longest, ended = 0.0, False

            async def tick() -> None:
                nonlocal longest
                last = time.perf_counter()
                while not ended:
                    await asyncio.sleep(0.005)
                    now = time.perf_counter()
                    longest, last = max(longest, now - last), now

            ticking = asyncio.create_task(tick())
            await asyncio.sleep(0)
            began = time.perf_counter()
            await model.agenerate(self._request(model, **self._long(model)))
            took, ended = time.perf_counter() - began, True
            await ticking
            return longest, took

        longest, took = asyncio.run(longest_standstill())
        if took > WORTH_MEASURING:
            assert longest < took / 2, f"the event loop stood still for {longest:.2f} s of {took:.2f} s"

    def test_an_async_stream_that_is_left_leaves_the_model_usable(self, model: Model) -> None:
        """Half way out of ``astream``, as after a disconnect."""
        self._needs(model, "stream")

        async def leave() -> None:
            pieces = model.astream(self._request(model, **self._long(model)))
            async with contextlib.aclosing(pieces):  # type: ignore[type-var]
                await anext(pieces)

        self._within(self.patience, lambda: asyncio.run(leave()), "an async stream that was left")
        assert isinstance(self._within(self.patience, lambda: self._ask(model).text, "the call after it"), str)

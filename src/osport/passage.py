"""From a request down through the stages to one backend, and from its answer back up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import Executor

from attrs import evolve, frozen

from osport.calling import Call, errors_named, observed
from osport.core import stage as stages_of
from osport.core.capabilities import Capabilities, negotiate
from osport.core.deadline import Deadline
from osport.core.retries import Retries
from osport.core.stage import Stage
from osport.core.types import Completion, ContinuationScore, Delta, Request
from osport.errors import BackendError, ContractViolation, OsportError, OutputError, UnsupportedFeature
from osport.plugin.backend import Backend
from osport.plugin.hookspecs import ModelRef

__all__ = ["Passage"]


@frozen
class Passage:
    """What every call of a model goes through: stages, negotiation, retries, checks, observers."""

    ref: ModelRef
    backend: Backend
    capabilities: Capabilities
    stages: tuple[Stage, ...]
    retries: Retries

    def answer(self, asked: Request, *, failed: OutputError | None = None, took: float = 0.0) -> Completion:
        """The answer that passes all stages, asked for again where one of them knows how; ``failed`` did not, and has
        taken so many seconds."""
        attempt, deadline = 0, _deadline(asked, took)
        while True:
            attempt += 1
            try:
                if failed is None:
                    return self._answer(self._prepared(asked))
                raise failed
            except OutputError as error:
                failed = None
                asked = self._instead(asked, error, attempt, deadline)

    async def aanswer(self, asked: Request) -> Completion:
        """:meth:`answer` for asyncio."""
        attempt, deadline = 0, _deadline(asked)
        while True:
            attempt += 1
            try:
                return await self._aanswer(asked)
            except OutputError as error:
                asked = self._instead(asked, error, attempt, deadline)

    def stream(self, asked: Request) -> Generator[Delta]:
        """The answer piece by piece; the last delta carries the checked completion."""
        requests = self._prepared(asked, stream=True)
        with self._calling(requests) as call:
            while call.completion is None:
                try:
                    with self._errors():
                        pieces = self.backend.stream(call.request)
                        try:
                            for piece in pieces:
                                yield self._finished_delta(piece, call, requests)
                        finally:
                            close = getattr(pieces, "close", None)
                            if close is not None:
                                close()
                    call.ended()
                except BackendError as error:
                    time.sleep(call.pause(error))

    async def astream(self, asked: Request) -> AsyncGenerator[Delta]:
        """:meth:`stream` for asyncio."""
        requests = self._prepared(asked, stream=True)
        with self._calling(requests) as call:
            while call.completion is None:
                try:
                    with self._errors():
                        pieces = self.backend.astream(call.request)
                        try:
                            async for piece in pieces:
                                yield self._finished_delta(piece, call, requests)
                        finally:
                            close = getattr(pieces, "aclose", None)
                            if close is not None:
                                await close()
                    call.ended()
                except BackendError as error:
                    await asyncio.sleep(call.pause(error))

    def score(self, asked: Request, continuations: Sequence[str]) -> tuple[ContinuationScore, ...]:
        """What the backend says of the continuations."""
        requests = self._prepared(asked)
        self._refuse_what_has_no_say(requests[-1])
        with self._calling(requests) as call:
            while True:
                try:
                    with self._errors():
                        return self.backend.score(call.request, continuations)
                except BackendError as error:
                    time.sleep(call.pause(error))

    def batch(self, asked: Sequence[Request | OsportError], pool: Executor) -> list[Completion | OsportError]:
        """One completion or one error for each, from the engine's own batch; what was no request stays its error.

        An item that failed there for a reason that may pass is tried again alone, in the pool, as one whose answer
        does not pass the stages is asked again.
        """
        results: dict[int, Completion | OsportError] = {}
        prepared: dict[int, tuple[Request, ...]] = {}
        for place, request in enumerate(asked):
            try:
                if isinstance(request, OsportError):
                    raise request
                prepared[place] = self._prepared(request)
            except OsportError as error:
                results[place] = error
        answers, took = self._at_once([requests[-1] for requests in prepared.values()])
        ended = pool.map(self._of_batch, prepared.values(), answers, itertools.repeat(took))
        results |= zip(prepared, ended, strict=True)
        return [results[place] for place in range(len(asked))]

    def _at_once(self, requests: list[Request]) -> tuple[Sequence[object], float]:
        """What the engine's batch gave for each, and the seconds that it took; where it failed, each has its error."""
        began = time.perf_counter()
        answers: Sequence[object]
        try:
            with self._errors():
                answers = self.backend.batch(requests) if requests else []
            if not isinstance(answers, list | tuple) or len(answers) != len(requests):
                got = f"{len(answers)} answers" if isinstance(answers, list | tuple) else repr(answers)
                raise ContractViolation(
                    f"backend {self.ref.backend!r} gave {got} for a batch of {len(requests)} requests"
                )
        except OsportError as error:
            answers = [error] * len(requests)
        return answers, time.perf_counter() - began

    def _of_batch(self, requests: tuple[Request, ...], answer: object, took: float) -> Completion | OsportError:
        """What becomes of one item that the engine's batch, which took so many seconds, has answered like this."""

        def first(_: Request) -> object:
            if isinstance(answer, OsportError):
                raise answer
            return answer

        took = getattr(answer, "latency", 0.0) or took
        try:
            try:
                return self._answer(requests, first, took=took)
            except OutputError as error:
                return self.answer(requests[0], failed=error, took=took)
        except OsportError as error:
            return error

    def _answer(
        self, requests: tuple[Request, ...], first: Callable[[Request], object] | None = None, *, took: float = 0.0
    ) -> Completion:
        """The answer to a prepared request; ``first`` makes the first attempt, and has taken so many seconds."""
        ask = first or self.backend.generate
        with self._calling(requests, took=took) as call:
            while True:
                try:
                    with self._errors():
                        answer = ask(call.request)
                    break
                except BackendError as error:
                    time.sleep(call.pause(error))
                    ask = self.backend.generate
            return self._finished(answer, call, requests)

    async def _aanswer(self, asked: Request) -> Completion:
        requests = self._prepared(asked)
        with self._calling(requests) as call:
            while True:
                try:
                    with self._errors():
                        answer = await self.backend.agenerate(call.request)
                    break
                except BackendError as error:
                    await asyncio.sleep(call.pause(error))
            return self._finished(answer, call, requests)

    def _prepared(self, request: Request, *, stream: bool = False) -> tuple[Request, ...]:
        """The request as each stage got it, and as the backend gets it."""
        with self._errors():
            *steps, last = stages_of.prepare(self.stages, request, self.capabilities)
            return *steps, negotiate(last, self.capabilities, backend=self.ref.backend, stream=stream)

    def _refuse_what_has_no_say(self, request: Request) -> None:
        """A score is of given texts behind the prompt: nothing is offered, formed or chosen."""
        for name in ("tools", "constraint", "logprobs"):
            if getattr(request, name) not in (None, ()):
                with self._errors():
                    raise UnsupportedFeature(f"{name} of a score", self.ref.backend, reason="a score has none")

    def _instead(self, asked: Request, error: OutputError, attempt: int, deadline: Deadline | None) -> Request:
        """What to ask instead; raises the error when no stage knows, or no time is left."""
        request = stages_of.again(self.stages, asked, error, attempt)
        if request is None or (deadline is not None and not deadline.left):
            raise error
        return request if deadline is None else evolve(request, timeout=deadline.timeout)

    def _finished(self, answer: object, call: Call, requests: tuple[Request, ...]) -> Completion:
        # Observers hear of an answer that the stages refuse, too.
        call.completion = call.checked(answer)
        call.completion = stages_of.finish(self.stages, call.completion, requests)
        return call.completion

    def _finished_delta(self, piece: object, call: Call, requests: tuple[Request, ...]) -> Delta:
        delta = call.streamed(piece)
        if delta.completion is None:
            return delta
        return evolve(delta, completion=self._finished(delta.completion, call, requests))

    def _calling(self, requests: tuple[Request, ...], *, took: float = 0.0) -> contextlib.AbstractContextManager[Call]:
        return observed(self.ref, requests[-1], self.retries, took=took)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return errors_named(self.ref)


def _deadline(asked: Request, took: float = 0.0) -> Deadline | None:
    return None if asked.timeout is None else Deadline.after(max(0.0, asked.timeout - took))

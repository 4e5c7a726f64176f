"""``Model``: a reference becomes a backend, passes the gates, and answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from attrs import evolve

from osport.calling import Call, errors_named, observed
from osport.core import stage as stages_of
from osport.core.capabilities import Capabilities, negotiate
from osport.core.facts import ModelFacts
from osport.core.prompt import CallOptions, Prompt, to_request
from osport.core.retries import Retries
from osport.core.stage import Stage
from osport.core.types import Completion, Delta, Message, Request
from osport.errors import BackendError, ContractViolation, OsportError, OutputError, UsageError
from osport.plugin.backend import Backend
from osport.plugin.hookspecs import ModelRef
from osport.plugin.registry import parse_reference, registry

__all__ = ["Model"]


class Model:
    """One model on one engine.

    ``model``: a reference ``backend:model`` (``llama_server:smollm2-135m``), the path of a ``.gguf``
    file or the URL of a llama.cpp server (both mean ``llama_server``), or a ``Backend`` instance.
    ``template``: a :class:`~osport.ChatTemplate` that renders every conversation; without one the
    engine applies the template that the model ships. ``stages``: gates and rewriters, asked in order.
    ``retries``: how often a call is tried again that failed for a reason that may pass; never once the first
    piece of a stream is out, never past the call's timeout. Other keywords are the backend's options.

    The gates of all stages run here, before anything is loaded; the engine is loaded at the first call.
    ``close`` (or leaving the ``with`` block) releases it.

    Raises :class:`~osport.errors.BackendNotFound`, :class:`~osport.errors.MissingDependency`,
    :class:`~osport.errors.PolicyError`, and what the backend finds wrong with the model.

    >>> from osport import Model
    >>> with Model("echo:") as model:
    ...     model.generate("Hello").text
    'Hello'
    """

    def __init__(
        self,
        model: str | Path | Backend,
        *,
        template: Stage | None = None,
        stages: Iterable[Stage] = (),
        retries: Retries = Retries(most=2, first_wait=0.5),  # noqa: B008 - frozen
        **options: object,
    ) -> None:
        if isinstance(model, Backend):
            if options:
                raise UsageError(f"a backend instance is configured already; unexpected: {', '.join(sorted(options))}")
            self.ref = ModelRef(registry().name_of(model), getattr(model, "model", ""))
            self.backend = model
        else:
            self.ref = parse_reference(str(model))
            self.backend = registry().spec(self.ref.backend).factory(self.ref.model, **options)
            if not isinstance(self.backend, Backend):
                raise ContractViolation(f"the factory of {self.ref.backend!r} made {self.backend!r}, not a Backend")
        self._stages = tuple(stages)
        self._template = template
        self._retries = retries
        self._closed = False
        self._facts: ModelFacts | None = None
        self._capabilities: Capabilities | None = None
        gates = self._pipeline(None)
        if gates:
            try:
                stages_of.gate(gates, self.facts)
            except BaseException:
                self.close()
                raise

    def generate(self, prompt: Prompt, *, output: Stage | None = None, **options: Unpack[CallOptions]) -> Completion:
        """Answer one prompt.

        ``output``: a :class:`~osport.ConstrainedOutput`; its value is ``Completion.parsed``. ``options``: the
        fields of :class:`~osport.Sampling`, ``timeout`` (seconds, retries included), ``tools``,
        ``tool_choice``, ``parallel_tools``, ``thinking`` and ``logprobs`` as :class:`~osport.Request` has them.

        Raises :class:`~osport.errors.UnsupportedFeature` for anything that this backend would drop,
        :class:`~osport.errors.BackendError` when the engine fails, :class:`~osport.errors.OutputError`
        when the answer does not have the form asked for.
        """
        return self._until_it_passes(self._asked(prompt, options), self._pipeline(output))

    def stream(self, prompt: Prompt, *, output: Stage | None = None, **options: Unpack[CallOptions]) -> Iterator[Delta]:
        """Answer piece by piece; the last delta carries the checked completion.

        Takes and raises what :meth:`generate` does; a broken form is raised at the end.
        Closing the iterator stops the engine.
        """
        stages = self._pipeline(output)
        requests = self._prepared(self._asked(prompt, options), stages, stream=True)
        with self._calling(requests) as call:
            while call.completion is None:
                try:
                    with self._errors():
                        pieces = self.backend.stream(call.request)
                        try:
                            for piece in pieces:
                                yield self._finished_delta(piece, call, stages, requests)
                        finally:
                            close = getattr(pieces, "close", None)
                            if close is not None:
                                close()
                    call.ended()
                except BackendError as error:
                    time.sleep(call.pause(error))

    async def agenerate(
        self, prompt: Prompt, *, output: Stage | None = None, **options: Unpack[CallOptions]
    ) -> Completion:
        """:meth:`generate` for asyncio."""
        asked, stages = self._asked(prompt, options), self._pipeline(output)
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._agenerate(asked, stages)
            except OutputError as error:
                asked = _asked_again(stages, asked, error, attempt)

    async def astream(
        self, prompt: Prompt, *, output: Stage | None = None, **options: Unpack[CallOptions]
    ) -> AsyncIterator[Delta]:
        """:meth:`stream` for asyncio."""
        stages = self._pipeline(output)
        requests = self._prepared(self._asked(prompt, options), stages, stream=True)
        with self._calling(requests) as call:
            while call.completion is None:
                try:
                    with self._errors():
                        pieces = self.backend.astream(call.request)
                        try:
                            async for piece in pieces:
                                yield self._finished_delta(piece, call, stages, requests)
                        finally:
                            close = getattr(pieces, "aclose", None)
                            if close is not None:
                                await close()
                    call.ended()
                except BackendError as error:
                    await asyncio.sleep(call.pause(error))

    def batch(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 4,
        output: Stage | None = None,
        **options: Unpack[CallOptions],
    ) -> list[Completion | OsportError]:
        """Answer many prompts, ``concurrency`` at a time, or in the engine's own batch where it has one.

        Returns one completion or one error for each prompt, in order; an item that fails does not
        stop the others. Ctrl-C ends the batch at once.
        """
        if concurrency < 1:
            raise UsageError(f"concurrency={concurrency!r}: at least 1")

        def one(prompt: Prompt) -> Completion | OsportError:
            try:
                return self.generate(prompt, output=output, **options)
            except OsportError as error:
                return error

        if self.capabilities.batch:
            return self._engine_batch(list(prompts), self._pipeline(output), options)
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="osport-batch")
        try:
            return list(pool.map(one, prompts))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def count_tokens(self, prompt: str | Message | Sequence[Message]) -> int:
        """Prompt tokens after the chat template. Raises UnsupportedFeature where the engine cannot say."""
        request = to_request(prompt)
        with self._errors():
            return self.backend.count_tokens(request.messages)

    @property
    def facts(self) -> ModelFacts:
        """What is known about the model, every value with its source; loads nothing."""
        if self._facts is None:
            with self._errors():
                self._facts = registry().model_facts(self.ref, self.backend.facts())
        return self._facts

    @property
    def capabilities(self) -> Capabilities:
        """What this backend does exactly with this model."""
        if self._capabilities is None:
            with self._errors():
                self._capabilities = self.backend.capabilities()
        return self._capabilities

    def load(self) -> None:
        """Load the engine now instead of at the first call, so that no answer waits for it."""
        if self._closed:
            raise UsageError(f"{self!r} was to be loaded after close()")
        with self._errors():
            self.backend.load()

    def close(self) -> None:
        """Release the engine. Closing twice is harmless; a call afterwards is a UsageError."""
        self._closed = True
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Model({str(self.ref)!r}{', closed' if self._closed else ''})"

    def _pipeline(self, output: Stage | None) -> tuple[Stage, ...]:
        # The template comes last: it turns the messages that the others see into a raw prompt.
        return tuple(stage for stage in (*self._stages, output, self._template) if stage is not None)

    def _asked(self, prompt: Prompt, options: CallOptions) -> Request:
        if self._closed:
            raise UsageError(f"{self!r} was called after close()")
        return to_request(prompt, options)

    def _prepared(self, request: Request, stages: tuple[Stage, ...], *, stream: bool = False) -> tuple[Request, ...]:
        """The request as each stage got it, and as the backend gets it."""
        with self._errors():
            *steps, last = stages_of.prepare(stages, request, self.capabilities)
            return *steps, negotiate(last, self.capabilities, backend=self.ref.backend, stream=stream)

    def _until_it_passes(
        self, asked: Request, stages: tuple[Stage, ...], *, failed: OutputError | None = None
    ) -> Completion:
        attempt = 0
        while True:
            attempt += 1
            try:
                if failed is None:
                    return self._generate(asked, stages)
                raise failed
            except OutputError as error:
                failed = None
                asked = _asked_again(stages, asked, error, attempt)

    def _generate(self, asked: Request, stages: tuple[Stage, ...]) -> Completion:
        requests = self._prepared(asked, stages)
        with self._calling(requests) as call:
            while True:
                try:
                    with self._errors():
                        answer = self.backend.generate(call.request)
                    break
                except BackendError as error:
                    time.sleep(call.pause(error))
            call.completion = call.checked(answer)
            call.completion = stages_of.finish(stages, call.completion, requests)
            return call.completion

    async def _agenerate(self, asked: Request, stages: tuple[Stage, ...]) -> Completion:
        requests = self._prepared(asked, stages)
        with self._calling(requests) as call:
            while True:
                try:
                    with self._errors():
                        answer = await self.backend.agenerate(call.request)
                    break
                except BackendError as error:
                    await asyncio.sleep(call.pause(error))
            call.completion = call.checked(answer)
            call.completion = stages_of.finish(stages, call.completion, requests)
            return call.completion

    def _engine_batch(
        self, prompts: list[Prompt], stages: tuple[Stage, ...], options: CallOptions
    ) -> list[Completion | OsportError]:
        results: dict[int, Completion | OsportError] = {}
        prepared: dict[int, tuple[Request, ...]] = {}
        asked: dict[int, Request] = {}
        for place, prompt in enumerate(prompts):
            try:
                asked[place] = self._asked(prompt, options)
                prepared[place] = self._prepared(asked[place], stages)
            except OsportError as error:
                results[place] = error
        with self._errors():
            answers = self.backend.batch([requests[-1] for requests in prepared.values()]) if prepared else []
        if len(answers) != len(prepared):
            raise ContractViolation(
                f"backend {self.ref.backend!r} answered {len(answers)} of a batch of {len(prepared)} requests"
            )
        for (place, requests), answer in zip(prepared.items(), answers, strict=True):
            try:
                with self._calling(requests) as call:
                    if isinstance(answer, OsportError):
                        with self._errors():
                            raise answer
                    call.completion = call.checked(answer)
                    call.completion = results[place] = stages_of.finish(stages, call.completion, requests)
            except OutputError as error:
                try:
                    results[place] = self._until_it_passes(asked[place], stages, failed=error)
                except OsportError as last:
                    results[place] = last
            except OsportError as error:
                results[place] = error
        return [results[place] for place in range(len(prompts))]

    def _finished_delta(
        self, piece: object, call: Call, stages: tuple[Stage, ...], requests: tuple[Request, ...]
    ) -> Delta:
        delta = call.streamed(piece)
        if delta.completion is None:
            return delta
        call.completion = delta.completion
        call.completion = stages_of.finish(stages, delta.completion, requests)
        return evolve(delta, completion=call.completion)

    def _calling(self, requests: tuple[Request, ...]) -> contextlib.AbstractContextManager[Call]:
        return observed(self.ref, requests[-1], self._retries)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return errors_named(self.ref)


def _asked_again(stages: tuple[Stage, ...], asked: Request, error: OutputError, attempt: int) -> Request:
    """What to ask instead; raises the error when no stage knows."""
    request = stages_of.again(stages, asked, error, attempt)
    if request is None:
        raise error
    return request

"""``Model``: a reference becomes a backend, passes the gates, and answers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import evolve

from osport.core import stage as stages_of
from osport.core.capabilities import Capabilities, negotiate
from osport.core.facts import ModelFacts
from osport.core.prompt import Prompt, to_request
from osport.core.stage import Stage
from osport.core.types import Completion, Delta, Message, Request
from osport.errors import BackendError, ContractViolation, OsportError, PluginError, UnsupportedFeature, UsageError
from osport.plugin.backend import Backend
from osport.plugin.hookspecs import CallRecord, ModelRef
from osport.plugin.registry import parse_reference, registry

__all__ = ["Model"]


class Model:
    """One model on one engine.

    ``model``: a reference ``backend:model`` (``llama_server:smollm2-135m``), the path of a ``.gguf``
    file or the URL of a llama.cpp server (both mean ``llama_server``), or a ``Backend`` instance.
    ``template``: a :class:`~osport.ChatTemplate` that renders every conversation; without one the
    engine applies the template that the model ships. ``stages``: gates and rewriters, asked in order.
    Other keywords are the backend's options.

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
        **options: object,
    ) -> None:
        if isinstance(model, Backend):
            if options:
                raise UsageError(f"a backend instance is configured already; unexpected: {', '.join(sorted(options))}")
            self.ref = ModelRef(_name_of(model), getattr(model, "model", ""))
            self.backend = model
        else:
            self.ref = parse_reference(str(model))
            self.backend = registry().spec(self.ref.backend).factory(self.ref.model, **options)
            if not isinstance(self.backend, Backend):
                raise ContractViolation(f"the factory of {self.ref.backend!r} made {self.backend!r}, not a Backend")
        self._stages = tuple(stages)
        self._template = template
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

    def generate(
        self,
        prompt: Prompt,
        *,
        output: Stage | None = None,
        timeout: float | None = None,
        **sampling: Any,
    ) -> Completion:
        """Answer one prompt.

        ``output``: a :class:`~osport.ConstrainedOutput`; its value is ``Completion.parsed``.
        ``timeout`` in seconds. ``sampling``: the fields of :class:`~osport.Sampling`.

        Raises :class:`~osport.errors.UnsupportedFeature` for anything that this backend would drop,
        :class:`~osport.errors.BackendError` when the engine fails, :class:`~osport.errors.OutputError`
        when the answer does not have the form asked for.
        """
        stages = self._pipeline(output)
        request = self._prepare(prompt, stages, timeout, sampling)
        with self._call(request) as call:
            with self._errors():
                answer = self.backend.generate(request)
            call.completion = self._check(answer, call)
            call.completion = stages_of.finish(stages, call.completion)
        return call.completion

    def stream(
        self,
        prompt: Prompt,
        *,
        output: Stage | None = None,
        timeout: float | None = None,
        **sampling: Any,
    ) -> Iterator[Delta]:
        """Answer piece by piece; the last delta carries the checked completion.

        Takes and raises what :meth:`generate` does; a broken form is raised at the end.
        Closing the iterator stops the engine.
        """
        stages = self._pipeline(output)
        request = self._prepare(prompt, stages, timeout, sampling, stream=True)
        with self._call(request) as call:
            with self._errors():
                pieces = self.backend.stream(request)
                try:
                    for piece in pieces:
                        yield from self._deltas(piece, call, stages)
                finally:
                    close = getattr(pieces, "close", None)
                    if close is not None:
                        close()
            self._ended(call)

    async def agenerate(
        self,
        prompt: Prompt,
        *,
        output: Stage | None = None,
        timeout: float | None = None,
        **sampling: Any,
    ) -> Completion:
        """:meth:`generate` for asyncio."""
        stages = self._pipeline(output)
        request = self._prepare(prompt, stages, timeout, sampling)
        with self._call(request) as call:
            with self._errors():
                answer = await self.backend.agenerate(request)
            call.completion = self._check(answer, call)
            call.completion = stages_of.finish(stages, call.completion)
        return call.completion

    async def astream(
        self,
        prompt: Prompt,
        *,
        output: Stage | None = None,
        timeout: float | None = None,
        **sampling: Any,
    ) -> AsyncIterator[Delta]:
        """:meth:`stream` for asyncio."""
        stages = self._pipeline(output)
        request = self._prepare(prompt, stages, timeout, sampling, stream=True)
        with self._call(request) as call:
            with self._errors():
                pieces = self.backend.astream(request)
                try:
                    async for piece in pieces:
                        for delta in self._deltas(piece, call, stages):
                            yield delta
                finally:
                    close = getattr(pieces, "aclose", None)
                    if close is not None:
                        await close()
            self._ended(call)

    def batch(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 4,
        output: Stage | None = None,
        timeout: float | None = None,
        **sampling: Any,
    ) -> list[Completion | OsportError]:
        """Answer many prompts, ``concurrency`` at a time.

        Returns one completion or one error for each prompt, in order; an item that fails does not
        stop the others. Ctrl-C ends the batch at once.
        """
        if concurrency < 1:
            raise UsageError(f"concurrency={concurrency!r}: at least 1")

        def one(prompt: Prompt) -> Completion | OsportError:
            try:
                return self.generate(prompt, output=output, timeout=timeout, **sampling)
            except OsportError as error:
                return error

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

    def _prepare(
        self,
        prompt: Prompt,
        stages: tuple[Stage, ...],
        timeout: float | None,
        sampling: Mapping[str, Any],
        *,
        stream: bool = False,
    ) -> Request:
        if self._closed:
            raise UsageError(f"{self!r} was called after close()")
        request = to_request(prompt, timeout, sampling)
        with self._errors():
            request = stages_of.prepare(stages, request, self.capabilities)
            return negotiate(request, self.capabilities, backend=self.ref.backend, stream=stream)

    def _check(self, completion: object, call: _Call) -> Completion:
        if not isinstance(completion, Completion):
            raise ContractViolation(f"backend {self.ref.backend!r} returned {completion!r}, not a Completion")
        return evolve(
            completion,
            backend=completion.backend or self.ref.backend,
            model=completion.model or self.ref.model,
            # A backend that replays recorded answers knows better than the clock here.
            latency=completion.latency or time.perf_counter() - call.started,
        )

    def _deltas(self, delta: object, call: _Call, stages: tuple[Stage, ...]) -> Iterator[Delta]:
        if not isinstance(delta, Delta):
            raise ContractViolation(f"backend {self.ref.backend!r} streamed {delta!r}, not a Delta")
        if delta.completion is None:
            if call.first_piece is None and delta.text:
                call.first_piece = time.perf_counter() - call.started
            yield delta
            return
        completion = self._check(delta.completion, call)
        if completion.ttft is None:
            completion = evolve(completion, ttft=call.first_piece)
        call.completion = stages_of.finish(stages, completion)
        yield evolve(delta, completion=call.completion)

    def _ended(self, call: _Call) -> None:
        if call.completion is None:
            raise ContractViolation(f"the stream of backend {self.ref.backend!r} ended without a completion")

    @contextlib.contextmanager
    def _call(self, request: Request) -> Iterator[_Call]:
        call = _Call()
        error: OsportError | None = None
        try:
            yield call
        except OsportError as raised:
            error = raised
            raise
        finally:
            plugins = registry()
            if plugins.observed and (call.completion is not None or error is not None):
                seconds = time.perf_counter() - call.started
                plugins.call_finished(CallRecord(self.ref, request, call.completion, error, seconds))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Name backend and model in what is raised, and let nothing leave that is not of the tree."""
        try:
            yield
        except UnsupportedFeature as error:
            error.backend = self.ref.backend
            error.alternatives = error.alternatives or tuple(
                registry().offering(error.feature, besides=self.ref.backend)
            )
            raise
        except BackendError as error:
            error.backend = error.backend or self.ref.backend
            error.model = error.model or self.ref.model
            raise
        except OsportError:
            raise
        except Exception as error:
            raise ContractViolation(
                f"backend {self.ref.backend!r} raised {type(error).__name__}: {error}; "
                "a backend raises errors of osport.errors only"
            ) from error


class _Call:
    """What is measured while a call runs."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.first_piece: float | None = None
        self.completion: Completion | None = None


def _name_of(backend: Backend) -> str:
    for info in registry().backends():
        with contextlib.suppress(PluginError):
            if registry().spec(info.name).factory is type(backend):
                return info.name
    return type(backend).__name__

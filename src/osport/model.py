"""``Model``: a reference becomes a backend, passes the gates, and answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from attrs import evolve

from osport.calling import errors_named
from osport.classify import Classifies
from osport.core import stage as stages_of
from osport.core.capabilities import Capabilities
from osport.core.deadline import Deadline
from osport.core.facts import ModelFacts
from osport.core.prompt import CallOptions, Prompt, to_request
from osport.core.retries import Retries
from osport.core.stage import Stage
from osport.core.types import Completion, ContinuationScore, Delta, Message, Request
from osport.errors import ContractViolation, OsportError, UnsupportedFeature, UsageError
from osport.passage import Passage
from osport.plugin.backend import Backend
from osport.plugin.hookspecs import ModelRef
from osport.plugin.registry import parse_reference, registry

__all__ = ["Model"]

AT_ONCE = 0.05
"""Seconds."""


class Model(Classifies):
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
            factory = registry().spec(self.ref.backend).factory
            with self._errors():
                self.backend = factory(self.ref.model, **options)
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
        passage, asked = self._opened(self._asked(prompt, options), output)
        return passage.answer(asked)

    def stream(self, prompt: Prompt, *, output: Stage | None = None, **options: Unpack[CallOptions]) -> Iterator[Delta]:
        """Answer piece by piece; the last delta carries the checked completion.

        Takes and raises what :meth:`generate` does; a broken form is raised at the end.
        Closing the iterator stops the engine.
        """
        passage, asked = self._opened(self._asked(prompt, options), output)
        return passage.stream(asked)

    async def agenerate(
        self, prompt: Prompt, *, output: Stage | None = None, **options: Unpack[CallOptions]
    ) -> Completion:
        """:meth:`generate` for asyncio."""
        passage, asked = await self._aopened(self._asked(prompt, options), output)
        return await passage.aanswer(asked)

    def astream(
        self, prompt: Prompt, *, output: Stage | None = None, **options: Unpack[CallOptions]
    ) -> AsyncIterator[Delta]:
        """:meth:`stream` for asyncio."""
        return self._astreamed(self._asked(prompt, options), output)

    def batch(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 4,
        output: Stage | None = None,
        **options: Unpack[CallOptions],
    ) -> list[Completion | OsportError]:
        """Answer many prompts, ``concurrency`` at a time, or in the engine's own batch where it has one.

        What failed in the engine's batch and is to be tried again is so by itself, ``concurrency`` at a time.
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

        whole = self.capabilities.batch
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="osport-batch")
        try:
            if whole:
                asked = [self._asked_or_error(prompt, options) for prompt in prompts]
                return self._passage(output).batch(asked, pool)
            return list(pool.map(one, prompts))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def score(
        self, prompt: Prompt, continuations: Sequence[str], **options: Unpack[CallOptions]
    ) -> tuple[ContinuationScore, ...]:
        """How likely the model itself finds each continuation of the prompt, all its tokens counted.

        Raises :class:`~osport.errors.UnsupportedFeature` where the engine gives no log-probabilities of given
        texts, and for ``tools``, ``logprobs`` and a form that a stage asks for: no token is chosen here.
        """
        passage, asked = self._opened(self._asked(prompt, options), None)
        with self._errors():
            if not self.capabilities.score:
                raise UnsupportedFeature("score", self.ref.backend, reason="its engine scores no given texts")
        return passage.score(asked, continuations)

    def count_tokens(self, prompt: str | Message | Sequence[Message]) -> int:
        """Prompt tokens after the chat template. Raises UnsupportedFeature where the engine cannot say."""
        request = self._asked(prompt, {})
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
        with self._errors():
            self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise UsageError(f"{self!r} holds a running engine and cannot be pickled or copied; make it where it is used")

    def __repr__(self) -> str:
        return f"Model({str(self.ref)!r}{', closed' if self._closed else ''})"

    def _pipeline(self, output: Stage | None) -> tuple[Stage, ...]:
        # The template comes last: it turns the messages that the others see into a raw prompt.
        return tuple(stage for stage in (*self._stages, output, self._template) if stage is not None)

    def _asked(self, prompt: Prompt, options: CallOptions) -> Request:
        if self._closed:
            raise UsageError(f"{self!r} was called after close()")
        return to_request(prompt, options)

    def _asked_or_error(self, prompt: Prompt, options: CallOptions) -> Request | OsportError:
        try:
            return self._asked(prompt, options)
        except OsportError as error:
            return error

    def _opened(self, asked: Request, output: Stage | None) -> tuple[Passage, Request]:
        """The way of one call, and its request with the time that is left where a server had to be asked first."""
        if self._capabilities is not None or asked.timeout is None:
            return self._passage(output), asked
        deadline = Deadline.after(asked.timeout)
        with deadline.applied():
            passage = self._passage(output)
        # Most backends know at once, and the errors of their calls are to name the timeout that was given.
        spent = deadline.seconds - deadline.left
        return passage, asked if spent < AT_ONCE else evolve(asked, timeout=deadline.timeout)

    async def _aopened(self, asked: Request, output: Stage | None) -> tuple[Passage, Request]:
        if self._capabilities is not None:
            return self._opened(asked, output)
        return await asyncio.to_thread(self._opened, asked, output)

    async def _astreamed(self, asked: Request, output: Stage | None) -> AsyncIterator[Delta]:
        passage, asked = await self._aopened(asked, output)
        async with contextlib.aclosing(passage.astream(asked)) as pieces:
            async for piece in pieces:
                yield piece

    def _passage(self, output: Stage | None) -> Passage:
        return Passage(self.ref, self.backend, self.capabilities, self._pipeline(output), self._retries)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return errors_named(self.ref)

"""llama.cpp through llama-cpp-python, in a child process of its own or in this one.

llama.cpp can end the process it runs in, beyond the reach of any ``except``: by a signal, by an assertion,
or by taking more memory than there is. In the child that is an error of one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib.util import find_spec
from typing import ClassVar

from osport.backends._gguf_model import GgufModel
from osport.backends._interruption import Interruption
from osport.backends._llama_constraints import refuse_stop_strings
from osport.backends._llama_cpp_calls import NAME, LlamaCppCalls, Settings, engine_name
from osport.backends._llama_cpp_guard import GuardedCalls
from osport.backends._options import check_number, check_seconds, check_switch, default_threads, refuse_unknown
from osport.constrained.engines import DEFAULT_ENGINE, ENGINES
from osport.core.types import ContinuationScore
from osport.errors import MissingDependency
from osport.plugin import (
    ALL_SAMPLING,
    Backend,
    Capabilities,
    Completion,
    Delta,
    Message,
    ModelFacts,
    Request,
)
from osport.plugin.backend import iterate_in_thread

__all__ = ["LlamaCppBackend"]

KINDS: frozenset[str] = frozenset({"json_schema", "choice", "regex", "grammar", "tools"})
OPTIONS = ("context", "threads", "gpu_layers", "timeout", "prompt_cache", "in_process", "startup_timeout")


class LlamaCppBackend(Backend):
    """llama.cpp through llama-cpp-python; one call at a time, the others queue.

    ``model``: the path of a ``.gguf`` file or a name of the catalogue. ``context``: tokens that prompt
    and answer may have together (default: what the model was trained with, at most 8192); ``threads``
    (llama.cpp's own rule: all cores up to four, half of them above); ``gpu_layers`` (0; -1: all);
    ``timeout`` of one call, waiting in the queue included and loading not (600 s); ``prompt_cache``: whether
    what a prompt shares with the call before is not computed again (True); ``in_process``: without the child
    process that keeps a crash of the engine from this one (False); ``startup_timeout``: until the child has
    loaded the model (120 s).

    Raises :class:`~osport.errors.UsageError` (options), :class:`~osport.errors.ModelNotFound`,
    :class:`~osport.errors.FormatError` (not GGUF, cut off), :class:`~osport.errors.MissingDependency`.
    """

    features: ClassVar[frozenset[str]] = (
        ALL_SAMPLING | KINDS | {"chat", "raw_prompt", "prefill", "stream", "count_tokens", "logprobs", "score"}
    )

    def __init__(
        self,
        model: str,
        *,
        context: int | None = None,
        threads: int | None = None,
        gpu_layers: int = 0,
        timeout: float = 600.0,
        prompt_cache: bool = True,
        in_process: bool = False,
        startup_timeout: float = 120.0,
        **unknown: object,
    ) -> None:
        super().__init__(model)
        refuse_unknown(NAME, unknown, OPTIONS)
        if find_spec("llama_cpp") is None:
            raise MissingDependency("llama-cpp-python", "llama-cpp")
        self._gguf = GgufModel.find(model, backend=NAME)
        settings = Settings(
            path=self._gguf.path,
            name=self._gguf.name,
            has_template=self._gguf.chat_template is not None,
            context=self._gguf.checked_context(context, backend=NAME),
            threads=check_number(NAME, "threads", default_threads() if threads is None else threads, at_least=1),
            gpu_layers=check_number(NAME, "gpu_layers", gpu_layers, at_least=-1),
            timeout=check_seconds(NAME, "timeout", timeout),
            prompt_cache=check_switch(NAME, "prompt_cache", prompt_cache),
        )
        patience = check_seconds(NAME, "startup_timeout", startup_timeout)
        alone = check_switch(NAME, "in_process", in_process)
        self._calls = LlamaCppCalls(settings) if alone else GuardedCalls(settings, patience)

    def load(self) -> None:
        """Read the model into memory."""
        self._calls.load()

    def capabilities(self) -> Capabilities:
        """No thinking switch, no images, and tools only as a form; forms are enforced while sampling."""
        return Capabilities(
            chat=True,
            raw_prompt=True,
            prefill=True,
            stream=True,
            count_tokens=True,
            constraints=KINDS,
            constraint_engine=DEFAULT_ENGINE,
            constraint_engines=frozenset(ENGINES),
            constrained_thinking=True,
            enforced_by="sampling",
            logprobs=True,
            score=True,
        )

    def facts(self) -> ModelFacts:
        """From the GGUF header; nothing is loaded."""
        return self._gguf.facts(engine_name())

    def generate(self, request: Request) -> Completion:
        """Answer one request."""
        return self._whole(request, Interruption())

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer piece by piece. The model is taken until the last piece is read or the iterator closed."""
        return self._pieces(request, Interruption())

    async def agenerate(self, request: Request) -> Completion:
        """Like :meth:`generate`, on a worker thread; cancelled, it frees the engine."""
        interruption = Interruption()
        try:
            return await asyncio.to_thread(self._whole, request, interruption)
        finally:
            interruption.ask()

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """Like :meth:`stream`, on a worker thread; left early, it frees the engine."""
        interruption = Interruption()
        try:
            async for piece in iterate_in_thread(lambda: self._pieces(request, interruption)):
                yield piece
        finally:
            interruption.ask()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of these messages after the chat template."""
        return self._calls.count_tokens(messages, Interruption())

    def score(self, request: Request, continuations: Sequence[str]) -> tuple[ContinuationScore, ...]:
        """The model's log-probability of each continuation behind the prompt, which is computed once.

        The prompt keeps its own tokens. ``request.logprobs`` alternatives are told for every token; the other
        parameters of the request have no influence. Raises :class:`~osport.errors.ContextOverflow` where prompt
        and continuation do not fit together.
        """
        return self._calls.score(request, continuations, Interruption())

    def close(self) -> None:
        """End the call that runs, and free the model."""
        self._calls.close()

    def _whole(self, request: Request, interruption: Interruption) -> Completion:
        refuse_stop_strings(request)
        answer = self._calls.answer(request, interruption, pieces=False)
        while True:
            try:
                next(answer)
            except StopIteration as end:
                completion: Completion = end.value
                return completion

    def _pieces(self, request: Request, interruption: Interruption) -> Iterator[Delta]:
        refuse_stop_strings(request)
        answer = self._calls.answer(request, interruption, pieces=True)
        try:
            while True:
                try:
                    yield Delta(next(answer))
                except StopIteration as end:
                    yield Delta("", end.value)
                    return
        finally:
            answer.close()

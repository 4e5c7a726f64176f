"""llama.cpp in this process, through llama-cpp-python.

Three things end the process there, beyond the reach of any ``except``: a GBNF grammar that does not
parse, a call after ``close``, and two threads on one model. Each is caught here before it happens.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Generator, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ClassVar

from osport.backends._gguf_model import GgufModel
from osport.backends._llama_constraints import checked_gbnf, compiled, refuse_stop_strings
from osport.backends._llama_cpp_engine import LAST_TOKENS, LlamaCppEngine
from osport.backends._one_at_a_time import OneAtATime
from osport.backends._options import check_number, check_seconds, check_switch, default_threads, refuse_unknown
from osport.backends._token_text import TokenText
from osport.core.types import Constraint, FinishReason, Sampling
from osport.errors import ContextOverflow, MissingDependency, TemplateError, TimedOut, UsageError
from osport.plugin import (
    ALL_SAMPLING,
    Backend,
    Capabilities,
    Completion,
    Delta,
    Enforcement,
    Message,
    ModelFacts,
    Request,
    Usage,
)

__all__ = ["LlamaCppBackend"]

NAME = "llama_cpp"
KINDS: frozenset[str] = frozenset({"json_schema", "choice", "regex", "grammar"})


class LlamaCppBackend(Backend):
    """llama.cpp in this process; one call at a time, the others queue.

    ``model``: the path of a ``.gguf`` file or a name of the catalogue. ``context``: tokens that prompt
    and answer may have together (default: what the model was trained with, at most 8192); ``threads``
    (llama.cpp's own rule: all cores up to four, half of them above); ``gpu_layers`` (0; -1: all);
    ``timeout`` of one call, waiting in the queue included (600 s; looked at between tokens);
    ``prompt_cache``: whether what a prompt shares with the call before is not computed again (True).

    Raises :class:`~osport.errors.UsageError` (options), :class:`~osport.errors.ModelNotFound`,
    :class:`~osport.errors.FormatError` (not GGUF, cut off), :class:`~osport.errors.MissingDependency`.
    """

    features: ClassVar[frozenset[str]] = (
        ALL_SAMPLING | KINDS | {"chat", "raw_prompt", "prefill", "stream", "count_tokens"}
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
        **unknown: object,
    ) -> None:
        super().__init__(model)
        refuse_unknown(NAME, unknown, ("context", "threads", "gpu_layers", "timeout", "prompt_cache"))
        if find_spec("llama_cpp") is None:
            raise MissingDependency("llama-cpp-python", "llama-cpp")
        self._gguf = GgufModel.find(model, backend=NAME)
        self._context = self._gguf.checked_context(context, backend=NAME)
        self._threads = check_number(NAME, "threads", default_threads() if threads is None else threads, at_least=1)
        self._gpu_layers = check_number(NAME, "gpu_layers", gpu_layers, at_least=-1)
        self._timeout = check_seconds(NAME, "timeout", timeout)
        self._prompt_cache = check_switch(NAME, "prompt_cache", prompt_cache)
        self._queue = OneAtATime(NAME)
        self._loaded: LlamaCppEngine | None = None
        self._template: Any = None

    def load(self) -> None:
        """Read the model into memory."""
        with self._queue.turn(self._timeout), self._queue.step():
            self._engine()

    def capabilities(self) -> Capabilities:
        """Everything but tools; forms are enforced while sampling."""
        return Capabilities(
            chat=True,
            raw_prompt=True,
            prefill=True,
            stream=True,
            count_tokens=True,
            constraints=KINDS,
            constraint_engine="llguidance",
            enforced_by="sampling",
        )

    def facts(self) -> ModelFacts:
        """From the GGUF header; nothing is loaded."""
        return self._gguf.facts(_engine_name())

    def generate(self, request: Request) -> Completion:
        """Answer one request."""
        answer = self._answer(request)
        while True:
            try:
                next(answer)
            except StopIteration as end:
                completion: Completion = end.value
                return completion

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer piece by piece. The model is taken until the last piece is read or the iterator closed."""
        answer = self._answer(request)
        while True:
            try:
                yield Delta(next(answer))
            except StopIteration as end:
                yield Delta("", end.value)
                return

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of these messages after the chat template."""
        prompt = self._rendered(messages)
        with self._queue.turn(self._timeout), self._queue.step():
            return len(self._engine().tokenize(prompt))

    def close(self) -> None:
        """Free the model, once the call into the engine that runs has returned."""
        self._queue.close(self._release)

    def _release(self) -> None:
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def _engine(self) -> LlamaCppEngine:
        """The loaded model; the caller holds a step."""
        if self._loaded is None:
            self._loaded = LlamaCppEngine(
                self._gguf.path, context=self._context, threads=self._threads, gpu_layers=self._gpu_layers
            )
        return self._loaded

    def _answer(self, request: Request) -> Generator[str, None, Completion]:
        """The pieces of the answer, then the whole of it."""
        started = time.perf_counter()
        timeout = request.timeout or self._timeout
        refuse_stop_strings(request)
        sampling = request.sampling.filled()
        prompt_text = request.prompt if request.prompt is not None else self._rendered(request.messages)
        lark, gbnf = _grammars(request.constraint)
        with self._queue.turn(timeout):
            with self._queue.step():
                engine = self._engine()
                prompt = engine.tokenize(prompt_text)
                limit = self._room(prompt, sampling)
                if not self._prompt_cache:
                    engine.forget()
                cached = engine.cached(prompt)
                masked = engine.masked(lark) if lark else None
                grammar = engine.grammar(gbnf) if gbnf else None
                tokens = iter(engine.tokens(prompt, sampling, masked=masked, grammar=grammar))
            text = TokenText(sampling.stop or ())
            pieces: list[str] = []
            produced = 0
            first: float | None = None
            finish: FinishReason = "length"
            while produced < limit:
                with self._queue.step():
                    token = next(tokens)
                    produced += 1
                    ended = engine.is_end(token)
                    piece = "" if ended else text.push(engine.piece(token))
                    if masked is not None:
                        ended = masked.advance(token, produced, ended=ended)
                if piece:
                    first = first or time.perf_counter() - started
                    pieces.append(piece)
                    yield piece
                if ended or text.stopped:
                    finish = "stop"
                    break
                if time.perf_counter() - started > timeout:
                    raise TimedOut(f"{NAME}: no complete answer within {timeout:g} s (timeout)", backend=NAME)
            if rest := text.finish():
                pieces.append(rest)
                yield rest
        return Completion(
            text="".join(pieces),
            finish_reason=finish,
            model=self._gguf.name,
            backend=NAME,
            usage=Usage(prompt_tokens=len(prompt), completion_tokens=produced, cached_tokens=cached),
            enforcement=_enforcement(request.constraint),
            effective=self._effective(sampling, limit, lark or gbnf),
            latency=time.perf_counter() - started,
            ttft=first,
        )

    def _room(self, prompt: list[int], sampling: Sampling) -> int:
        """How many tokens the answer may have."""
        if not prompt:
            raise UsageError(f"{NAME}: the prompt is empty")
        room = self._context - len(prompt)
        if room < 1:
            raise ContextOverflow(
                f"{NAME}: the prompt has {len(prompt)} tokens and the context {self._context}; at least one must be "
                "left for the answer. osport never trims a prompt: shorten it or give a larger context",
                backend=NAME,
            )
        return min(room, sampling.max_tokens or room)

    def _rendered(self, messages: Sequence[Message]) -> str:
        if self._gguf.chat_template is None:
            raise TemplateError(
                f"{self._gguf.path} holds no chat template; send a raw prompt, or give Model a ChatTemplate"
            )
        if self._template is None:
            from osport.chat_template import ChatTemplate

            self._template = ChatTemplate.from_gguf(self._gguf.path)
        text: str = self._template.render(messages, continue_final=messages[-1].role == "assistant").text
        return text

    def _effective(self, sampling: Sampling, limit: int, grammar: str) -> dict[str, Any]:
        """What was sent, in osport's words; where the context cut ``max_tokens`` short, both numbers."""
        parameters = LlamaCppEngine.parameters(sampling)
        cut = {"max_tokens_asked": sampling.max_tokens} if limit != sampling.max_tokens else {}
        return {
            "context": self._context,
            "threads": self._threads,
            "gpu_layers": self._gpu_layers,
            "max_tokens": limit,
            **cut,
            "temperature": parameters.pop("temp"),
            **parameters,
            "repeat_last_n": LAST_TOKENS,
            "seed": sampling.seed,
            "stop": list(sampling.stop or ()),
            "cache_prompt": self._prompt_cache,
            **({"grammar": grammar} if grammar else {}),
        }


def _grammars(constraint: Constraint | None) -> tuple[str, str]:
    """The constraint as a text for llguidance, or, if it is GBNF, for llama.cpp; empty where there is none."""
    if constraint is None:
        return "", ""
    if constraint.kind == "grammar":
        return "", checked_gbnf(constraint.value)
    return compiled(constraint), ""


@functools.cache
def _mask_name() -> str:
    return f"llguidance {version('llguidance')}"


def _enforcement(constraint: Constraint | None) -> Enforcement:
    if constraint is None:
        return Enforcement()
    if constraint.kind == "grammar":
        return Enforcement("sampling", f"llama.cpp-gbnf in {_engine_name()}")
    return Enforcement("sampling", _mask_name())


@functools.cache
def _engine_name() -> str:
    return f"llama-cpp-python {version('llama-cpp-python')}"

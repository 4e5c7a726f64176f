"""The calls of one llama.cpp model in this process; one at a time, the others queue."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrs import frozen

from osport.backends._interruption import Interruption
from osport.backends._llama_constraints import GBNF, checked_gbnf
from osport.backends._llama_cpp_engine import LAST_TOKENS, LlamaCppEngine, MaskedLogits
from osport.backends._one_at_a_time import OneAtATime
from osport.backends._stop_flag import Stopped
from osport.backends._thought_text import ThoughtText
from osport.backends._token_text import TokenText
from osport.constrained.engines import DEFAULT_ENGINE, engine_named
from osport.core.alarm import alarm
from osport.core.thought import Thought
from osport.core.types import (
    Completion,
    Constraint,
    ContinuationScore,
    Determinism,
    Enforcement,
    FinishReason,
    Message,
    Request,
    Sampling,
    TokenLogprob,
    Usage,
)
from osport.errors import BackendError, ContextOverflow, TemplateError, TimedOut, UsageError

__all__ = ["LlamaCppCalls", "Settings", "engine_name"]

NAME = "llama_cpp"
Step = contextlib.AbstractContextManager[LlamaCppEngine]


@frozen
class Settings:
    """What a model is loaded and called with. ``timeout``: seconds for a call that names none."""

    path: Path
    name: str
    has_template: bool
    context: int
    threads: int
    gpu_layers: int
    timeout: float
    prompt_cache: bool


class LlamaCppCalls:
    """Thread-safe. The model is loaded at the first call."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine: LlamaCppEngine | None = None
        self._queue = OneAtATime(NAME)
        self._running: Interruption | None = None
        self._template: Any = None

    def load(self) -> None:
        """Load the model now."""
        with self._queue.turn(self.settings.timeout, Interruption()), self._queue.step():
            self._loaded()

    def answer(self, request: Request, interruption: Interruption, *, pieces: bool) -> Generator[str, None, Completion]:
        """The pieces of the answer, if they are wanted, then the whole of it."""
        started = time.perf_counter()
        sampling = request.sampling.filled()
        prompt_text = self._prompt(request)
        thought = self._thought(request, prompt_text)
        gbnf = _native(request.constraint, thought)
        masked, compiling = (None, 0.0)
        if request.constraint and not gbnf:
            masked, compiling = self._masked(request.constraint, thought)
        with self._turn(request.timeout, interruption, spent=compiling) as step:
            with step() as engine:
                prompt = engine.tokenize(prompt_text)
                limit = self._room(prompt, sampling.max_tokens)
                if not self.settings.prompt_cache:
                    engine.forget()
                cached = engine.cached(prompt)
                grammar = engine.grammar(gbnf) if gbnf else None
                tokens = iter(engine.tokens(prompt, sampling, masked=masked, grammar=grammar))
            text = TokenText(sampling.stop or ())
            behind = ThoughtText(thought)
            told: list[tuple[TokenLogprob, int]] = []
            produced = 0
            first: float | None = None
            finish: FinishReason = "length"
            while produced < limit:
                with step():
                    token = next(tokens)
                    produced += 1
                    ended = engine.is_end(token)
                    # A mark around the thought may be a control token, and is told by its name.
                    read = b"" if ended else engine.piece(token, special=not behind.over)
                    if request.logprobs is not None and not ended:
                        told.append((engine.logprob(token, request.logprobs), len(read)))
                    piece = text.push(read)
                    if masked is not None:
                        ended = masked.advance(token, produced, ended=ended)
                if piece:
                    first = first or time.perf_counter() - started
                    if (shown := behind.push(piece)) and pieces:
                        yield shown
                if ended or text.stopped:
                    finish = "stop"
                    break
            if (rest := behind.push(text.finish())) and pieces:
                yield rest
        return Completion(
            text=behind.shown,
            finish_reason=finish,
            model=self.settings.name,
            backend=NAME,
            usage=Usage(prompt_tokens=len(prompt), completion_tokens=produced, cached_tokens=cached),
            reasoning=behind.reasoning,
            enforcement=_enforcement(request.constraint, thought),
            effective=self._effective(sampling, limit, request.constraint),
            latency=time.perf_counter() - started,
            ttft=first,
            logprobs=None if request.logprobs is None else _of_the_text(told, behind.raw),
            logprobs_from=None if request.logprobs is None else "model",
            determinism=self._determinism,
        )

    def score(
        self, request: Request, continuations: Sequence[str], interruption: Interruption
    ) -> tuple[ContinuationScore, ...]:
        """The log-probabilities of the continuations."""
        prompt_text = self._prompt(request)
        with self._turn(request.timeout, interruption) as step:
            with step() as engine:
                prompt = engine.tokenize(prompt_text)
                if not self.settings.prompt_cache:
                    engine.forget()
                behind = [engine.tokenize_behind(prompt, prompt_text, text) for text in continuations]
                for text, tokens in zip(continuations, behind, strict=True):
                    if not tokens:
                        raise UsageError("an empty continuation has no probability; give a text")
                    if self._room(prompt, len(tokens)) < len(tokens):
                        raise ContextOverflow(
                            f"{NAME}: prompt and continuation have {len(prompt)} and {len(tokens)} tokens, the context "
                            f"{self.settings.context}; give a larger one: {text[:80]!r}",
                            backend=NAME,
                        )
                scores = engine.score(prompt, behind, request.logprobs or 0)
            results = []
            for text in continuations:
                with step():
                    results.append(ContinuationScore(text, tuple(next(scores))))
        return tuple(results)

    def count_tokens(self, messages: Sequence[Message], interruption: Interruption) -> int:
        """Prompt tokens of these messages after the chat template."""
        prompt = self._rendered(messages)
        with self._turn(None, interruption) as step, step() as engine:
            return len(engine.tokenize(prompt))

    def close(self) -> None:
        """End the call that runs and free the model."""
        running = self._running
        self._queue.close(interrupt=running.ask if running else None, release=self._release)

    def _release(self) -> None:
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    def _loaded(self) -> LlamaCppEngine:
        """The model; the caller holds a step."""
        if self.engine is None:
            settings = self.settings
            self.engine = LlamaCppEngine(
                settings.path, context=settings.context, threads=settings.threads, gpu_layers=settings.gpu_layers
            )
        return self.engine

    def _masked(self, constraint: Constraint, thought: Thought | None) -> tuple[MaskedLogits, float]:
        """The processor for one answer, made before its turn: to compile a form holds up no other call.

        With it, the seconds that this took, loading left out.
        """
        with self._queue.step():
            masks = self._loaded().masks
        started = time.monotonic()
        return MaskedLogits(masks.mask(constraint, thought), masks.vocabulary.ends), time.monotonic() - started

    @contextlib.contextmanager
    def _turn(
        self, timeout: float | None, interruption: Interruption, *, spent: float = 0.0
    ) -> Iterator[Callable[[], Step]]:
        """The engine for one call, which ends when it takes too long, is interrupted or the model is closed.

        ``spent``: seconds of its time that are gone. Loading does not count against the time.
        What is given is the way to make one step with the engine.
        """
        timeout = timeout or self.settings.timeout
        with self._queue.turn(timeout - spent, interruption) as left:
            with self._queue.step():
                engine = self._loaded()
                flag = engine.stop_flag()

            @contextlib.contextmanager
            def step() -> Iterator[LlamaCppEngine]:
                with self._queue.step():
                    if flag.is_set:
                        raise Stopped
                    yield engine

            self._running = interruption
            try:
                with interruption.acted_on_by(flag.set), alarm(left, flag.set):
                    yield step
            except Stopped:
                self._queue.check_open()
                if interruption.asked:
                    raise BackendError(f"{NAME}: the call was cancelled", backend=NAME) from None
                raise TimedOut(f"{NAME}: no complete answer within {timeout:g} s (timeout)", backend=NAME) from None
            finally:
                self._running = None

    def _room(self, prompt: list[int], wanted: int | None) -> int:
        """How many tokens may follow the prompt: those wanted, as far as the context reaches."""
        if not prompt:
            raise UsageError(f"{NAME}: the prompt is empty")
        room = self.settings.context - len(prompt)
        if room < 1:
            raise ContextOverflow(
                f"{NAME}: the prompt has {len(prompt)} tokens and the context {self.settings.context}; at least one "
                "must be left for the answer. osport never trims a prompt: shorten it or give a larger context",
                backend=NAME,
            )
        return min(room, wanted or room)

    def _prompt(self, request: Request) -> str:
        return request.prompt if request.prompt is not None else self._rendered(request.messages)

    def _rendered(self, messages: Sequence[Message]) -> str:
        if not self.settings.has_template:
            raise TemplateError(
                f"{self.settings.path} holds no chat template; send a raw prompt, or give Model a ChatTemplate"
            )
        if self._template is None:
            from osport.chat_template import ChatTemplate

            self._template = ChatTemplate.from_gguf(self.settings.path)
        text: str = self._template.render(messages, continue_final=messages[-1].role == "assistant").text
        return text

    def _thought(self, request: Request, prompt: str) -> Thought | None:
        """What comes before the form: whoever rendered the prompt said so, or the model's own template opens it."""
        if request.constraint is None:
            return None
        if request.prompt is not None:
            return request.thought
        thought: Thought | None = self._template.thought(prompt)
        return thought

    def _effective(self, sampling: Sampling, limit: int, constraint: Constraint | None) -> dict[str, Any]:
        """What was sent, in osport's words; where the context cut ``max_tokens`` short, both numbers."""
        parameters = LlamaCppEngine.parameters(sampling)
        cut = {"max_tokens_asked": sampling.max_tokens} if limit != sampling.max_tokens else {}
        return {
            "context": self.settings.context,
            "threads": self.settings.threads,
            "gpu_layers": self.settings.gpu_layers,
            "max_tokens": limit,
            **cut,
            "temperature": parameters.pop("temp"),
            **parameters,
            "repeat_last_n": LAST_TOKENS,
            "seed": sampling.seed,
            "stop": list(sampling.stop or ()),
            "cache_prompt": self.settings.prompt_cache,
            **({"constraint": {constraint.kind: constraint.value}} if constraint is not None else {}),
        }

    @property
    def _determinism(self) -> Determinism:
        """A prompt that the call before began to read is read in other batches, and its logits differ in their
        last bits; so do those of a GPU."""
        return "best_effort" if self.settings.prompt_cache or self.settings.gpu_layers else "seeded"


def _of_the_text(told: list[tuple[TokenLogprob, int]], text: str) -> tuple[TokenLogprob, ...]:
    """The tokens, each with its number of bytes, that the text is made of: a stop string and what stands behind
    it are cut off."""
    left = len(text.encode())
    kept = []
    for token, size in told:
        if left <= 0:
            break
        kept.append(token)
        left -= size
    return tuple(kept)


def _native(constraint: Constraint | None, thought: Thought | None) -> str:
    """The constraint as a text for llama.cpp itself: GBNF, unless a mask engine was asked for by name or is needed."""
    if constraint is None or constraint.kind != "grammar" or constraint.engine not in (None, GBNF) or thought:
        return ""
    return checked_gbnf(constraint.value)


def _enforcement(constraint: Constraint | None, thought: Thought | None) -> Enforcement:
    if constraint is None:
        return Enforcement()
    if _native(constraint, thought):
        return Enforcement("sampling", f"{GBNF} in {engine_name()}")
    return Enforcement("sampling", engine_named(constraint.engine or DEFAULT_ENGINE).version())


@functools.cache
def engine_name() -> str:
    """Name and version of the engine."""
    return f"llama-cpp-python {version('llama-cpp-python')}"

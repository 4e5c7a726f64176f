"""Hugging Face transformers on torch in this process, for models that no other engine takes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ClassVar

from attrs import evolve

from osport.backends._hf_generation import HfGenerator
from osport.backends._hf_model import HfModel, check_dtype
from osport.backends._hf_prompt import HfPrompt, prompt_of
from osport.backends._interruption import Interruption
from osport.backends._llama_constraints import refuse_stop_strings
from osport.backends._one_at_a_time import OneAtATime
from osport.backends._options import check_seconds, refuse_unknown
from osport.backends._token_text import TokenText
from osport.core.deadline import Deadline
from osport.core.types import FinishReason
from osport.errors import ContextOverflow, MissingDependency, TimedOut, UsageError
from osport.plugin import (
    ALL_SAMPLING,
    Backend,
    Capabilities,
    Completion,
    ContinuationScore,
    Delta,
    Enforcement,
    Message,
    ModelFacts,
    Request,
    Usage,
)

__all__ = ["TransformersBackend"]

NAME = "transformers"
KINDS: frozenset[str] = frozenset({"json_schema", "choice", "regex", "grammar"})
SAMPLING = ALL_SAMPLING - {"presence_penalty", "frequency_penalty"}


class _LeftError(Exception):
    """Nobody waits for the answer any more."""


class TransformersBackend(Backend):
    """Hugging Face transformers in this process; one call at a time, the others queue.

    ``model``: the folder of a Hugging Face model, or its name on the Hub if it was downloaded before.
    ``context``: tokens that prompt and answer may have together (default: what the model was trained with, at
    most 8192); ``dtype`` (``auto``: as the weights are stored, ``bfloat16``, ``float16``, ``float32``); ``device``
    as torch names it (a GPU if there is one); ``timeout`` of one call, waiting in the queue included, loading the
    model not (600 s; looked at between tokens). No code of the model's folder is run.

    Raises :class:`~osport.errors.UsageError` (options), :class:`~osport.errors.ModelNotFound`,
    :class:`~osport.errors.FormatError` (not a model's folder), :class:`~osport.errors.MissingDependency`.
    """

    features: ClassVar[frozenset[str]] = (
        SAMPLING
        | KINDS
        | {"chat", "raw_prompt", "prefill", "stream", "count_tokens", "tools", "thinking", "logprobs", "score"}
    )

    def __init__(
        self,
        model: str,
        *,
        context: int | None = None,
        dtype: str = "auto",
        device: str | None = None,
        timeout: float = 600.0,
        **unknown: object,
    ) -> None:
        super().__init__(model)
        refuse_unknown(NAME, unknown, ("context", "dtype", "device", "timeout"))
        for package in ("transformers", "torch"):
            if find_spec(package) is None:
                raise MissingDependency(package, "transformers")
        if device is not None and not isinstance(device, str):
            raise UsageError(f"{NAME}: device={device!r}: must be a name such as 'cpu' or 'cuda:0'")
        self._dtype = check_dtype(NAME, dtype)
        self._device = device
        self._timeout = check_seconds(NAME, "timeout", timeout)
        self._hf = HfModel.find(model, backend=NAME)
        self._context = self._hf.checked_context(context, backend=NAME)
        self._queue = OneAtATime(NAME)
        self._closing = threading.Event()
        self._loaded: HfGenerator | None = None

    def load(self) -> None:
        """Load the model now."""
        with self._turn(self._deadline()):
            pass

    def capabilities(self) -> Capabilities:
        """No presence and frequency penalties; tools and thinking as far as the model's template has them."""
        template = self._hf.template
        can = template.capabilities if template is not None else None
        family = template.family if template is not None else None
        return Capabilities(
            chat=True,
            raw_prompt=True,
            prefill=True,
            stream=True,
            count_tokens=True,
            sampling=SAMPLING,
            constraints=KINDS,
            constraint_engine="llguidance",
            constrained_thinking=True,
            enforced_by="sampling",
            tools=can is not None and can.tool_use and family is not None and bool(family.calls),
            thinking=can is not None and can.thinking.kind != "none",
            logprobs=True,
            score=True,
        )

    def facts(self) -> ModelFacts:
        """From the model's folder; nothing is loaded."""
        return self._hf.facts(_engine_name())

    def generate(self, request: Request) -> Completion:
        """Answer one request."""
        return self._whole(request, threading.Event())

    async def agenerate(self, request: Request) -> Completion:
        """Answer one request; where the task is cancelled, the model stops at the next token."""
        left = threading.Event()
        try:
            return await asyncio.to_thread(self._whole, request, left)
        finally:
            left.set()

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer piece by piece. The model is taken until the last piece is read or the iterator closed."""
        deadline = self._deadline(request)
        prompt = self._prompt(request)
        pieces: queue.SimpleQueue[str | Completion | BaseException] = queue.SimpleQueue()
        left = threading.Event()

        def work() -> None:
            def hand_on(piece: str) -> None:
                if left.is_set():
                    raise _LeftError
                pieces.put(piece)

            try:
                pieces.put(self._answer(request, prompt, deadline, hand_on))
            except BaseException as error:  # noqa: BLE001 - raised again where the stream is read
                pieces.put(error)

        with self._turn(deadline) as deadline:
            worker = threading.Thread(target=work, name="osport-transformers", daemon=True)
            worker.start()
            try:
                while True:
                    item = pieces.get()
                    if isinstance(item, BaseException):
                        raise item
                    if isinstance(item, Completion):
                        yield Delta("", item)
                        return
                    if item:
                        yield Delta(item)
            finally:
                left.set()
                worker.join()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of these messages after the chat template."""
        tokens = self._prompt(Request(messages)).tokens
        if not isinstance(tokens, str):
            return len(tokens)
        with self._turn(self._deadline()), self._queue.step():
            return len(self._generator().encoded(tokens))

    def score(self, request: Request, continuations: Sequence[str]) -> tuple[ContinuationScore, ...]:
        """The log-probability of each continuation, its text cut into tokens by itself; nothing is sampled."""
        deadline = self._deadline(request)
        prompt = self._prompt(request)
        with self._turn(deadline) as deadline, self._queue.step():
            generator = self._generator()
            ids = generator.encoded(prompt.tokens)
            self._room(ids)
            scores = []
            for text in continuations:
                _check_time(deadline)
                tokens = generator.score(ids, text)
                self._room([*ids, *range(len(tokens))])
                scores.append(ContinuationScore(text, tuple(tokens)))
            return tuple(scores)

    def _deadline(self, request: Request | None = None) -> Deadline:
        return Deadline.after((request.timeout if request is not None else None) or self._timeout)

    @contextlib.contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[Deadline]:
        """The model, loaded, for one call, and until when that may take.

        Loading cannot be broken off, and is of use for every later call: its time is not the call's.
        """
        with self._queue.turn(deadline.timeout, Interruption()):
            if self._loaded is None:
                started = time.monotonic()
                with self._queue.step():
                    self._generator()
                deadline = evolve(deadline, ends=deadline.ends + time.monotonic() - started)
            yield deadline

    def close(self) -> None:
        """Free the model; a call that runs ends at its next token."""
        self._queue.close(interrupt=self._closing.set, release=self._release)

    def _whole(self, request: Request, left: threading.Event) -> Completion:
        def hand_on(_: str) -> None:
            if left.is_set():
                raise _LeftError

        deadline = self._deadline(request)
        prompt = self._prompt(request)
        with self._turn(deadline) as deadline:
            return self._answer(request, prompt, deadline, hand_on)

    def _release(self) -> None:
        self._loaded = None
        gc.collect()
        if find_spec("torch") is not None:
            import torch

            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    def _generator(self) -> HfGenerator:
        """The loaded model; the caller holds a step."""
        if self._loaded is None:
            self._loaded = HfGenerator(self._hf.folder, dtype=self._dtype, device=self._device)
        return self._loaded

    def _prompt(self, request: Request) -> HfPrompt:
        refuse_stop_strings(request)
        return prompt_of(self._hf, request, backend=NAME)

    def _room(self, prompt: list[int]) -> int:
        """How many tokens may follow."""
        if not prompt:
            raise UsageError(f"{NAME}: the prompt is empty")
        if len(prompt) >= self._context:
            raise ContextOverflow(
                f"{NAME}: the prompt has {len(prompt)} tokens and the context {self._context}; at least one must be "
                "left for the answer. osport never trims a prompt: shorten it or give a larger context",
                backend=NAME,
            )
        return self._context - len(prompt)

    def _answer(
        self, request: Request, prompt: HfPrompt, deadline: Deadline, hand_on: Callable[[str], None]
    ) -> Completion:
        """The whole answer; ``hand_on`` gets its pieces, an empty one where a token shows nothing yet."""
        started = time.perf_counter()
        sampling = request.sampling.filled()
        text = TokenText(sampling.stop or ())
        visible = prompt.visible()
        produced: list[int] = []
        raw: list[str] = []
        first: float | None = None
        with self._queue.step():
            generator = self._generator()
            ids = generator.encoded(prompt.tokens)
            room = self._room(ids)
            limit = min(room, sampling.max_tokens or room)
            decoded = ""

            def take(new: str) -> None:
                nonlocal first
                raw.append(new)
                piece = visible.push(new)
                if piece and first is None:
                    first = time.perf_counter() - started
                hand_on(piece)

            def hear(token: int) -> bool:
                nonlocal decoded
                if self._closing.is_set():
                    raise UsageError(f"{NAME}: this model was closed during the call; make a new Model")
                _check_time(deadline)
                produced.append(token)
                if token in generator.ends:
                    return True
                now = generator.decoded(produced, keep_marks=prompt.keeps_marks)
                # The last character may still be missing some of its bytes.
                if now.endswith("\N{REPLACEMENT CHARACTER}") or not now.startswith(decoded):
                    return False
                new, decoded = now[len(decoded) :], now
                take(text.push(new.encode("utf-8", "surrogatepass")))
                return text.stopped

            logprobs = generator.generate(
                ids,
                sampling,
                limit,
                constraint=request.constraint,
                thought=prompt.thought,
                logprobs=request.logprobs,
                hear=hear,
            )
            ended = produced[-1] in generator.ends or text.stopped
            if not text.stopped:
                answer = produced[:-1] if produced[-1] in generator.ends else produced
                rest = generator.decoded(answer, keep_marks=prompt.keeps_marks)[len(decoded) :]
                take(text.push(rest.encode("utf-8", "surrogatepass")) + text.finish())
            device = generator.device
        finish: FinishReason = "stop" if ended else "length"
        cut = {"max_tokens_asked": sampling.max_tokens} if limit != sampling.max_tokens else {}
        effective: dict[str, Any] = {
            "context": self._context,
            "dtype": self._dtype,
            "device": device,
            **{name: value for name, value in sampling.given.items() if name in SAMPLING},
            "max_tokens": limit,
            **cut,
            "stop": list(sampling.stop or ()),
        }
        completion = Completion(
            text="".join(raw),
            finish_reason=finish,
            model=self._hf.name,
            backend=NAME,
            usage=Usage(prompt_tokens=len(ids), completion_tokens=len(produced)),
            enforcement=Enforcement("sampling", f"llguidance {version('llguidance')}")
            if request.constraint is not None
            else Enforcement(),
            effective=effective,
            latency=time.perf_counter() - started,
            ttft=first,
            logprobs=None if logprobs is None else tuple(logprobs),
            logprobs_from=None if logprobs is None else "model",
            determinism="seeded",
        )
        whole = prompt.finished(completion, shown=visible.shown)
        hand_on(whole.text[len(visible.shown) :])
        return whole


def _check_time(deadline: Deadline) -> None:
    if not deadline.left:
        raise TimedOut(f"{NAME}: no complete answer within {deadline.seconds:g} s (timeout)", backend=NAME)


def _engine_name() -> str:
    return f"transformers {version('transformers')} on torch {version('torch')}"

"""vLLM on this machine, in a child process that osport starts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from attrs import frozen

from osport.backends._child_process import BESIDE_OTHERS
from osport.backends._hf_model import HfModel, check_dtype
from osport.backends._hf_prompt import HfPrompt, prompt_of
from osport.backends._llama_constraints import compiled, refuse_stop_strings
from osport.backends._options import check_number, check_seconds, check_switch, default_threads, refuse_unknown
from osport.backends._vllm_engine import VllmEngine
from osport.backends._vllm_server import VllmServer
from osport.core.capabilities import THINKING_FIRST
from osport.core.types import FinishReason, Sampling
from osport.errors import MissingDependency, OsportError, ServerFault, UnsupportedFeature, UsageError
from osport.plugin import (
    ALL_SAMPLING,
    Backend,
    BackendSpec,
    Capabilities,
    Completion,
    ContinuationScore,
    Delta,
    Enforcement,
    Message,
    ModelFacts,
    Request,
    TokenLogprob,
    Usage,
)

__all__ = ["VLLM", "VllmBackend"]

NAME = "vllm"
KINDS: frozenset[str] = frozenset({"json_schema", "choice", "regex", "grammar"})
OPTIONS = (
    "context", "dtype", "threads", "tensor_parallel", "gpu_memory_utilization", "kv_cache_bytes", "eager",
    "prompt_cache", "timeout", "startup_timeout",
)  # fmt: skip
KV_CACHE_ON_CPU = 2 * 2**30
MOST_LOGPROBS = 20
# vLLM works on this many at the same time by default; more would only wait there, with their clocks running.
AT_ONCE = 256
FINISHES: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}
ENVIRONMENT = {
    **BESIDE_OTHERS,
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # On a CPU, vLLM would pin its threads to cores, the same ones in each process.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


class VllmBackend(Backend):
    """vLLM in a child process, many calls at a time.

    ``model``: the folder of a Hugging Face model, or its name on the Hub if it was downloaded before.
    ``context``: tokens that prompt and answer may have together (default: what the model was trained with, at
    most 8192); ``dtype`` of the computation (``auto``, ``bfloat16``, ``float16``, ``float32``); ``threads`` on a
    CPU (all cores up to four, half of them above); ``tensor_parallel``, GPUs to spread the model over (1);
    ``gpu_memory_utilization``, the share of a GPU's memory to take (0.9); ``kv_cache_bytes``, the memory for the
    cache instead of what is left of that share (on a CPU: 2 GiB); ``eager``, whether to do without compiling (None:
    on a CPU yes); ``prompt_cache``, whether what a prompt shares with an earlier one is not computed again (True);
    ``timeout`` of one call, loading not included (600 s); ``startup_timeout`` (600 s).

    Raises :class:`~osport.errors.UsageError` (options), :class:`~osport.errors.ModelNotFound`,
    :class:`~osport.errors.FormatError` (not a model's folder), :class:`~osport.errors.MissingDependency`.
    """

    features: ClassVar[frozenset[str]] = (
        ALL_SAMPLING
        | KINDS
        | {"chat", "raw_prompt", "prefill", "stream", "count_tokens", "tools", "thinking", "logprobs", "score"}
    )

    def __init__(
        self,
        model: str,
        *,
        context: int | None = None,
        dtype: str = "auto",
        threads: int | None = None,
        tensor_parallel: int = 1,
        gpu_memory_utilization: float = 0.9,
        kv_cache_bytes: int | None = None,
        eager: bool | None = None,
        prompt_cache: bool = True,
        timeout: float = 600.0,
        startup_timeout: float = 600.0,
        **unknown: object,
    ) -> None:
        super().__init__(model)
        refuse_unknown(NAME, unknown, OPTIONS)
        if not isinstance(gpu_memory_utilization, int | float) or not 0 < gpu_memory_utilization <= 1:
            raise UsageError(f"{NAME}: gpu_memory_utilization={gpu_memory_utilization!r}: must be above 0, at most 1")
        self._timeout = check_seconds(NAME, "timeout", timeout)
        self._hf = HfModel.find(model, backend=NAME)
        threads = check_number(NAME, "threads", default_threads() if threads is None else threads, at_least=1)
        self._settings: dict[str, Any] = {
            "model": str(self._hf.folder),
            "served_model_name": self._hf.name,
            "max_model_len": self._hf.checked_context(context, backend=NAME),
            "dtype": check_dtype(NAME, dtype),
            "tensor_parallel_size": check_number(NAME, "tensor_parallel", tensor_parallel, at_least=1),
            "gpu_memory_utilization": float(gpu_memory_utilization),
            "kv_cache_memory_bytes": None
            if kv_cache_bytes is None
            else check_number(NAME, "kv_cache_bytes", kv_cache_bytes, at_least=1),
            "kv_cache_on_cpu": KV_CACHE_ON_CPU,
            "enforce_eager": None if eager is None else check_switch(NAME, "eager", eager),
            "enable_prefix_caching": check_switch(NAME, "prompt_cache", prompt_cache),
            "max_logprobs": MOST_LOGPROBS,
            "seed": 0,
        }
        self._engine = VllmEngine(
            self._settings,
            {**ENVIRONMENT, "OMP_NUM_THREADS": str(threads)},
            startup_timeout=check_seconds(NAME, "startup_timeout", startup_timeout),
        )
        self._threads = threads

    def capabilities(self) -> Capabilities:
        """Everything but images; tools and thinking as far as the model's template has them."""
        template = self._hf.template
        can = template.capabilities if template is not None else None
        family = template.family if template is not None else None
        return Capabilities(
            chat=True,
            raw_prompt=True,
            prefill=True,
            stream=True,
            count_tokens=True,
            constraints=KINDS,
            constraint_engine="llguidance",
            enforced_by="sampling",
            tools=can is not None and can.tool_use and family is not None and bool(family.calls),
            thinking=can is not None and can.thinking.kind != "none",
            logprobs=True,
            score=True,
            batch=True,
        )

    def facts(self) -> ModelFacts:
        """From the model's folder; nothing is loaded."""
        return self._hf.facts(_engine_name())

    def load(self) -> None:
        """Start the engine and wait until the model is loaded."""
        self._engine.running()

    def generate(self, request: Request) -> Completion:
        """Answer one request."""
        call = self._prepared(request)
        [line] = self._engine.lines(call.line(stream=False), call.timeout)
        return self._completion(call, line, time.perf_counter() - call.began)

    async def agenerate(self, request: Request) -> Completion:
        """Answer one request; a call that is cancelled is taken out of the engine."""
        call = self._prepared(request)
        async for line in self._engine.alines(call.line(stream=False), call.timeout):
            completion = self._completion(call, line, time.perf_counter() - call.began)
        return completion

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer piece by piece; closing the iterator ends the call in the engine."""
        call = self._prepared(request)
        pieces = _Pieces(self, call)
        for line in self._engine.lines(call.line(stream=True), call.timeout):
            yield from pieces.of(line)

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """:meth:`stream` without a thread."""
        call = self._prepared(request)
        pieces = _Pieces(self, call)
        lines = self._engine.alines(call.line(stream=True), call.timeout)
        try:
            async for line in lines:
                for delta in pieces.of(line):
                    yield delta
        finally:
            await lines.aclose()  # type: ignore[attr-defined]

    def batch(self, requests: Sequence[Request]) -> list[Completion | OsportError]:
        """All requests in the engine at once; one completion or one error for each, in order."""
        results: dict[int, Completion | OsportError] = {}
        calls: dict[int, _Call] = {}
        for place, request in enumerate(requests):
            try:
                calls[place] = self._prepared(request)
            except OsportError as error:
                results[place] = error
        lines = {place: (call.line(stream=False), call.timeout) for place, call in calls.items()}
        for place, line in self._engine.each_last(lines, at_once=AT_ONCE).items():
            try:
                results[place] = (
                    line if isinstance(line, OsportError) else self._completion(calls[place], line, line["seconds"])
                )
            except OsportError as error:
                results[place] = error
        return [results[place] for place in range(len(requests))]

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of these messages after the chat template."""
        tokens = prompt_of(self._hf, Request(messages), backend=NAME).tokens
        if not isinstance(tokens, str):
            return len(tokens)
        [line] = self._engine.lines({"do": "count", "prompt": tokens}, self._timeout)
        return int(line["tokens"])

    def score(self, request: Request, continuations: Sequence[str]) -> tuple[ContinuationScore, ...]:
        """The log-probability of each continuation, its text cut into tokens by itself; nothing is sampled."""
        prompt = prompt_of(self._hf, request, backend=NAME)
        call = {"do": "score", "prompt": prompt.tokens, "continuations": list(continuations)}
        [line] = self._engine.lines(call, request.timeout or self._timeout)
        return tuple(
            ContinuationScore(text, tuple(TokenLogprob(token, value) for token, value in row))
            for text, row in zip(continuations, line["scores"], strict=True)
        )

    def close(self) -> None:
        """End the engine and its processes; calls that run end with an error."""
        self._engine.close()

    def _prepared(self, request: Request) -> _Call:
        refuse_stop_strings(request)
        if (request.logprobs or 0) > MOST_LOGPROBS:
            raise UsageError(f"{NAME}: logprobs={request.logprobs}: at most {MOST_LOGPROBS}")
        sampling = request.sampling.filled()
        prompt = prompt_of(self._hf, request, backend=NAME)
        if prompt.thought is not None:
            raise UnsupportedFeature(THINKING_FIRST, NAME, reason="the form would hold from the first token on")
        return _Call(
            request,
            prompt,
            sampling,
            compiled(request.constraint) if request.constraint is not None else None,
            request.timeout or self._timeout,
            time.perf_counter(),
        )

    def _completion(
        self, call: _Call, line: Mapping[str, Any], latency: float, *, ttft: float | None = None, shown: str = ""
    ) -> Completion:
        if line["finish"] not in FINISHES:
            raise ServerFault(f"{NAME}: the engine ended the answer by itself: {line['finish']}", backend=NAME)
        logprobs = line["logprobs"]
        constraint = call.request.constraint
        completion = Completion(
            text=line["whole"],
            finish_reason=FINISHES[line["finish"]],
            model=self._hf.name,
            backend=NAME,
            usage=Usage(line["prompt_tokens"], line["completion_tokens"], line["cached_tokens"]),
            enforcement=Enforcement("sampling", f"llguidance in {_engine_name()}") if constraint else Enforcement(),
            effective=self._effective(call, line["max_tokens"]),
            latency=latency,
            ttft=ttft,
            logprobs=None if logprobs is None else tuple(TokenLogprob(*row) for row in logprobs),
            # The mask comes before the place where vLLM takes them, temperature and filters behind it.
            logprobs_from=None if logprobs is None else "sampler" if constraint else "model",
            determinism="best_effort",
        )
        return call.prompt.finished(completion, shown=shown)

    def _effective(self, call: _Call, limit: int) -> dict[str, Any]:
        """What was sent, in osport's words; where the context cut ``max_tokens`` short, both numbers."""
        sampling = call.sampling
        cut = {"max_tokens_asked": sampling.max_tokens} if limit != sampling.max_tokens else {}
        return {
            "context": self._settings["max_model_len"],
            "dtype": self._settings["dtype"],
            "threads": self._threads,
            "prompt_cache": self._settings["enable_prefix_caching"],
            **sampling.given,
            "max_tokens": limit,
            **cut,
            "stop": list(sampling.stop or ()),
            **({"grammar": call.grammar} if call.grammar else {}),
        }


@frozen
class _Call:
    request: Request
    prompt: HfPrompt
    sampling: Sampling
    grammar: str | None
    timeout: float
    began: float

    def line(self, *, stream: bool) -> dict[str, Any]:
        """The call as the child takes it, every sampling parameter by vLLM's name."""
        sampling = self.sampling
        return {
            "do": "generate",
            "prompt": self.prompt.tokens,
            "stream": stream,
            "grammar": self.grammar,
            "sampling": {
                "max_tokens": sampling.max_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "min_p": sampling.min_p,
                "repetition_penalty": sampling.repeat_penalty,
                "presence_penalty": sampling.presence_penalty,
                "frequency_penalty": sampling.frequency_penalty,
                "seed": sampling.seed,
                "stop": list(sampling.stop or ()),
                "logprobs": self.request.logprobs,
                "skip_special_tokens": not self.prompt.keeps_marks,
            },
        }


class _Pieces:
    """The deltas of one streamed answer."""

    def __init__(self, backend: VllmBackend, call: _Call) -> None:
        self._backend = backend
        self._call = call
        self._first: float | None = None
        self._visible = call.prompt.visible()

    def of(self, line: Mapping[str, Any]) -> Iterator[Delta]:
        """What a line of the child gives to see, and after the last one the whole."""
        text = self._visible.push(line["text"])
        if text:
            self._first = self._first or time.perf_counter() - self._call.began
        if "finish" not in line:
            if text:
                yield Delta(text)
            return
        shown = self._visible.shown
        latency = time.perf_counter() - self._call.began
        whole = self._backend._completion(self._call, line, latency, ttft=self._first, shown=shown)
        if text := text + whole.text[len(shown) :]:
            yield Delta(text)
        yield Delta("", whole)


def _engine_name() -> str:
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return f"vllm {version(distribution)}"
        except PackageNotFoundError:
            continue
    raise MissingDependency("vllm", "vllm")


def _opened(model: str, **options: object) -> Backend:
    """``NAME@http://host/v1`` is a server that runs already, all else is loaded here."""
    by_url = "@http://" in model or "@https://" in model
    return VllmServer(model, **options) if by_url else VllmBackend(model, **options)  # type: ignore[arg-type]


VLLM = BackendSpec(NAME, _opened, VllmBackend.features | VllmServer.features, "osport")
"""Both ways to vLLM under one name."""

"""What Model costs on top of the engine: its tokens a second over those of the same call made directly.

On the embedded server the direct call is an httpx request with the same body to the same server; for llama_cpp
it is llama-cpp-python's own chat completion, in process on the same loaded model, otherwise on one loaded here
beside the child process. The two ways take turns, so that a machine that slows down slows both; what counts is
the median of the ratios of neighbours: of tokens a second, and of the time to the first piece of a stream.

    python benchmarks/facade_overhead.py [model] [--rounds 21] [--tokens 96]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx

from osport import Message, Model
from osport.backends._llama_cpp_calls import LlamaCppCalls
from osport.backends._llama_cpp_engine import LlamaCppEngine

_numbers = itertools.count(100)
AIM = 0.98

Call = Callable[[], tuple[int, float]]
"""Makes one call and returns how many tokens it generated, and the seconds until the first piece (0: no stream)."""


def question() -> str:
    """Another one at each call: a prompt that is known to its end is no measure of the time to the first piece."""
    return f"{next(_numbers)} long stories were written about the sea. Write another one."


def timed(call: Call) -> tuple[float, float]:
    """Tokens a second, and seconds to the first piece."""
    started = time.perf_counter()
    tokens, first = call()
    return tokens / (time.perf_counter() - started), first


def counted(pieces: Iterable[Any], tokens_of: Callable[[Any], int]) -> tuple[int, float]:
    """Reads a stream: the tokens that its pieces tell of, and the seconds to the first piece."""
    started, first, tokens = time.perf_counter(), 0.0, 0
    for piece in pieces:
        first = first or time.perf_counter() - started
        tokens += tokens_of(piece)
    return tokens, first


def compare(name: str, facade: Call, direct: Call, rounds: int) -> None:
    for warm_up in (facade, direct):
        warm_up()
    pairs = []
    for turn in range(rounds):
        # Who goes first changes, or the second would always profit from what the first warmed.
        first, second = (facade, direct) if turn % 2 else (direct, facade)
        told = {first: timed(first), second: timed(second)}
        pairs.append((told[facade], told[direct]))
    report(f"{name} tokens/s", [(ours[0], theirs[0]) for ours, theirs in pairs])
    if pairs[0][0][1]:
        report(f"{name} 1/TTFT", [(1 / ours[1], 1 / theirs[1]) for ours, theirs in pairs])


def report(name: str, pairs: list[tuple[float, float]]) -> None:
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    verdict = "reached" if ratio >= AIM else "missed"
    print(f"{name:<38} {ours:8.1f} {theirs:8.1f}   ratio {ratio:.3f}   aim {AIM} {verdict}", flush=True)


def facade_calls(model: Model, settings: dict[str, Any]) -> tuple[Call, Call]:
    def generate() -> tuple[int, float]:
        return model.generate(question(), **settings).usage.completion_tokens or 0, 0.0

    def stream() -> tuple[int, float]:
        return counted(
            model.stream([Message.user(question())], **settings),
            lambda piece: (piece.completion and piece.completion.usage.completion_tokens) or 0,
        )

    return generate, stream


def server_calls(model: Model, settings: dict[str, Any]) -> tuple[Call, Call]:
    effective = model.generate(question(), **settings).effective

    def body() -> dict[str, Any]:
        return {**effective, "messages": [{"role": "user", "content": question()}]}

    endpoint = model.backend.endpoint  # type: ignore[attr-defined]
    url = endpoint.url + str(effective["route"])
    client = httpx.Client(
        timeout=600,
        trust_env=False,
        headers={"Authorization": f"Bearer {endpoint.api_key}"},
        limits=httpx.Limits(keepalive_expiry=1.0),
    )

    def generate() -> tuple[int, float]:
        return int(client.post(url, json=body()).json()["usage"]["completion_tokens"]), 0.0

    def stream() -> tuple[int, float]:
        asked = {**body(), "stream": True, "stream_options": {"include_usage": True}}
        started, first, tokens = time.perf_counter(), 0.0, 0
        with client.stream("POST", url, json=asked, headers={"Connection": "close"}) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line[6:])
                    if not first and any(choice["delta"].get("content") for choice in chunk["choices"]):
                        first = time.perf_counter() - started
                    usage = chunk.get("usage")
                    tokens = usage["completion_tokens"] if usage else tokens
        return tokens, first

    return generate, stream


def package_calls(model: Model, settings: dict[str, Any]) -> tuple[Call, Call]:
    model.load()
    calls = model.backend._calls  # type: ignore[attr-defined]
    if isinstance(calls, LlamaCppCalls):
        llama = calls.engine._llama  # type: ignore[union-attr]
    else:
        said = calls.settings
        engine = LlamaCppEngine(said.path, context=said.context, threads=said.threads, gpu_layers=said.gpu_layers)
        llama = engine._llama
    asked: dict[str, Any] = {
        "max_tokens": settings["max_tokens"],
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "seed": 0,
    }

    def messages() -> list[dict[str, str]]:
        return [{"role": "user", "content": question()}]

    def generate() -> tuple[int, float]:
        return int(llama.create_chat_completion(messages(), **asked)["usage"]["completion_tokens"]), 0.0

    def stream() -> tuple[int, float]:
        # The first chunk names the role and comes before anything is computed.
        chunks = llama.create_chat_completion(messages(), **asked, stream=True)
        started, first, tokens = time.perf_counter(), 0.0, 0
        for chunk in chunks:
            if "content" in chunk["choices"][0]["delta"]:
                first = first or time.perf_counter() - started
                tokens += 1
        return tokens, first

    return generate, stream


def main() -> None:
    parser = argparse.ArgumentParser(description="What Model costs on top of the engine.")
    parser.add_argument("model", nargs="?", default="smollm2-135m", help="a catalogue name or the path of a .gguf file")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--only", choices=("llama_server", "llama_cpp"), help="one backend instead of both")
    asked = parser.parse_args()
    settings = {"max_tokens": asked.tokens}
    # As the child processes have it: threads of two engines that spin for long would wait for one another.
    os.environ.setdefault("GOMP_SPINCOUNT", "300")
    print(f"{'':<38} {'osport':>8} {'direct':>8}")
    ways: tuple[tuple[str, str, Any, dict[str, Any]], ...] = (
        ("llama_server", "llama_server", server_calls, {}),
        ("llama_cpp", "llama_cpp", package_calls, {}),
        ("llama_cpp in process", "llama_cpp", package_calls, {"in_process": True}),
    )
    for name, backend, direct_calls, options in ways:
        if asked.only and asked.only != backend:
            continue
        with Model(f"{backend}:{asked.model}", context=1024, threads=asked.threads, **options) as model:
            facade = facade_calls(model, settings)
            direct = direct_calls(model, settings)
            for way, ours, theirs in zip(("generate", "stream"), facade, direct, strict=True):
                compare(f"{name} {way}", ours, theirs, asked.rounds)


if __name__ == "__main__":
    main()

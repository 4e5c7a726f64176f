"""What Model costs on top of the engine: its tokens a second over those of the same call made directly.

On the embedded server the direct call is an httpx request with the same body to the same server; in
process it is llama-cpp-python's own chat completion on the same loaded model. The two ways take turns,
so that a machine that slows down slows both; what counts is the median of the ratios of neighbours.

    python benchmarks/facade_overhead.py [model] [--rounds 21] [--tokens 96]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx

from osport import Message, Model

QUESTION = "Write a long story about the sea."
AIM = 0.99

Call = Callable[[], int]
"""Makes one call and returns how many tokens it generated."""


def rate(call: Call) -> float:
    started = time.perf_counter()
    tokens = call()
    return tokens / (time.perf_counter() - started)


def compare(name: str, facade: Call, direct: Call, rounds: int) -> float:
    for warm_up in (facade, direct):
        warm_up()
    pairs = []
    for turn in range(rounds):
        # Who goes first changes, or the second would always profit from what the first warmed.
        first, second = (facade, direct) if turn % 2 else (direct, facade)
        rates = {first: rate(first), second: rate(second)}
        pairs.append((rates[facade], rates[direct]))
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    verdict = "reached" if ratio >= AIM else "missed"
    print(f"{name:<22} {ours:8.1f} {theirs:8.1f} tokens/s   ratio {ratio:.3f}   aim {AIM} {verdict}", flush=True)
    return ratio


def facade_calls(model: Model, settings: dict[str, Any]) -> tuple[Call, Call]:
    def generate() -> int:
        return model.generate(QUESTION, **settings).usage.completion_tokens or 0

    def stream() -> int:
        *_, last = model.stream([Message.user(QUESTION)], **settings)
        return (last.completion and last.completion.usage.completion_tokens) or 0

    return generate, stream


def server_calls(model: Model, settings: dict[str, Any]) -> tuple[Call, Call]:
    effective = model.generate(QUESTION, **settings).effective
    body = {**effective, "messages": [{"role": "user", "content": QUESTION}]}
    endpoint = model.backend.endpoint  # type: ignore[attr-defined]
    url = endpoint.url + str(effective["route"])
    client = httpx.Client(
        timeout=600,
        trust_env=False,
        headers={"Authorization": f"Bearer {endpoint.api_key}"},
        limits=httpx.Limits(keepalive_expiry=1.0),
    )

    def generate() -> int:
        return int(client.post(url, json=body).json()["usage"]["completion_tokens"])

    def stream() -> int:
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        tokens = 0
        with client.stream("POST", url, json=asked, headers={"Connection": "close"}) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    usage = json.loads(line[6:]).get("usage")
                    tokens = usage["completion_tokens"] if usage else tokens
        return tokens

    return generate, stream


def in_process_calls(model: Model, settings: dict[str, Any]) -> tuple[Call, Call]:
    model.generate(QUESTION, **settings)
    llama = model.backend._loaded._llama  # type: ignore[attr-defined]
    asked: dict[str, Any] = {
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": settings["max_tokens"],
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "seed": 0,
    }

    def generate() -> int:
        return int(llama.create_chat_completion(**asked)["usage"]["completion_tokens"])

    def stream() -> int:
        chunks = llama.create_chat_completion(**asked, stream=True)
        return sum("content" in chunk["choices"][0]["delta"] for chunk in chunks)

    return generate, stream


def main() -> None:
    parser = argparse.ArgumentParser(description="What Model costs on top of the engine.")
    parser.add_argument("model", nargs="?", default="smollm2-135m", help="a catalogue name or the path of a .gguf file")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=None)
    asked = parser.parse_args()
    settings = {"max_tokens": asked.tokens}
    print(f"{'':<22} {'osport':>8} {'direct':>8}")
    for backend, direct_calls in (("llama_server", server_calls), ("llama_cpp", in_process_calls)):
        with Model(f"{backend}:{asked.model}", context=1024, threads=asked.threads) as model:
            facade = facade_calls(model, settings)
            direct = direct_calls(model, settings)
            for way, ours, theirs in zip(("generate", "stream"), facade, direct, strict=True):
                compare(f"{backend} {way}", ours, theirs, asked.rounds)


if __name__ == "__main__":
    main()

"""Many requests at once: Model.batch against what the engine itself offers, on the same requests.

For llama.cpp's embedded server and for a vLLM server that is a bare asyncio client: the same bodies through httpx, so
many at a time. For vLLM in process it is vLLM's own ``LLM.chat`` with the same settings, in a process of its own. The
two ways take turns; what counts is the median of the ratios of neighbours.

    python benchmarks/batch_throughput.py [REFERENCE] [--concurrency 8] [--requests 32] [--rounds 7]

REFERENCE: ``llama_server:MODEL`` (the default, with smollm2-135m), ``vllm:FOLDER``, or
``vllm:NAME@http://host:port/v1``, its key in VLLM_API_KEY and its URL again in VLLM_BASE_URL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import httpx
from direct_calls import chat_route, conversation

from osport import Completion, Model

AIM = 0.95
TOKENS = 32


def prompts(number: int) -> list[str]:
    return [f"Write a short story about the number {place}." for place in range(number)]


def through_model(model: Model, number: int, concurrency: int) -> int:
    answers = model.batch(prompts(number), concurrency=concurrency, max_tokens=TOKENS)
    failed = [answer for answer in answers if not isinstance(answer, Completion)]
    assert not failed, failed[0]
    return sum(answer.usage.completion_tokens or 0 for answer in answers if isinstance(answer, Completion))


def through_httpx(model: Model, number: int, concurrency: int) -> int:
    """What a careful caller would write: the same route and fields, no streaming."""
    url, headers, fields = chat_route(model, TOKENS)

    async def all_of_them() -> int:
        gate = asyncio.Semaphore(concurrency)
        async with httpx.AsyncClient(timeout=600, trust_env=False, headers=headers) as client:

            async def one(prompt: str) -> int:
                async with gate:
                    answer = await client.post(url, json={**fields, "messages": conversation(prompt)})
                    return int(answer.raise_for_status().json()["usage"]["completion_tokens"])

            return sum(await asyncio.gather(*map(one, prompts(number))))

    return asyncio.run(all_of_them())


@contextlib.contextmanager
def without_osport(model: Model, number: int, concurrency: int) -> Iterator[tuple[str, Callable[[], int]]]:
    """The other way and its name."""
    if model.capabilities.batch:
        import direct_vllm

        with direct_vllm.apart(model) as worker:
            yield "LLM.chat", lambda: direct_vllm.batch(worker, prompts(number), TOKENS).tokens
    else:
        yield "httpx", lambda: through_httpx(model, number, concurrency)


def rate(call: Callable[[], int]) -> float:
    started = time.perf_counter()
    tokens = call()
    return tokens / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description="Model.batch against what the engine itself offers.")
    parser.add_argument("reference", nargs="?", default="llama_server:smollm2-135m")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    options: dict[str, object] = {}
    if asked.reference.startswith("llama_server:"):
        options = {"context": 512, "slots": asked.concurrency}
    elif "@http" not in asked.reference:
        options = {"context": 512, "kv_cache_bytes": 500_000_000}
    with (
        Model(asked.reference, **options) as model,
        without_osport(model, asked.requests, asked.concurrency) as (other, bare),
    ):
        ways = {"Model.batch": lambda: through_model(model, asked.requests, asked.concurrency), other: bare}
        for way in ways.values():
            way()
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(asked.rounds):
            # Who goes first changes, or the second would always profit from what the first warmed.
            for name in sorted(ways, reverse=bool(turn % 2)):
                rates[name].append(rate(ways[name]))
        ratio = statistics.median(ours / theirs for ours, theirs in zip(*rates.values(), strict=True))
        for name, found in rates.items():
            print(f"{name:<12} {statistics.median(found):8.1f} tokens/s")
        print(f"ratio {ratio:.3f}   aim {AIM} {'reached' if ratio >= AIM else 'missed'}")


if __name__ == "__main__":
    main()

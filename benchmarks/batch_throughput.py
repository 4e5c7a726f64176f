"""Many requests at once: Model.batch against a bare asyncio client, on the same engine and the same requests.

The engine is llama.cpp's embedded server; the bare client sends the same bodies through httpx. The two ways take
turns; what counts is the median of the ratios of neighbours.

    python benchmarks/batch_throughput.py [MODEL.gguf or catalogue name] [--concurrency 8] [--requests 32] [--rounds 7]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable

import httpx

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
    effective = dict(model.generate("hi", max_tokens=TOKENS).effective)
    url = model.backend.endpoint.url + str(effective.pop("route"))  # type: ignore[attr-defined]
    for name in ("stream", "return_progress", "stream_options"):
        effective.pop(name, None)
    headers = {"Authorization": f"Bearer {model.backend.endpoint.api_key}"}  # type: ignore[attr-defined]

    async def all_of_them() -> int:
        gate = asyncio.Semaphore(concurrency)
        async with httpx.AsyncClient(timeout=600, trust_env=False, headers=headers) as client:

            async def one(prompt: str) -> int:
                async with gate:
                    body = {**effective, "messages": [{"role": "user", "content": prompt}]}
                    answer = await client.post(url, json=body)
                    return int(answer.raise_for_status().json()["usage"]["completion_tokens"])

            return sum(await asyncio.gather(*map(one, prompts(number))))

    return asyncio.run(all_of_them())


def rate(call: Callable[[], int]) -> float:
    started = time.perf_counter()
    tokens = call()
    return tokens / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description="Model.batch against a bare asyncio client.")
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with Model(f"llama_server:{asked.model}", context=512, slots=asked.concurrency) as model:
        ways = {
            "Model.batch": lambda: through_model(model, asked.requests, asked.concurrency),
            "httpx": lambda: through_httpx(model, asked.requests, asked.concurrency),
        }
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

"""What Model costs on top of an engine: its tokens a second and its time to the first piece, over the direct call's.

The direct call is, for servers, an httpx request with the same body (for ``anthropic`` the vendor's SDK); for
llama_cpp it is llama-cpp-python's own chat completion, on the same loaded model or on one loaded here beside the
child process; for vllm the AsyncLLM in osport's own child process, its clock there; for transformers the package's
own ``generate`` on the same loaded model. The two ways take turns, so that a machine that slows down slows both; what
counts is the median of the ratios of neighbours, and the interval behind it (95 %) says what so many rounds can tell.
Engines that answer several calls at a time are asked one question at a time, and then eight.

vLLM's scheduler polls on a core of its own. Threads on all cores leave none for the caller, and eight streams then
tell what any neighbour would cost there: on two cores ask for ``--threads 1``.

    python benchmarks/facade_overhead.py ENGINE [MODEL] [--rounds 21] [--tokens 96] [--threads 2]

MODEL: a catalogue name or the path of a .gguf file for llama_server, llama_cpp, llama_cpp_in_process, openai and
anthropic (the last two ask the embedded server of llama.cpp); a Hugging Face folder for vllm and transformers;
NAME@http://host:port/v1 for vllm_url, its key in VLLM_API_KEY and its URL again in VLLM_BASE_URL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import math
import os
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import direct_calls as direct
from direct_calls import Direct, Round, Told

from osport import Message, Model

AIM = 0.98
AT_ONCE = 8
# An engine still tidies up when the last token is out; who asks at once waits for what the one before left behind.
REST_SECONDS = 0.03
ENGINES = (
    "llama_server", "llama_cpp", "llama_cpp_in_process", "openai", "anthropic", "vllm", "vllm_url", "transformers",
)  # fmt: skip
_numbers = itertools.count(100)


def questions(number: int) -> list[str]:
    """Others at each call: a prompt that is known to its end is no measure of the time to the first piece.

    Small models go on with these to the limit; answers of unlike lengths would not have like rates.
    """
    return [f"{next(_numbers)} ships sail the sea. Write a long story about them." for _ in range(number)]


def through_model(model: Model, limit: int, loop: asyncio.Runner) -> Direct:
    """The same three ways to ask, through the facade."""

    def generate(asked: list[str]) -> Told:
        return direct.whole(lambda: model.generate(asked[0], max_tokens=limit).usage.completion_tokens or 0)

    def pieces(asked: str) -> Iterable[tuple[bool, int]]:
        for delta in model.stream([Message.user(asked)], max_tokens=limit):
            yield bool(delta.text), (delta.completion and delta.completion.usage.completion_tokens) or 0

    async def apieces(asked: str) -> AsyncIterator[tuple[bool, int]]:
        async for delta in model.astream([Message.user(asked)], max_tokens=limit):
            yield bool(delta.text), (delta.completion and delta.completion.usage.completion_tokens) or 0

    return Direct(
        generate,
        lambda asked: direct.counted(pieces(asked[0])),
        lambda asked: loop.run(direct.gathered(apieces, asked)),
    )


def compare(name: str, facade: Round, bare: Round, *, number: int, rounds: int) -> None:
    for warm_up in (facade, bare):
        warm_up(questions(number))
    pairs: list[tuple[Told, Told]] = []
    for turn in range(rounds):
        # Who goes first changes, or the second would always profit from what the first warmed.
        first, second = (facade, bare) if turn % 2 else (bare, facade)
        told: dict[Round, Told] = {}
        for ask in (first, second):
            time.sleep(REST_SECONDS)
            told[ask] = ask(questions(number))
        pairs.append((told[facade], told[bare]))
    report(f"{name} tokens/s", [(a.tokens / a.seconds, b.tokens / b.seconds) for a, b in pairs])
    if pairs[0][0].first:
        report(f"{name} 1/TTFT", [(1 / a.first, 1 / b.first) for a, b in pairs])


def report(name: str, pairs: list[tuple[float, float]]) -> None:
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    ratio = statistics.median(ratios)
    # Of order statistics, by the normal approximation of the binomial.
    beyond = max(0, math.floor(len(ratios) / 2 - 0.98 * math.sqrt(len(ratios))))
    interval = f"({ratios[beyond]:.3f} to {ratios[-1 - beyond]:.3f})"
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    verdict = "reached" if ratio >= AIM else "missed"
    print(f"{name:<34} {ours:8.1f} {theirs:8.1f}   ratio {ratio:.3f} {interval}   aim {AIM} {verdict}", flush=True)


@contextlib.contextmanager
def opened(engine: str, name: str, threads: int | None) -> Iterator[Model]:
    """The model on this engine, with whatever server it needs."""
    llama = {"context": 1024, "threads": threads}
    if engine in ("openai", "anthropic"):
        with Model(f"llama_server:{name}", slots=AT_ONCE, **llama) as owner:
            served, endpoint = Path(owner.backend.model).stem, owner.backend.endpoint
            with Model(f"{engine}:{served}@{endpoint.url}", api_key=lambda: endpoint.api_key) as model:
                yield model
        return
    backend, options = {
        "llama_server": ("llama_server", {**llama, "slots": AT_ONCE}),
        "llama_cpp": ("llama_cpp", llama),
        "llama_cpp_in_process": ("llama_cpp", {**llama, "in_process": True}),
        "vllm": ("vllm", {"context": 1024, "threads": threads, "kv_cache_bytes": 500_000_000}),
        "vllm_url": ("vllm", {}),
        "transformers": ("transformers", {"context": 1024}),
    }[engine]
    if engine == "vllm":
        import direct_vllm

        direct_vllm.ask_the_same_child()
    with Model(f"{backend}:{name}", **options) as model:
        yield model


@contextlib.contextmanager
def without_osport(engine: str, model: Model, limit: int, loop: asyncio.Runner) -> Iterator[Direct]:
    """The direct call to the same engine."""
    if engine == "vllm":
        import direct_vllm

        yield direct_vllm.direct(model, limit)
    elif engine == "transformers":
        yield direct.over_transformers(model, limit)
    elif engine.startswith("llama_cpp"):
        yield direct.over_llama_cpp(model, limit)
    elif engine == "anthropic":
        yield direct.over_anthropic_sdk(model, limit, loop.run)
    else:
        yield direct.over_httpx(model, limit, loop.run)


def main() -> None:
    parser = argparse.ArgumentParser(description="What Model costs on top of an engine.")
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=None)
    asked = parser.parse_args()
    # As the child processes have it: threads of two engines that spin for long would wait for one another.
    os.environ.setdefault("GOMP_SPINCOUNT", "300")
    print(f"{'':<34} {'osport':>8} {'direct':>8}")
    with (
        asyncio.Runner() as loop,
        opened(asked.engine, asked.model, asked.threads) as model,
        without_osport(asked.engine, model, asked.tokens, loop) as bare,
    ):
        facade = through_model(model, asked.tokens, loop)
        compare(f"{asked.engine} generate", facade.generate, bare.generate, number=1, rounds=asked.rounds)
        compare(f"{asked.engine} stream", facade.stream, bare.stream, number=1, rounds=asked.rounds)
        if facade.at_once and bare.at_once:
            name = f"{asked.engine} {AT_ONCE} streams"
            compare(name, facade.at_once, bare.at_once, number=AT_ONCE, rounds=asked.rounds)


if __name__ == "__main__":
    main()

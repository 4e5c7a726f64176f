"""The same question asked of an engine without osport, as a careful caller would write it.

Each function takes an opened model and the limit of an answer, and returns a :class:`Direct` that uses the same
engine (or, for vLLM, a second one like it in a process of its own) with the same fields.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import httpx
from attrs import frozen

from osport import Message, Model, Request, Sampling


@frozen
class Told:
    """What one round came to: tokens, seconds to the end, and to the first piece of each answer (0: no stream)."""

    tokens: int
    seconds: float
    first: float = 0.0


Round = Callable[[list[str]], Told]
"""Asks all questions at the same time."""


@frozen
class Direct:
    """``at_once`` is None where the engine answers one call at a time."""

    generate: Round
    stream: Round
    at_once: Round | None = None


def counted(pieces: Iterable[tuple[bool, int]]) -> Told:
    """Reads a stream of pieces, each whether it shows text and how many tokens it tells of."""
    started, first, tokens = time.perf_counter(), 0.0, 0
    for text, more in pieces:
        if text and not first:
            first = time.perf_counter() - started
        tokens += more
    return Told(tokens, time.perf_counter() - started, first)


def whole(call: Callable[[], int]) -> Told:
    """One answer in one piece; the call returns its tokens."""
    started = time.perf_counter()
    return Told(call(), time.perf_counter() - started)


async def gathered(stream: Callable[[str], AsyncIterator[tuple[bool, int]]], questions: list[str]) -> Told:
    """Reads the streams of all questions at the same time; ``first`` is the mean of theirs."""
    started = time.perf_counter()

    async def one(question: str) -> tuple[int, float]:
        first, tokens = 0.0, 0
        async for text, more in stream(question):
            if text and not first:
                first = time.perf_counter() - started
            tokens += more
        return tokens, first

    each = await asyncio.gather(*map(one, questions))
    seconds = time.perf_counter() - started
    return Told(sum(tokens for tokens, _ in each), seconds, sum(first for _, first in each) / len(each))


def conversation(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def chat_route(model: Model, limit: int) -> tuple[str, dict[str, str], dict[str, object]]:
    """URL, headers, and the fields of a body, as this model sends them; the messages are still those of a "Hi"."""
    backend = model.backend
    if model.ref.backend == "llama_server":
        endpoint = backend.endpoint
        fields = dict(model.generate("Hi", max_tokens=limit).effective)
        path = str(fields.pop("route"))
        for name in ("stream", "return_progress", "stream_options"):
            fields.pop(name, None)
    else:
        endpoint = backend._endpoint
        call = backend._asked(Request((Message.user("Hi"),), sampling=Sampling(max_tokens=limit)), stream=False)
        fields, path = dict(call.body), call.path
    return endpoint.url + path, endpoint.headers, fields


def over_httpx(model: Model, limit: int, run: Callable[[Awaitable[Told]], Told]) -> Direct:
    """llama-server, or any OpenAI-like server: the same body to the same route."""
    url, headers, fields = chat_route(model, limit)
    settings = {"timeout": 600, "trust_env": False, "headers": headers}
    client = httpx.Client(**settings, limits=httpx.Limits(keepalive_expiry=1.0))
    # The engine closes what was idle for some seconds; a careful caller does not try such a connection.
    aclient = httpx.AsyncClient(**settings, limits=httpx.Limits(max_keepalive_connections=0))

    def body(question: str, *, stream: bool) -> dict[str, object]:
        streamed = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        return {**fields, "messages": conversation(question), **streamed}

    def read(line: str) -> tuple[bool, int]:
        if not line.startswith("data: {"):
            return False, 0
        chunk = json.loads(line[6:])
        text = any(choice["delta"].get("content") for choice in chunk["choices"])
        usage = chunk.get("usage")
        return text, usage["completion_tokens"] if usage and not chunk["choices"] else 0

    def generate(questions: list[str]) -> Told:
        def call() -> int:
            answer = client.post(url, json=body(questions[0], stream=False)).raise_for_status()
            return int(answer.json()["usage"]["completion_tokens"])

        return whole(call)

    def pieces(question: str) -> Iterable[tuple[bool, int]]:
        with client.stream("POST", url, json=body(question, stream=True), headers={"Connection": "close"}) as response:
            yield from map(read, response.raise_for_status().iter_lines())

    async def apieces(question: str) -> AsyncIterator[tuple[bool, int]]:
        asked = body(question, stream=True)
        async with aclient.stream("POST", url, json=asked, headers={"Connection": "close"}) as response:
            async for line in response.raise_for_status().aiter_lines():
                yield read(line)

    return Direct(
        generate,
        lambda questions: counted(pieces(questions[0])),
        lambda questions: run(gathered(apieces, questions)),
    )


def over_anthropic_sdk(model: Model, limit: int, run: Callable[[Awaitable[Told]], Told]) -> Direct:
    """The vendor's SDK with the same body."""
    import anthropic

    backend = model.backend
    client = anthropic.Anthropic(**backend._settings())
    aclient = anthropic.AsyncAnthropic(**backend._settings())

    def body(question: str) -> dict[str, object]:
        return {"model": backend.model, "messages": conversation(question), "max_tokens": limit}

    def pieces(question: str) -> Iterable[tuple[bool, int]]:
        with client.messages.stream(**body(question), extra_headers={"Connection": "close"}) as events:
            for text in events.text_stream:
                yield bool(text), 0
            yield False, events.get_final_message().usage.output_tokens

    async def apieces(question: str) -> AsyncIterator[tuple[bool, int]]:
        async with aclient.messages.stream(**body(question), extra_headers={"Connection": "close"}) as events:
            async for text in events.text_stream:
                yield bool(text), 0
            yield False, (await events.get_final_message()).usage.output_tokens

    return Direct(
        lambda questions: whole(lambda: client.messages.create(**body(questions[0])).usage.output_tokens),
        lambda questions: counted(pieces(questions[0])),
        lambda questions: run(gathered(apieces, questions)),
    )


def over_llama_cpp(model: Model, limit: int) -> Direct:
    """llama-cpp-python's own chat completion, on the same loaded model where that is in this process."""
    from osport.backends._llama_cpp_calls import LlamaCppCalls
    from osport.backends._llama_cpp_engine import LlamaCppEngine

    model.load()
    calls = model.backend._calls
    if isinstance(calls, LlamaCppCalls):
        llama = calls.engine._llama
    else:
        said = calls.settings
        engine = LlamaCppEngine(said.path, context=said.context, threads=said.threads, gpu_layers=said.gpu_layers)
        llama = engine._llama
    neutral = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "seed": 0}

    def ask(question: str, *, stream: bool) -> object:
        return llama.create_chat_completion(conversation(question), max_tokens=limit, stream=stream, **neutral)

    def pieces(question: str) -> Iterable[tuple[bool, int]]:
        for chunk in ask(question, stream=True):
            # The first chunk names the role and comes before anything is computed.
            text = "content" in chunk["choices"][0]["delta"]
            yield text, int(text)

    return Direct(
        lambda questions: whole(lambda: ask(questions[0], stream=False)["usage"]["completion_tokens"]),
        lambda questions: counted(pieces(questions[0])),
    )


def over_transformers(model: Model, limit: int) -> Direct:
    """The package's own ``generate`` on the same loaded model, with its own streamer."""
    import torch
    from transformers import GenerationConfig, TextIteratorStreamer

    model.load()
    generator = model.backend._loaded
    tokenizer, network = generator._tokenizer, generator._model
    ends = sorted(generator.ends)
    config = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=ends[0])

    def ask(question: str, **more: object) -> int:
        given = tokenizer.apply_chat_template(
            conversation(question), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            answer = network.generate(**given, generation_config=config, **more)
        return int(answer.shape[1] - given["input_ids"].shape[1])

    def pieces(question: str) -> Iterable[tuple[bool, int]]:
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        tokens: list[int] = []
        worker = threading.Thread(target=lambda: tokens.append(ask(question, streamer=streamer)))
        worker.start()
        for text in streamer:
            yield bool(text), 0
        worker.join()
        yield False, tokens[0]

    return Direct(
        lambda questions: whole(lambda: ask(questions[0])),
        lambda questions: counted(pieces(questions[0])),
    )

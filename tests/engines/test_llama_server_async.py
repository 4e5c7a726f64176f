"""The embedded llama.cpp server from an event loop, and what becomes of its work when nobody waits any more."""

import asyncio
import contextlib
import threading
import time

import httpx
import pytest

from osport.backends.llama_server import LlamaServerBackend
from osport.errors import ContextOverflow, TimedOut
from osport.plugin import Message, Request, Sampling

pytestmark = pytest.mark.engine

# Some seconds of work before the first token.
LONG_PROMPT = Request((Message.user("word " * 3000),), sampling=Sampling(max_tokens=400))
SHORT = Request((Message.user("Say hi"),), sampling=Sampling(max_tokens=6))


@pytest.fixture(scope="module")
def roomy(model_path):
    with LlamaServerBackend(str(model_path), context=4096, threads=1) as backend:
        yield backend


def at_work(backend: LlamaServerBackend) -> bool:
    endpoint = backend.endpoint
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    return any(slot["is_processing"] for slot in httpx.get(f"{endpoint.url}/slots", headers=headers).json())


def wait_for(backend: LlamaServerBackend, busy: bool, seconds: float) -> float:
    """Seconds until the slot is busy, or free."""
    started = time.monotonic()
    while at_work(backend) is not busy:
        assert time.monotonic() < started + seconds, f"the slot is not {'at work' if busy else 'free'}"
        time.sleep(0.05)
    return time.monotonic() - started


async def all_of(pieces):
    return [piece async for piece in pieces]


def test_async_answers_are_those_of_a_thread(roomy):
    async def both():
        return await roomy.agenerate(SHORT), await all_of(roomy.astream(SHORT))

    whole, pieces = asyncio.run(both())
    assert whole.text == roomy.generate(SHORT).text == "".join(piece.text for piece in pieces)
    assert pieces[-1].completion.usage.completion_tokens == whole.usage.completion_tokens
    assert 0 < pieces[-1].completion.ttft < pieces[-1].completion.latency


def test_async_calls_need_no_thread_each(roomy):
    async def many():
        calls = [asyncio.create_task(roomy.agenerate(SHORT)) for _ in range(12)]
        await asyncio.sleep(0.3)
        threads = threading.active_count()
        await asyncio.gather(*calls)
        return threads

    # The pool that finds the endpoint has at most one worker for each core and four more; none waits for an answer.
    asyncio.run(many())
    assert not [thread for thread in threading.enumerate() if thread.name == "osport-astream"]


def test_async_errors_are_those_of_a_thread(roomy):
    too_long = Request((Message.user("word " * 6000),))
    for call in (roomy.agenerate(too_long), all_of(roomy.astream(too_long))):
        with pytest.raises(ContextOverflow):
            asyncio.run(call)
    late = Request(LONG_PROMPT.messages, sampling=LONG_PROMPT.sampling, timeout=0.5)
    for call in (roomy.agenerate(late), all_of(roomy.astream(late))):
        with pytest.raises(TimedOut, match=r"0\.5 s"):
            asyncio.run(call)


@pytest.mark.parametrize("way", ["agenerate", "astream"])
def test_cancelling_frees_the_slot_before_the_prompt_is_read(roomy, way):
    # Another first word each time: nothing of the prompt is in the cache.
    prompt = Request((Message.user(f"{way} " + "word " * 3400),), sampling=Sampling(max_tokens=400))

    async def give_up() -> float:
        call = roomy.agenerate(prompt) if way == "agenerate" else all_of(roomy.astream(prompt))
        task = asyncio.create_task(call)
        await asyncio.to_thread(wait_for, roomy, True, 20)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return await asyncio.to_thread(wait_for, roomy, False, 60)

    wait_for(roomy, False, 60)
    given_up = asyncio.run(give_up())
    started = time.monotonic()
    roomy.generate(Request(prompt.messages, sampling=Sampling(max_tokens=1)))
    assert given_up < time.monotonic() - started, "the slot was busy for as long as the whole prompt takes"


def test_a_timeout_frees_the_slot(roomy):
    late = Request(LONG_PROMPT.messages, sampling=LONG_PROMPT.sampling, timeout=0.5)
    with pytest.raises(TimedOut):
        roomy.generate(late)
    wait_for(roomy, False, 60)

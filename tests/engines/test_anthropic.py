"""The Anthropic backend, with the official SDK, against the Messages route of a real llama.cpp server."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from osport.backends.anthropic import AnthropicBackend
from osport.errors import AuthFailed, ContextOverflow, TimedOut, Unreachable, UnsupportedFeature, UsageError
from osport.plugin import Completion, Constraint, Delta, Message, Request, Sampling

pytestmark = pytest.mark.engine

CONVERSATION = (Message.system("Answer in one word."), Message.user("Which colour has the sky?"))


def name_at(server):
    return Path(server.model).stem


@pytest.fixture
def claude(server):
    endpoint = server.endpoint
    with AnthropicBackend(f"{name_at(server)}@{endpoint.url}", api_key=lambda: endpoint.api_key) as backend:
        yield backend


def ask(**sampling: object) -> Request:
    return Request(CONVERSATION, sampling=Sampling(**{"max_tokens": 6, **sampling}))


def test_an_answer_comes_back_with_its_cost(claude, server):
    completion = claude.generate(ask())
    assert completion.text
    assert completion.finish_reason == "length"
    assert completion.usage.completion_tokens == 6
    # The system message arrived: the prompt is as long as with it.
    assert completion.usage.prompt_tokens == server.count_tokens(CONVERSATION)
    assert completion.request_id
    assert completion.effective == {"model": name_at(server), "max_tokens": 6, "stop": []}


def test_the_parts_of_the_prompt_that_came_from_the_cache_are_added(claude, server):
    first, second = claude.generate(ask()), claude.generate(ask())
    assert second.usage.cached_tokens > 0
    assert first.usage.prompt_tokens == second.usage.prompt_tokens == server.count_tokens(CONVERSATION)


def test_a_stream_adds_up_to_its_completion(claude):
    *pieces, last = claude.stream(ask())
    assert last.completion.text == "".join(piece.text for piece in pieces) != ""
    assert len(pieces) > 1
    assert last.completion.usage.completion_tokens == 6
    assert last.completion.finish_reason == "length"
    assert 0 < last.completion.ttft < last.completion.latency


def test_async_answers_are_those_of_a_thread(claude, server):
    async def whole_and_pieces() -> tuple[Completion, list[Delta]]:
        return await claude.agenerate(ask()), [piece async for piece in claude.astream(ask())]

    # Two event loops, one behind the other: nothing may hang on the first.
    for _ in range(2):
        whole, (*pieces, last) = asyncio.run(whole_and_pieces())
        assert last.completion.text == "".join(piece.text for piece in pieces) != ""
        for completion in (whole, last.completion):
            assert completion.usage.prompt_tokens == server.count_tokens(CONVERSATION)
            assert (completion.usage.completion_tokens, completion.finish_reason) == (6, "length")
        assert 0 < last.completion.ttft < last.completion.latency


def test_async_calls_need_no_thread(claude):
    async def many() -> set[str]:
        before = set(threading.enumerate())
        calls = [asyncio.create_task(claude.agenerate(ask())) for _ in range(6)]
        await asyncio.sleep(0.3)
        started = {thread.name for thread in set(threading.enumerate()) - before}
        await asyncio.gather(*calls)
        return started

    # Names are looked up on the loop's own threads.
    assert all(name.startswith("asyncio") for name in asyncio.run(many()))


def test_async_errors_are_those_of_a_thread(claude):
    async def streamed(request: Request) -> list[Delta]:
        return [piece async for piece in claude.astream(request)]

    too_long = Request((Message.user("word " * 2000),), sampling=Sampling(max_tokens=4))
    late = Request((Message.user("Write a long story."),), sampling=Sampling(max_tokens=600), timeout=0.3)
    for answer in (claude.agenerate, streamed):
        with pytest.raises(ContextOverflow):
            asyncio.run(answer(too_long))
        with pytest.raises(TimedOut, match=r"0\.3 s"):
            asyncio.run(answer(late))


def test_stop_sequences_are_sent(claude):
    # This route samples at the server's temperature, so the letter is one that every answer has soon.
    completion = claude.generate(ask(max_tokens=60, stop=("e",)))
    assert "e" not in completion.text
    assert completion.finish_reason == "stop"
    assert completion.effective["stop"] == ["e"]


def test_tokens_are_counted_by_the_server(claude, server):
    assert claude.count_tokens(CONVERSATION) == server.count_tokens(CONVERSATION)


def test_what_the_api_cannot_do_is_refused(claude):
    assert claude.capabilities().sampling == {"max_tokens", "stop"}
    with pytest.raises(UnsupportedFeature, match="choice"):
        claude.generate(Request(CONVERSATION, constraint=Constraint("choice", ("a", "b"))))
    with pytest.raises(UnsupportedFeature, match="system message"):
        claude.generate(Request((*CONVERSATION, Message.system("And politely."), Message.user("Well?"))))
    with pytest.raises(UnsupportedFeature, match="without a turn"):
        claude.generate(Request((Message.system("Be brief."),)))


def test_a_prompt_beyond_the_context_is_an_overflow(claude):
    for answer in (claude.generate, lambda request: list(claude.stream(request))):
        with pytest.raises(ContextOverflow):
            answer(Request((Message.user("word " * 2000),), sampling=Sampling(max_tokens=4)))


def test_a_slow_answer_times_out(claude):
    late = Request((Message.user("Write a long story."),), sampling=Sampling(max_tokens=600), timeout=0.3)
    with pytest.raises(TimedOut, match=r"0\.3 s"):
        claude.generate(late)


def test_a_wrong_key_is_refused_without_printing_it(server):
    with AnthropicBackend("m", base_url=server.endpoint.url, api_key=lambda: "sk-very-secret") as backend:
        with pytest.raises(AuthFailed) as caught:
            backend.generate(ask())
        assert "sk-very-secret" not in f"{caught.value!r}{caught.value}{backend!r}"


def test_no_key_is_said_at_once(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(AuthFailed, match="ANTHROPIC_API_KEY"):
        AnthropicBackend("claude-haiku-4-5")


def test_the_key_comes_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", server.endpoint.api_key)
    with pytest.raises(AuthFailed, match="nobody named it together"):
        AnthropicBackend("m", base_url=server.endpoint.url)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.endpoint.url)
    with AnthropicBackend(name_at(server)) as backend:
        assert backend.generate(ask()).text


def test_a_server_that_is_not_there_is_unreachable():
    with AnthropicBackend("m@http://127.0.0.1:9", api_key=lambda: "k") as backend:
        for answer in (backend.generate, lambda request: list(backend.stream(request))):
            with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
                answer(ask())


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("", {}, "name a model"),
        ("m@http://a", {"base_url": "http://b"}, "give one"),
        ("m", {"api_key": "sk-plain"}, "callable"),
        ("m", {"temperature": 0}, "no option 'temperature'"),
    ],
)
def test_wrong_options_are_named(model, options, message):
    with pytest.raises(UsageError, match=message):
        AnthropicBackend(model, **{"api_key": lambda: "k", **options})


def test_a_vertex_name_keeps_its_at_sign():
    with AnthropicBackend("claude-x@20260101@https://proxy.example", api_key=lambda: "k") as backend:
        assert backend.model == "claude-x@20260101"
        assert backend.facts().fact("name").source.startswith("https://proxy.example")


def test_a_closed_model_is_not_asked(claude):
    claude.close()
    with pytest.raises(UsageError, match="closed"):
        claude.generate(ask())

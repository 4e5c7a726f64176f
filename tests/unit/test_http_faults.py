"""Faults of HTTP servers that a real engine does not produce on demand: played by a fake server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from osport.backends.anthropic import AnthropicBackend
from osport.backends.llama_server import LlamaServerBackend
from osport.backends.openai import OpenAIBackend
from osport.errors import (
    AuthFailed,
    BackendError,
    BadRequest,
    BadResponse,
    ContextOverflow,
    ModelNotFound,
    OsportError,
    OutputError,
    RateLimited,
    ServerFault,
    TimedOut,
    Truncated,
    Unreachable,
    UsageError,
)
from osport.plugin import Constraint, Delta, Message, Request, Tool

ASK = Request((Message.user("hi"),))
SECRET = "sk-very-secret"


class FakeServer(ThreadingHTTPServer):
    """A fake: answers whatever the test says, and keeps the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.answer: Callable[[FakeHandler], None] = lambda handler: handler.reply(200, "{}")
        self.seen: list[tuple[str, dict[str, str], object]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class FakeHandler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append((self.path, dict(self.headers), json.loads(body or b"null")))
        self.server.answer(self)

    do_GET = do_POST  # noqa: N815 - http.server's own naming

    def reply(self, status: int, text: str, *, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def llama(fake: FakeServer) -> Iterator[LlamaServerBackend]:
    with LlamaServerBackend(fake.url, api_key=lambda: SECRET) as backend:
        yield backend


def both(backend: LlamaServerBackend, expected: type[BackendError], request: Request = ASK) -> BackendError:
    """The error of generate, after stream was seen to raise the same kind."""
    with pytest.raises(expected):
        list(backend.stream(request))
    with pytest.raises(expected) as caught:
        backend.generate(request)
    assert type(caught.value) is expected
    assert SECRET not in f"{caught.value!r} {caught.value}"
    return caught.value


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, BadRequest),
        (401, AuthFailed),
        (403, AuthFailed),
        (404, ModelNotFound),
        (408, ServerFault),
        (425, ServerFault),
        (422, BadRequest),
        (429, RateLimited),
        (500, ServerFault),
        (503, ServerFault),
        (302, BadResponse),
    ],
)
def test_a_status_has_its_error(fake, llama, status, expected):
    body = json.dumps({"error": {"code": status, "message": "so it is", "type": "some_error"}})
    fake.answer = lambda handler: handler.reply(status, body, x_request_id="r-1")
    error = both(llama, expected)
    assert (error.status, error.request_id) == (status, "r-1")
    assert "so it is" in str(error)


def test_an_error_body_of_any_shape_is_shown(fake, llama):
    for body in ("plain words", '{"error": "plain words"}', '{"error": {"text": "plain words"}}'):
        fake.answer = lambda handler, body=body: handler.reply(500, body)
        assert "plain words" in str(both(llama, ServerFault))
    fake.answer = lambda handler: handler.reply(500, "x" * 5000)
    assert len(str(both(llama, ServerFault))) < 600


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2.5", 2.5), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None), ("inf", None), ("nan", None)],
)
def test_the_time_to_wait_is_handed_on(fake, llama, header, seconds):
    fake.answer = lambda handler: handler.reply(429, "{}", Retry_After=header)
    assert both(llama, RateLimited).retry_after == seconds


def test_the_time_to_wait_may_be_a_date(fake, llama):
    fake.answer = lambda handler: handler.reply(429, "{}", Retry_After=formatdate(time.time() + 60, usegmt=True))
    assert 50 < both(llama, RateLimited).retry_after <= 60


def test_a_redirect_is_not_followed(fake, llama):
    with FakeServer() as elsewhere:
        thread = threading.Thread(target=elsewhere.serve_forever, args=(0.02,))
        thread.start()
        fake.answer = lambda handler: handler.reply(307, "", Location=f"{elsewhere.url}/v1/chat/completions")
        both(llama, BadResponse)
        elsewhere.shutdown()
        thread.join()
        assert elsewhere.seen == []


WHOLE = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "body",
    [
        "<html>", "[]", "{}", '{"choices": [{}]}', '{"choices": [{"message": {"content": 7}}]}',
        json.dumps({**WHOLE, "model": 5}),
        json.dumps({**WHOLE, "usage": {"prompt_tokens": "9"}}),
        json.dumps({**WHOLE, "usage": {"completion_tokens": -1}}),
        json.dumps({**WHOLE, "usage": [9, 1]}),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_not_taken_for_one(fake, llama, body):
    fake.answer = lambda handler: handler.reply(200, body)
    with pytest.raises(BadResponse):
        llama.generate(ASK)
    fake.answer = lambda handler: handler.reply(200, f"data: {body}\n\n", kind="text/event-stream")
    with pytest.raises(BadResponse):
        list(llama.stream(ASK))


def test_a_stream_of_another_kind_is_no_answer(fake, llama):
    fake.answer = lambda handler: handler.reply(200, "data: {}", kind="text/html")
    with pytest.raises(BadResponse, match="text/event-stream"):
        list(llama.stream(ASK))


def test_a_stream_that_just_ends_is_no_answer(fake, llama):
    piece = json.dumps({"choices": [{"delta": {"content": "half"}}]})
    fake.answer = lambda handler: handler.reply(200, f"data: {piece}\n\n", kind="text/event-stream")
    pieces = llama.stream(ASK)
    assert next(pieces).text == "half"
    with pytest.raises(BadResponse, match="finish reason"):
        next(pieces)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 500, "message": "gone"}, ServerFault),
        ({"code": 400, "message": "too long", "type": "exceed_context_size_error"}, ContextOverflow),
        ("gone", ServerFault),
    ],
)
def test_an_error_inside_a_stream_is_an_error(fake, llama, error, expected):
    text = f"data: {json.dumps({'error': error})}\n\n"
    fake.answer = lambda handler: handler.reply(200, text, kind="text/event-stream")
    with pytest.raises(expected):
        list(llama.stream(ASK))


def test_a_connection_that_breaks_is_a_fault_of_the_server(fake, llama):
    fake.answer = lambda handler: handler.reply(200, ": half", kind="text/event-stream", Content_Length="500")
    both(llama, ServerFault)
    fake.answer = lambda handler: handler.connection.close()
    both(llama, ServerFault)


def test_a_server_that_is_silent_times_out(fake, llama):
    fake.answer = lambda handler: time.sleep(1)
    both(llama, TimedOut, Request(ASK.messages, timeout=0.2))


def test_a_server_that_drips_times_out_all_the_same(fake, llama):
    def drip(handler: FakeHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for _ in range(30):
            try:
                handler.wfile.write(b": still here\n\n")
            except OSError:
                return
            time.sleep(0.1)

    fake.answer = drip
    started = time.monotonic()
    with pytest.raises(TimedOut):
        list(llama.stream(Request(ASK.messages, timeout=0.4)))
    assert time.monotonic() - started < 2


def test_a_server_that_falls_silent_in_its_answer_has_no_second_timeout(fake, llama):
    def stall(handler: FakeHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        time.sleep(0.4)
        handler.wfile.write(b":")
        time.sleep(1)

    fake.answer = stall
    started = time.monotonic()
    both(llama, TimedOut, Request(ASK.messages, timeout=0.5))
    assert time.monotonic() - started < 1.4


@pytest.mark.parametrize("way", ["generate", "stream", "agenerate", "astream", "score"])
def test_all_routes_of_a_call_share_its_timeout(fake, llama, way):
    def slow(handler: FakeHandler) -> None:
        time.sleep(0.3)
        answering(routes={"/v1/models": LISTED, "/apply-template": {"prompt": "x"}, "/tokenize": {"tokens": [1]}})(
            handler
        )

    fake.answer = slow
    request = Request((*ASK.messages, Message.assistant("well")), timeout=0.7)
    ask = {
        "generate": lambda: llama.generate(request),
        "stream": lambda: list(llama.stream(request)),
        "agenerate": lambda: asyncio.run(llama.agenerate(request)),
        "astream": lambda: asyncio.run(all_of(llama.astream(request))),
        "score": lambda: llama.score(request, ["yes"]),
    }[way]
    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"within 0\.7 s"):
        ask()
    assert 0.6 < time.monotonic() - started < 1


async def all_of(pieces):
    return [piece async for piece in pieces]


def test_close_ends_calls_of_event_loops_too(fake, llama):
    fake.answer = lambda handler: time.sleep(1)

    async def ask():
        call = asyncio.create_task(llama.agenerate(ASK))
        while not fake.seen:
            await asyncio.sleep(0.01)
        llama.close()
        return await call

    started = time.monotonic()
    with pytest.raises(OsportError):
        asyncio.run(ask())
    assert time.monotonic() - started < 0.8


def test_what_cannot_be_written_as_text_is_a_usage_error(fake, llama):
    tool = Tool("weather", "tells \ud834 it")
    fake.answer = lambda handler: handler.reply(200, json.dumps({"chat_template": "{{ tools }}"}))
    with pytest.raises(UsageError, match="surrogate"):
        llama.generate(Request(ASK.messages, tools=(tool,)))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "invalid_api_key"}, AuthFailed),
        ({"code": "model_not_found"}, ModelNotFound),
        ({"type": "invalid_request_error"}, BadRequest),
        ({"code": "rate_limit_exceeded"}, RateLimited),
        ({"code": 0}, ServerFault),
    ],
)
def test_an_error_behind_a_200_is_what_its_words_say(fake, llama, error, expected):
    fake.answer = lambda handler: handler.reply(200, json.dumps({"error": {"message": "no", **error}}))
    both(llama, expected)


def test_nobody_listens():
    with LlamaServerBackend("http://127.0.0.1:9") as backend:
        both(backend, Unreachable)
        with pytest.raises(Unreachable):
            backend.facts()
        with pytest.raises(Unreachable):
            backend.count_tokens(ASK.messages)


def test_a_server_of_another_kind_is_recognised(fake, llama):
    fake.answer = lambda handler: handler.reply(200, '["a", "list"]')
    with pytest.raises(BadResponse, match=r"not that of a llama\.cpp server"):
        llama.facts()
    with pytest.raises(BadResponse, match="'prompt'"):
        llama.count_tokens(ASK.messages)


def test_a_server_by_url_never_sees_the_other_dialect(fake, llama):
    schema = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "string"}}}
    with pytest.raises(BadResponse):
        llama.generate(Request(ASK.messages, constraint=Constraint("json_schema", schema)))
    path, headers, body = fake.seen[-1]
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", f"Bearer {SECRET}")
    assert "grammar" not in body
    assert list(body["json_schema"]["properties"]) == ["z", "a"]


def test_the_base_of_the_routes_may_be_given_with_v1(fake):
    with LlamaServerBackend(f"{fake.url}/v1/") as backend, pytest.raises(BadResponse):
        backend.generate(ASK)
    assert fake.seen[-1][0] == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", ServerFault),
        ("rate_limit_error", RateLimited),
        ("invalid_request_error", BadRequest),
        ("api_error", ServerFault),
    ],
)
def test_an_error_event_of_the_messages_api_is_an_error(fake, kind, expected):
    event = json.dumps({"type": "error", "error": {"type": kind, "message": "so it is"}})
    text = f"event: error\ndata: {event}\n\n"
    fake.answer = lambda handler: handler.reply(200, text, kind="text/event-stream")
    with (
        AnthropicBackend(f"m@{fake.url}", api_key=lambda: SECRET) as claude,
        pytest.raises(expected, match="so it is"),
    ):
        list(claude.stream(ASK))


@pytest.mark.parametrize(
    ("status", "expected"), [(400, BadRequest), (429, RateLimited), (529, ServerFault), (404, ModelNotFound)]
)
def test_a_status_of_the_messages_api_has_its_error_and_is_not_retried(fake, status, expected):
    body = json.dumps({"type": "error", "error": {"type": "x", "message": "so it is"}})
    fake.answer = lambda handler: handler.reply(status, body, Retry_After="3")
    with (
        AnthropicBackend(f"m@{fake.url}", api_key=lambda: SECRET) as claude,
        pytest.raises(expected, match="so it is") as caught,
    ):
        claude.generate(ASK)
    assert caught.value.status == status
    assert caught.value.retry_after == (3.0 if caught.value.retryable else None)
    assert len(fake.seen) == 1


@pytest.mark.parametrize("body", ["[1]", '"text"', "7", '{"type": "message"}'])
def test_what_is_no_message_is_not_taken_for_one(fake, body):
    fake.answer = lambda handler: handler.reply(200, body)
    with AnthropicBackend(f"m@{fake.url}", api_key=lambda: SECRET) as claude:
        with pytest.raises(BadResponse):
            claude.generate(ASK)
        fake.answer = lambda handler: handler.reply(200, "data: {}\n\n", kind="text/event-stream")
        with pytest.raises(BadResponse):
            claude.generate(ASK)


@pytest.mark.parametrize("way", ["agenerate", "astream"])
def test_a_cancelled_call_of_the_messages_api_closes_its_connection(fake, way):
    asked, closed = threading.Event(), threading.Event()

    def silent(handler: FakeHandler) -> None:
        handler.connection.settimeout(5)
        asked.set()
        if handler.connection.recv(1) == b"":
            closed.set()

    async def all_of(pieces: AsyncIterator[Delta]) -> list[Delta]:
        return [piece async for piece in pieces]

    async def give_up(claude: AnthropicBackend) -> bool:
        task = asyncio.create_task(claude.agenerate(ASK) if way == "agenerate" else all_of(claude.astream(ASK)))
        assert await asyncio.to_thread(asked.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await asyncio.to_thread(closed.wait, 3)

    fake.answer = silent
    with AnthropicBackend(f"m@{fake.url}", api_key=lambda: SECRET, timeout=20) as claude:
        assert asyncio.run(give_up(claude))


@pytest.mark.parametrize("way", ["agenerate", "astream"])
def test_the_messages_api_that_drips_times_out_for_asyncio_too(fake, way):
    def drip(handler: FakeHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream" if way == "astream" else "application/json")
        handler.end_headers()
        for _ in range(30):
            try:
                handler.wfile.write(b": still here\n\n" if way == "astream" else b" ")
            except OSError:
                return
            time.sleep(0.1)

    async def answer(claude: AnthropicBackend) -> object:
        late = Request(ASK.messages, timeout=0.4)
        return await claude.agenerate(late) if way == "agenerate" else [piece async for piece in claude.astream(late)]

    fake.answer = drip
    with AnthropicBackend(f"m@{fake.url}", api_key=lambda: SECRET) as claude:
        started = time.monotonic()
        with pytest.raises(TimedOut, match=r"0\.4 s"):
            asyncio.run(answer(claude))
        assert time.monotonic() - started < 2


def test_an_answer_of_another_kind_is_refused_for_asyncio_too(fake):
    fake.answer = lambda handler: handler.reply(200, "<html>", kind="text/html")
    with (
        AnthropicBackend(f"m@{fake.url}", api_key=lambda: SECRET) as claude,
        pytest.raises(BadResponse, match="text/html"),
    ):
        asyncio.run(claude.agenerate(ASK))


def test_a_prompt_without_spaces_that_was_cut_is_noticed_by_the_messages_api(fake):
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "ok"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 20, "output_tokens": 1},
    }
    fake.answer = lambda handler: handler.reply(200, json.dumps(body))
    with AnthropicBackend(f"m@{fake.url}", api_key=lambda: SECRET) as claude, pytest.raises(ContextOverflow):
        claude.generate(Request((Message.user("\N{CJK UNIFIED IDEOGRAPH-6D77}" * 2000),)))


def test_claude_says_too_long_in_words_only(fake):
    message = "prompt is too long: 210000 tokens > 200000 maximum"
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message}})
    fake.answer = lambda handler: handler.reply(400, body)
    with AnthropicBackend(f"m@{fake.url}", api_key=lambda: SECRET) as claude, pytest.raises(ContextOverflow):
        claude.generate(ASK)


def test_cache_tokens_of_the_messages_api_are_part_of_the_prompt(fake):
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "pos"}],
        "stop_reason": "refusal",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "output_tokens": 2,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 20,
        },
    }
    fake.answer = lambda handler: handler.reply(200, json.dumps(body))
    with AnthropicBackend(f"m@{fake.url}", api_key=lambda: SECRET) as claude:
        completion = claude.generate(ASK)
    assert (completion.usage.prompt_tokens, completion.usage.cached_tokens) == (125, 20)
    assert (completion.text, completion.reasoning, completion.finish_reason) == ("pos", "hm", "refusal")


def answering(model="m", prompt_tokens=5, text="hello", routes=None):
    """A server that answers every question, and what stands in ``routes``."""

    def answer(handler):
        routed = (routes or {}).get(handler.path)
        body = routed or {
            "model": model,
            "choices": [{"finish_reason": "stop", "message": {"content": text}}],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 1},
        }
        handler.reply(200, json.dumps(body))

    return answer


LISTED = {"data": [{"id": "served", "aliases": ["nickname"]}]}


def test_another_model_behind_the_same_url_is_noticed(fake, llama):
    fake.answer = answering("nickname", routes={"/v1/models": LISTED})
    assert llama.generate(ASK).model == "nickname"
    fake.answer = answering("other", routes={"/v1/models": LISTED})
    with pytest.raises(BadResponse, match="'served', answered by 'other'"):
        llama.generate(ASK)


def test_a_model_that_changes_is_noticed_where_the_server_lists_none(fake, llama):
    fake.answer = answering("first")
    llama.generate(ASK)
    fake.answer = answering("second")
    with pytest.raises(BadResponse, match="'first', answered by 'second'"):
        llama.generate(ASK)


def test_a_prompt_that_was_cut_in_silence_is_an_overflow(fake, llama):
    tokens = list(range(3000))
    routes = {
        "/props": {"default_generation_settings": {"n_ctx": 2048}},
        "/apply-template": {"prompt": "long"},
        "/tokenize": {"tokens": tokens},
    }
    long = Request((Message.user("word " * 3000),))
    fake.answer = answering(prompt_tokens=1024, routes=routes)
    with pytest.raises(ContextOverflow, match="3000 tokens and the engine read 1024"):
        llama.generate(long)
    fake.answer = answering(prompt_tokens=3000, routes=routes)
    assert llama.generate(long).text == "hello"


def test_a_short_prompt_costs_no_count(fake, llama):
    fake.answer = answering(prompt_tokens=5, routes={"/props": {"default_generation_settings": {"n_ctx": 2048}}})
    llama.generate(ASK)
    assert "/tokenize" not in [path for path, _, _ in fake.seen]


def test_the_reasoning_is_found_under_each_of_its_names(fake, llama):
    for name in ("reasoning_content", "reasoning", "thinking"):
        message = {"content": "so", name: "because"}
        body = {"choices": [{"finish_reason": "stop", "message": message}]}
        fake.answer = lambda handler, body=body: handler.reply(200, json.dumps(body))
        assert llama.generate(ASK).reasoning == "because"


def test_log_probabilities_that_are_not_those_asked_for_are_refused(fake, llama):
    entry = {"id": 7, "token": "x", "logprob": -1.0, "top_logprobs": []}
    for probabilities in ({}, {"completion_probabilities": []}, {"completion_probabilities": [entry]}):
        routes = {"/tokenize": {"tokens": [1, 2]}, "/apply-template": {"prompt": "p"}, "/completion": probabilities}
        seen = iter(([1], [1, 2]))

        def answer(handler, routes=routes, seen=seen):
            body = {"tokens": next(seen)} if handler.path == "/tokenize" else routes[handler.path]
            handler.reply(200, json.dumps(body))

        fake.answer = answer
        with pytest.raises(BadResponse):
            llama.score(ASK, ["yes"])


WEATHER = Tool("weather", "tells it", {"type": "object", "properties": {"city": {"type": "string"}}})
WHOLE, CUT = '{"city": "Bern"}', '{"ci'


@pytest.mark.parametrize("backend", ["llama_server", "openai"])
@pytest.mark.parametrize(
    ("called", "finish", "asked", "error", "words"),
    [
        ([("weather", WHOLE)], "tool_calls", {"tool_choice": "required"}, None, ""),
        ([("weather", CUT)], "length", {}, Truncated, "cut off"),
        ([("weather", CUT)], "stop", {}, OutputError, "not JSON"),
        ([("weather", WHOLE)] * 2, "tool_calls", {}, None, ""),
        ([("weather", WHOLE)] * 2, "tool_calls", {"parallel_tools": False}, BadResponse, "parallel_tools=False"),
        ([("rm", "{}")], "tool_calls", {}, OutputError, "none of the tools"),
        ([("weather", WHOLE)], "tool_calls", {"tools": ()}, OutputError, "none of the tools"),
        ([("weather", WHOLE)], "tool_calls", {"tool_choice": "none"}, BadResponse, "tool_choice='none' was ignored"),
        ([], "stop", {"tool_choice": "required"}, BadResponse, "called none"),
        ([], "length", {"tool_choice": "required"}, None, ""),
        ([], "stop", {"tool_choice": "weather"}, BadResponse, "called none"),
        ([], "stop", {}, None, ""),
    ],
)
def test_calls_are_judged_alike_whoever_the_server_is(fake, backend, called, finish, asked, error, words):
    entries = [
        {"index": place, "id": f"c{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for place, (name, arguments) in enumerate(called)
    ]
    answer = {
        "id": "1",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"content": "", "tool_calls": entries}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 9},
    }
    props = {"chat_template": "{{ tools }}", "default_generation_settings": {"n_ctx": 4096}}
    about = {"/props": props, "/v1/models": {"data": [{"id": "m"}]}}
    fake.answer = lambda handler: handler.reply(200, json.dumps(about.get(handler.path, answer)))
    request = Request(**{"messages": ASK.messages, "tools": (WEATHER,), **asked})
    opened = LlamaServerBackend(fake.url) if backend == "llama_server" else OpenAIBackend(f"m@{fake.url}/v1")
    with opened as engine:
        if error is None:
            completion = engine.generate(request)
            assert [call.name for call in completion.tool_calls] == [name for name, _ in called]
            assert completion.finish_reason == finish
        else:
            with pytest.raises(error, match=words) as caught:
                engine.generate(request)
            assert type(caught.value) is error

"""Every lie of the fake server, told to every backend over HTTP, is caught by name; the truth passes."""

from __future__ import annotations

import asyncio
import time
import traceback

import pytest

from osport import ConstrainedOutput, Model, Request, Retries, Tool
from osport.backends._vllm_server import VllmServer
from osport.errors import (
    AuthFailed,
    BadResponse,
    ConstraintViolated,
    ContextOverflow,
    ModelNotFound,
    OsportError,
    ServerFault,
    TimedOut,
    UsageError,
)
from osport.testing.fake_server import SPEECH, FakeServer

KEY = "sk-very-secret"
PROMPT = "Tell me in many words what the sea is like when the wind comes up and the birds go home. " * 8
YES_OR_NO = ConstrainedOutput.json_schema(
    {
        "type": "object",
        "properties": {"wet": {"enum": ["yes", "no"]}},
        "required": ["wet"],
        "additionalProperties": False,
    }
)
WEATHER = Tool(
    "weather", "tells the weather", {"type": "object", "properties": {"city": {"enum": ["Bern"]}}, "required": ["city"]}
)


def opened(backend: str, server: FakeServer, **options: object) -> Model:
    options = {"api_key": lambda: KEY, **options}
    once = Retries(most=0)
    if backend == "vllm":
        return Model(VllmServer(f"{server.model}@{server.url}/v1", **options), retries=once)
    reference = {
        "openai": f"openai:{server.model}@{server.url}/v1",
        "ollama": f"ollama:{server.model}@{server.url}",
        "anthropic": f"anthropic:{server.model}@{server.url}",
        "llama_server": server.url,
    }[backend]
    return Model(reference, retries=once, **options)


EVERYONE = ("openai", "vllm", "ollama", "llama_server", "anthropic")


def ways(model: Model) -> dict[str, object]:
    """Each way to ask once."""

    async def asked(**options):
        return await model.agenerate(PROMPT, **options)

    async def streamed(**options):
        return [piece async for piece in model.astream(PROMPT, **options)][-1].completion

    return {
        "generate": lambda **options: model.generate(PROMPT, **options),
        "stream": lambda **options: list(model.stream(PROMPT, **options))[-1].completion,
        "agenerate": lambda **options: asyncio.run(asked(**options)),
        "astream": lambda **options: asyncio.run(streamed(**options)),
    }


ASK_FOR_A_CALL = {"tools": [WEATHER], "tool_choice": "required"}
CAUGHT = [
    ("truncates_prompt", ContextOverflow, "cut", {}, EVERYONE),
    ("other_model", BadResponse, "another-model", {}, ("openai", "vllm", "ollama", "anthropic")),
    ("dies_midway", ServerFault, "broke", {}, EVERYONE),
    ("error_after_200", ServerFault, "out of memory", {}, EVERYONE),
    ("malformed", BadResponse, "not JSON", {}, EVERYONE),
    ("slow_drip", TimedOut, r"within 0\.\d+ s \(timeout\)", {"timeout": 0.4}, EVERYONE),
    ("drips_headers", TimedOut, r"within 0\.\d+ s \(timeout\)", {"timeout": 0.4}, EVERYONE),
    ("no_usage", BadResponse, "usage|output_tokens", {}, ("openai", "vllm", "ollama", "anthropic")),
    ("wrong_content_type", BadResponse, "text/html", {}, EVERYONE),
    ("ignores_logprobs", BadResponse, "log", {"logprobs": 2}, ("openai", "vllm", "ollama", "llama_server")),
    (
        "ignores_tool_choice",
        BadResponse,
        "called none",
        {"tools": [WEATHER], "tool_choice": "required"},
        ("openai", "vllm"),
    ),
    ("echoes_key", AuthFailed, "the key", {}, EVERYONE),
    ("key_in_answer", BadResponse, "answer|whole|message", {}, EVERYONE),
]


@pytest.mark.parametrize(("lie", "error", "words", "options", "backend"), [
    pytest.param(lie, error, words, options, backend, id=f"{lie}-{backend}")
    for lie, error, words, options, backends in CAUGHT
    for backend in backends
])  # fmt: skip
def test_a_lie_is_caught_by_name(lie, error, words, options, backend):
    with FakeServer(lies=[lie]) as server, opened(backend, server) as model:
        for way, ask in ways(model).items():
            began = time.monotonic()
            with pytest.raises(error, match=words) as caught:
                ask(**options)
            assert type(caught.value) is error, way
            shown = "".join(traceback.format_exception(caught.value))
            assert KEY not in f"{shown} {caught.value!r} {vars(caught.value)} {model!r} {model.backend!r}"
            assert time.monotonic() - began < (1.5 if "timeout" in options else 5)


@pytest.mark.parametrize("backend", EVERYONE)
def test_the_truth_passes(backend):
    with FakeServer(api_key=KEY) as server, opened(backend, server) as model:
        answers = {way: ask() for way, ask in ways(model).items()}
        assert {answer.text for answer in answers.values()} == {SPEECH}
        assert {answer.finish_reason for answer in answers.values()} == {"stop"}
        assert len({answer.usage for answer in answers.values()}) == 1
        assert model.generate(PROMPT, max_tokens=5).finish_reason == "length"
        assert model.generate(PROMPT, stop=["deep"]).text == "The sea is wide and "


@pytest.mark.parametrize("backend", ["openai", "vllm", "ollama", "llama_server"])
def test_a_form_is_kept_or_its_loss_is_seen(backend):
    with FakeServer() as server, opened(backend, server) as model:
        assert model.generate(PROMPT, output=YES_OR_NO).parsed == {"wet": "yes"}
    with FakeServer(lies=["drops_constraint"]) as server, opened(backend, server) as model:
        with pytest.raises(ConstraintViolated):
            model.generate(PROMPT, output=YES_OR_NO)
        with pytest.raises(ConstraintViolated):
            list(model.stream(PROMPT, output=YES_OR_NO))


@pytest.mark.parametrize("backend", EVERYONE)
def test_a_stream_without_an_end_is_no_answer(backend):
    with FakeServer(lies=["no_end"]) as server, opened(backend, server) as model:
        for way in ("stream", "astream"):
            with pytest.raises(BadResponse):
                ways(model)[way]()


@pytest.mark.parametrize("backend", EVERYONE)
def test_a_cancelled_task_does_not_wait_for_its_answer(backend):
    with FakeServer(lies=["slow_drip"]) as server, opened(backend, server) as model:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(model.agenerate(PROMPT, timeout=5), 0.3))
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("backend", EVERYONE)
def test_a_redirect_is_not_followed_and_takes_no_key_along(backend):
    with FakeServer() as elsewhere, FakeServer(lies=["redirects"], redirect_to=elsewhere.url) as server:
        with opened(backend, server) as model:
            for ask in ways(model).values():
                with pytest.raises(BadResponse, match="redirect"):
                    ask()
        assert elsewhere.requests == []
        assert server.requests


@pytest.mark.parametrize("backend", ["openai", "vllm", "ollama", "anthropic"])
def test_a_model_that_is_not_there_is_named(backend):
    with FakeServer() as server:
        server.model, there = "no-such-model", server.model
        model = opened(backend, server)
        server.model = there
        with model, pytest.raises(ModelNotFound, match="no-such-model"):
            model.generate(PROMPT)


@pytest.mark.parametrize("backend", EVERYONE)
def test_a_prompt_that_does_not_fit_is_an_overflow(backend):
    with FakeServer(context=64) as server, opened(backend, server) as model, pytest.raises(ContextOverflow):
        model.generate(PROMPT)


@pytest.mark.parametrize("backend", ["openai", "vllm"])
def test_a_tool_is_called(backend):
    with FakeServer() as server, opened(backend, server) as model:
        for choice in ("required", "weather"):
            for ask in ways(model).values():
                answer = ask(tools=[WEATHER], tool_choice=choice)
                assert [(call.name, call.arguments) for call in answer.tool_calls] == [("weather", {"city": "Bern"})]
                assert answer.finish_reason == "tool_calls"
        assert model.generate(PROMPT, tools=[WEATHER]).tool_calls == ()


def test_a_raw_prompt_and_its_logprobs():
    for backend in ("openai", "vllm", "ollama"):
        with FakeServer() as server, opened(backend, server) as model:
            answer = model.generate(Request(prompt="The sea"), logprobs=1)
            assert answer.text == SPEECH
            assert "".join(token.token for token in answer.logprobs) == SPEECH
            assert answer.logprobs_from == "model"
            assert answer.logprobs[0].top == {"The": -0.5}
            assert model.generate(Request(prompt="The sea"), logprobs=0).logprobs[0].top == {}


def test_a_lie_that_is_none_is_refused():
    with pytest.raises(UsageError, match="white_lie"):
        FakeServer(lies=["white_lie"])


def test_what_a_fake_cannot_enforce_it_refuses():
    with (
        FakeServer() as server,
        opened("vllm", server) as model,
        pytest.raises(OsportError, match="enforces no grammar"),
    ):
        model.generate(PROMPT, output=ConstrainedOutput.regex("[a-c]{3}"))

"""The base of OpenAI-like backends: what is sent, what is refused, what is read out of an answer."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from osport import Message, Request, Sampling, Tool, ToolCall
from osport.backends._chat_checks import thinking_heeded
from osport.backends._chat_wire import ChatAnswer
from osport.backends._http_errors import error_from_answer
from osport.backends._vllm_server import VllmServer
from osport.backends.openai import OpenAIBackend
from osport.backends.openai_compat import OpenAICompatBackend
from osport.errors import BadResponse, ContextOverflow, OutputError, UnsupportedFeature, UsageError
from osport.plugin import Constraint
from osport.testing.fake_server import FakeServer

ASK = Request((Message.user("How wide is the sea?"),))


class Lab(OpenAICompatBackend):
    name = "lab"
    dialect = ""
    sampling = {"max_tokens": "limit", "temperature": "heat"}
    always = {"top_z": 0}
    text_route = False
    tools = images = logprobs = False
    prefill = {"go_on": True}
    reasoning_as = "thoughts"


def sent_by(backend: type, request: Request, **options: object) -> dict[str, object]:
    with FakeServer() as server, backend(f"fake-model@{server.url}/v1", **options) as engine:
        engine.generate(request)
        return next(request.body for request in server.requests if request.path.endswith("completions"))


def test_eight_lines_make_a_backend():
    body = sent_by(Lab, Request(ASK.messages, sampling=Sampling(max_tokens=5)))
    assert body == {
        "model": "fake-model",
        "messages": [{"role": "user", "content": "How wide is the sea?"}],
        "limit": 5,
        "heat": 0.0,
        "top_z": 0,
    }
    assert Lab.features == {"chat", "stream", "prefill", "max_tokens", "temperature"}
    able = Lab("m@http://127.0.0.1:9").capabilities()
    assert (able.sampling, able.constraints, able.raw_prompt) == ({"max_tokens", "temperature"}, frozenset(), False)
    assert (able.prefill, able.tools, able.images, able.logprobs, able.thinking) == (True, False, False, False, False)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"thinking_by": "reasoning"}, "thinking_by='reasoning': one of .*chat_template_kwargs"),
        ({"sampling": {"temprature": "temperature"}}, r"sampling: \['temprature'\]: the names are .*'temperature'"),
        ({"dialect": "nonsense"}, "dialect='nonsense'"),
    ],
)
def test_what_a_class_declares_wrongly_is_refused_when_it_is_made(attributes, told):
    with pytest.raises(UsageError, match=told):
        type("Bad", (OpenAICompatBackend,), attributes)


def test_a_class_without_a_name_makes_no_backend():
    class Nameless(OpenAICompatBackend):
        pass

    with pytest.raises(UsageError, match="Nameless has no name"):
        Nameless("m@http://127.0.0.1:9/v1")


def test_a_prefill_and_earlier_reasoning_have_their_fields():
    turns = (Message.user("a"), Message("assistant", "b", reasoning="because"))
    body = sent_by(Lab, Request(turns))
    assert body["go_on"] is True
    assert body["messages"][1] == {"role": "assistant", "content": "b", "thoughts": "because"}
    with pytest.raises(UnsupportedFeature, match="reasoning of an earlier turn"):
        sent_by(OpenAIBackend, Request((*turns, Message.user("c"))))


def test_a_conversation_with_images_and_tools_in_the_servers_words():
    call = ToolCall("call-1", "weather", {"city": "Zürich"})
    tool = Tool("weather", "tells it", {"type": "object", "properties": {"city": {"type": "string"}}})
    turns = (
        Message("user", "See:", images=("data:image/png;base64,AAAA",)),
        Message.assistant("", tool_calls=[call]),
        Message.tool("rain", tool_call_id="call-1"),
    )
    body = sent_by(OpenAIBackend, Request(turns, tools=(tool,), tool_choice="weather", parallel_tools=False))
    user, assistant, result = body["messages"]
    assert user["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "See:"},
    ]
    assert assistant["content"] is None
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"city": "Zürich"}
    assert result == {"role": "tool", "content": "rain", "tool_call_id": "call-1"}
    assert body["tools"][0]["function"]["parameters"] == tool.parameters
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("thinking", "fields"),
    [
        (None, {}),
        (True, {"reasoning_effort": "medium"}),
        (False, {"reasoning_effort": "none"}),
        ("high", {"reasoning_effort": "high"}),
    ],
)
def test_thinking_as_an_effort(thinking, fields):
    assert OpenAIBackend("m@http://127.0.0.1:9").thinking_fields(thinking) == fields


def test_a_thinking_budget_without_a_field_is_refused():
    backend = OpenAIBackend("m@http://127.0.0.1:9")
    with pytest.raises(UnsupportedFeature, match="budget of 100 tokens"):
        backend.thinking_fields(100)
    with pytest.raises(UsageError, match="minimal, low"):
        backend.thinking_fields("much")


def test_vllm_refuses_a_switch_that_the_template_does_not_have():
    with FakeServer() as server, VllmServer(f"fake-model@{server.url}") as backend:
        with pytest.raises(UnsupportedFeature, match="no switch"):
            backend.thinking_fields(True)
        one, other = (request.body["chat_template_kwargs"] for request in server.requests)
        assert one != other


def test_vllm_scores_the_tokens_of_the_continuation_alone():
    with FakeServer() as server, VllmServer(f"fake-model@{server.url}") as backend:
        first, second = backend.score(ASK, [" wide", " very very deep"])
    assert (first.text, first.logprob, len(second.tokens)) == (" wide", -0.5, 3)
    assert [token.token for token in second.tokens] == [" very", " very", " deep"]
    bodies = [request.body for request in server.requests if request.path == "/v1/completions"]
    assert all("truncate_prompt_tokens" not in body and body["prompt_logprobs"] == 0 for body in bodies)


def test_vllm_counts_where_a_prompt_may_have_been_cut_and_only_there():
    with FakeServer(context=40) as server, VllmServer(f"fake-model@{server.url}") as backend:
        assert backend.generate(Request((Message.user("hi"),), sampling=Sampling(max_tokens=2))).text
        assert "/tokenize" not in [request.path for request in server.requests]
        backend.generate(Request((Message.user("abcdefghijklmnopqrstuvwxyz " * 3),), sampling=Sampling(max_tokens=2)))
        assert "/tokenize" in [request.path for request in server.requests]
    with FakeServer(context=40, lies=["truncates_prompt"], speech="yes") as server:
        # So few words that only the exact count shows the loss: 13 tokens, of which 4 were read.
        backend = VllmServer(f"fake-model@{server.url}")
        with backend, pytest.raises(ContextOverflow, match="has 13 tokens and the engine read 4"):
            backend.generate(Request((Message.user("a " * 3 + "x" * 40), Message.assistant("b"), Message.user("c"))))


def test_vllm_takes_constraints_by_their_present_name():
    choice = Request(ASK.messages, constraint=Constraint("choice", ("yes", "no")))
    body = sent_by(VllmServer, choice)
    assert body["structured_outputs"] == {"grammar": '%llguidance {}\nstart: "yes" | "no"'}
    assert not [name for name in body if name.startswith("guided")]
    with FakeServer() as server, VllmServer(f"fake-model@{server.url}") as backend:
        answer = backend.generate(choice)
        assert (answer.text, answer.enforcement.by) == ("yes", "server")


def test_openai_itself_has_names_and_limits_of_its_own(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    service = OpenAIBackend("gpt-4o")
    assert service._endpoint.url == "https://api.openai.com"
    assert service.sampling["max_tokens"] == "max_completion_tokens"
    assert service.capabilities().constraint_engine == "openai-strict"
    assert not service.capabilities().raw_prompt
    assert OpenAIBackend("o3-mini").capabilities().sampling == {"max_tokens"}
    elsewhere = OpenAIBackend("o3-mini@http://127.0.0.1:9")
    assert elsewhere.sampling["max_tokens"] == "max_tokens"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert OpenAIBackend("gpt-4o")._endpoint.url == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("http://a", "http://a/v1"),
        ("http://a/v1/", "http://a/v1"),
        ("https://a/api/v1", "https://a/api/v1"),
        ("https://a/v1beta/openai", "https://a/v1beta/openai"),
    ],
)
def test_the_routes_stand_below_the_url(url, route):
    backend = OpenAIBackend(f"m@{url}")
    assert backend._endpoint.url + backend._routes == route


@pytest.mark.parametrize("reference", ["", "@http://a/v1", "m@http://", "m@http://a:0", "m@http://a/?key=1"])
def test_a_reference_without_model_or_server_is_refused(reference):
    with pytest.raises(UsageError):
        OpenAIBackend(reference)
    with pytest.raises(UsageError, match="did you mean 'timeout'"):
        OpenAIBackend("m", time_out=3)
    with pytest.raises(UsageError, match="its server"):
        Lab("m")


def answer_of(*messages: dict[str, object]) -> ChatAnswer:
    answer = ChatAnswer("lab")
    for message in messages:
        answer.take({"choices": [{"delta": message}]})
    return answer


def test_reasoning_is_read_under_its_four_names():
    for name in ("reasoning_content", "reasoning", "thinking"):
        assert answer_of({name: "so "}, {name: "it is", "content": "yes"}).reasoning == "so it is"
    blocks = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}]
    answer = answer_of({"content": blocks})
    assert (answer.reasoning, answer.text) == ("hm", "yes")


def test_a_thought_in_the_text_shows_that_the_switch_was_ignored():
    asked = evolve(ASK, thinking=False)
    thinking_heeded(answer_of({"content": "yes <think>"}), asked, "lab")
    with pytest.raises(UnsupportedFeature, match="reasoned nevertheless"):
        thinking_heeded(answer_of({"content": "\n<think>hm</think>yes"}), asked, "lab")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("content_filter", "refusal"),
        ("x", "unknown"),
    ],
)
def test_a_finish_reason_has_our_name(word, reason):
    answer = ChatAnswer("lab")
    answer.take({"choices": [{"message": {"content": "a"}, "finish_reason": word}]})
    assert answer.finish == reason


def test_a_refusal_is_one():
    answer = answer_of({"refusal": "I will not"})
    assert (answer.finish, answer.text) == ("refusal", "I will not")


def test_logprobs_in_the_older_shape():
    answer = ChatAnswer("lab", alternatives=1)
    old = {"tokens": ["a", "b"], "token_logprobs": [-0.1, -2], "top_logprobs": [{"x": -3.0, "a": -0.1}, None]}
    answer.take({"choices": [{"text": "ab", "logprobs": old}]})
    assert [(one.token, one.logprob, one.top) for one in answer.logprobs] == [("a", -0.1, {"a": -0.1}), ("b", -2.0, {})]


@pytest.mark.parametrize("payload", [
    None, [], {}, {"choices": [{"message": {"content": 7}}]}, {"choices": [], "model": 5},
    {"choices": [], "usage": {"prompt_tokens": "9"}}, {"choices": [], "usage": {"prompt_tokens": True}},
    {"choices": [{"message": {"tool_calls": [{"index": None}]}}]},
])  # fmt: skip
def test_what_is_no_answer_is_not_taken_for_one(payload):
    with pytest.raises(BadResponse):
        ChatAnswer("lab").take(payload)


def test_arguments_that_are_no_object_are_an_error_with_the_answer():
    answer = answer_of({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "[1"}}]})
    with pytest.raises(OutputError, match="'f'"):
        answer.tool_calls.calls()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"code": "context_length_exceeded", "message": "too much"}),
        (400, {"message": "This model's maximum context length is 1024 tokens. However, you requested 3000"}),
        (400, {"type": "exceed_context_size_error", "message": "x"}),
        (400, {"message": "prompt is too long: 210000 tokens > 200000 maximum"}),
        (400, "the input length exceeds the context length"),
        (500, "input exceeds the available context size"),
    ],
)
def test_a_prompt_that_is_too_long_has_many_words(status, body):
    error = error_from_answer(status, json.dumps({"error": body}), {}, backend="lab", model="m")
    assert type(error) is ContextOverflow


def test_a_server_that_says_odd_things_of_its_model_is_read_as_far_as_it_goes(monkeypatch):
    listed = {"data": [{"id": "fake-model", "meta": [1]}]}
    monkeypatch.setattr(FakeServer, "about", lambda self, path, body: listed)
    with FakeServer() as server, OpenAIBackend(f"fake-model@{server.url}/v1") as backend:
        assert backend.facts()["name"] == "fake-model"

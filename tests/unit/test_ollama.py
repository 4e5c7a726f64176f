"""Ollama's contract, against a fake written from the API's documentation; against a real server where one is named.

``OSPORT_TEST_OLLAMA_URL`` and ``OSPORT_TEST_OLLAMA_MODEL`` name the real one (see docs/backends.md).
"""

from __future__ import annotations

import os
import time

import pytest

from osport import ConstrainedOutput, Message, Model, Request, Sampling, Tool, ToolCall
from osport.backends import _ollama_wire as wire
from osport.backends._chat_wire import ChatAnswer
from osport.backends.ollama import OllamaBackend
from osport.errors import BadResponse, ModelNotFound, TimedOut, UnsupportedFeature, UsageError
from osport.testing import BackendConformance
from osport.testing.fake_server import FakeServer

ASK = Request((Message.user("How wide is the sea?"),))
REAL = os.environ.get("OSPORT_TEST_OLLAMA_URL")


class TestOllamaAgainstTheFake(BackendConformance):
    overflow = "word " * 600
    exceptions = {
        "test_temperature_and_seed_reach_the_engine": "the fake says the same whatever the seed",
        "test_a_form_cut_short_is_truncated": "the fake counts pieces of text as tokens, of which JSON has few",
        "test_a_malformed_form_is_an_error_and_no_more": "the fake does not check schemas",
    }

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def a_fake(cls):
        with FakeServer() as server:
            cls.reference = f"ollama:{server.model}@{server.url}"
            yield


@pytest.mark.skipif(REAL is None, reason="OSPORT_TEST_OLLAMA_URL names no Ollama server")
class TestOllama(BackendConformance):
    reference = f"ollama:{os.environ.get('OSPORT_TEST_OLLAMA_MODEL', 'smollm2:135m')}@{REAL}"
    options = {"context": 512}
    overflow = "word " * 600


def asked(request: Request, **options: object) -> dict[str, object]:
    with FakeServer() as server, OllamaBackend(f"{server.model}@{server.url}", **options) as backend:
        backend.generate(request)
        return server.requests[-1].body


def test_nothing_is_left_to_the_servers_defaults():
    body = asked(Request(ASK.messages, sampling=Sampling(max_tokens=5, seed=3, stop=("x",))), keep_alive="0")
    assert (body["truncate"], body["shift"], body["stream"], body["keep_alive"]) == (False, False, False, 0)
    assert body["options"] == {
        "num_ctx": 512,
        "num_predict": 5,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": 3,
        "stop": ["x"],
        "typical_p": 1.0,
        "repeat_last_n": 64,
        "num_keep": 0,
    }
    assert asked(ASK, context=300)["options"]["num_ctx"] == 300


def test_a_raw_prompt_is_sent_raw():
    body = asked(Request(prompt="The sea"))
    assert (body["prompt"], body["raw"]) == ("The sea", True)


def test_a_schema_goes_into_format_and_the_order_is_told():
    output = ConstrainedOutput.json_schema(
        {"type": "object", "properties": {"b": {"enum": [1]}}, "required": ["b"], "additionalProperties": False}
    )
    with FakeServer() as server, Model(f"ollama:{server.model}@{server.url}") as model:
        answer = model.generate("?", output=output)
        assert server.requests[-1].body["format"]["properties"] == {"b": {"enum": [1]}}
    assert answer.effective["property_order"] == "alphabetical"
    assert (answer.enforcement.by, answer.parsed) == ("server", {"b": 1})


@pytest.mark.parametrize(
    ("thinking", "family", "sent"),
    [
        (None, "qwen3", {}),
        (True, "qwen3", {"think": True}),
        (False, "qwen3", {"think": False}),
        ("low", "qwen3", {"think": "low"}),
        (True, "gptoss", {"think": "medium"}),
    ],
)
def test_the_thinking_switch(thinking, family, sent):
    assert wire.thinking_field(thinking, family) == sent


@pytest.mark.parametrize(("thinking", "family"), [(100, "qwen3"), ("minimal", "qwen3"), (False, "gptoss")])
def test_a_thinking_wish_that_ollama_has_no_way_for_is_refused(thinking, family):
    with pytest.raises(UnsupportedFeature):
        wire.thinking_field(thinking, family)


def test_a_model_that_does_not_think_is_not_asked_to():
    with FakeServer() as server, Model(f"ollama:{server.model}@{server.url}") as model:
        assert (model.capabilities.tools, model.capabilities.thinking, model.capabilities.images) == (
            True,
            False,
            False,
        )
        with pytest.raises(UnsupportedFeature, match="thinking"):
            model.generate("?", thinking=True)


def test_messages_in_ollamas_words():
    call = ToolCall("call-1", "weather", {"city": "Bern"})
    turns = (
        Message("user", "See:", images=("data:image/png;base64,AAAA",)),
        Message("assistant", "", (call,), reasoning="hm"),
        Message.tool("rain", tool_call_id="call-1"),
    )
    user, assistant, result = wire.wire_messages(turns)
    assert user["images"] == ["AAAA"]
    assert assistant["thinking"] == "hm"
    assert assistant["tool_calls"][0]["function"]["arguments"] == {"city": "Bern"}
    assert (result["tool_name"], result["tool_call_id"]) == ("weather", "call-1")
    with pytest.raises(UnsupportedFeature, match="data: URL"):
        wire.wire_messages([Message("user", "See:", images=("https://a/b.png",))])
    with pytest.raises(UsageError, match="answers no call"):
        wire.wire_messages(turns[2:])


def test_a_call_cannot_be_demanded_and_lost_keywords_are_named():
    bounded = {"type": "object", "properties": {"days": {"type": "integer", "minimum": 1}}}
    tool = Tool("weather", "", bounded)
    with pytest.raises(UnsupportedFeature, match="required"):
        wire.tool_fields(Request(ASK.messages, tools=(tool,), tool_choice="required"))
    assert wire.tool_fields(Request(ASK.messages, tools=(tool,), tool_choice="none")) == {}
    with FakeServer() as server, OllamaBackend(f"{server.model}@{server.url}") as backend:
        answer = backend.generate(Request(ASK.messages, tools=(tool,)))
    assert answer.effective["tool_keywords_left_out"] == ("weather: $.properties.days.minimum",)


def test_calls_in_several_lines_stay_apart():
    answer = ChatAnswer("ollama")
    for city in ("Bern", "Basel"):
        part = {"function": {"name": "weather", "arguments": {"city": city}}}
        wire.take(answer, {"message": {"content": "", "tool_calls": [part]}, "done": False})
    assert [call.arguments["city"] for call in answer.tool_calls.calls()] == ["Bern", "Basel"]
    with pytest.raises(BadResponse):
        wire.take(answer, {"no": "message"})


def test_facts_come_from_show():
    with FakeServer() as server, OllamaBackend(f"{server.model}@{server.url}") as backend:
        facts = backend.facts()
    assert (facts["context_length"], facts["license"], facts["quantization"]) == (512, "apache-2.0", "Q0")
    assert facts["engine"] == "Ollama 0.12.11"
    assert facts.fact("ollama_template").source.endswith("/api/show")


def test_a_model_that_is_not_there_is_told_from_those_that_are():
    there = r"there are: smollm2:135m. Fetch it with: ollama pull no-such"
    with FakeServer(model="smollm2:135m") as server, pytest.raises(ModelNotFound, match=there):
        OllamaBackend(f"no-such@{server.url}").generate(ASK)


def test_a_model_that_is_not_there_is_told_though_the_list_of_models_fails(monkeypatch):
    told = FakeServer.about
    monkeypatch.setattr(FakeServer, "about", lambda *a: None if a[1] == "/api/tags" else told(*a))
    with FakeServer() as server, pytest.raises(ModelNotFound, match="no-such"):
        OllamaBackend(f"no-such@{server.url}").generate(ASK)


def test_asking_about_the_model_is_part_of_the_call(monkeypatch):
    told = FakeServer.about

    def slow(server, path, body):
        time.sleep(0.4)
        return told(server, path, body)

    monkeypatch.setattr(FakeServer, "about", slow)
    with FakeServer() as server:
        reference = f"{server.model}@{server.url}"
        for ask in (OllamaBackend(reference).generate, Model(f"ollama:{reference}").generate):
            began = time.monotonic()
            with pytest.raises(TimedOut, match=r"within 0\.6 s"):
                ask(Request(ASK.messages, timeout=0.6))
            assert time.monotonic() - began < 0.9
        with pytest.raises(TimedOut, match=r"within 0\.6 s"):
            OllamaBackend(reference, timeout=0.6).capabilities()


@pytest.mark.parametrize(("payload"), [
    {"model": 5, "done": False}, {"model": "m", "message": {"content": ""}, "done": True, "eval_count": "9"},
])  # fmt: skip
def test_what_is_no_answer_is_not_taken_for_one(payload):
    with pytest.raises(BadResponse):
        wire.take(ChatAnswer("ollama"), payload)


def test_an_old_server_is_refused_before_it_cuts_a_prompt(monkeypatch):
    told = FakeServer.about

    def older(server, path, body):
        return {"version": "0.9.3"} if path == "/api/version" else told(server, path, body)

    monkeypatch.setattr(FakeServer, "about", older)
    with FakeServer() as server, OllamaBackend(f"{server.model}@{server.url}") as backend:
        with pytest.raises(UnsupportedFeature, match=r"0\.12\.11 is the oldest"):
            backend.generate(ASK)
        assert [request.path for request in server.requests] == ["/api/version"]


def test_loading_and_unloading():
    with FakeServer() as server, OllamaBackend(f"{server.model}@{server.url}", keep_alive="1h") as backend:
        for act, kept in ((backend.load, "1h"), (backend.unload, 0)):
            act()
            assert server.requests[-1].path == "/api/generate"
            assert server.requests[-1].body["keep_alive"] == kept


@pytest.mark.parametrize(
    ("host", "url"),
    [("", "http://127.0.0.1:11434"), ("0.0.0.0", "http://127.0.0.1:11434"), ("box:99", "http://box:99"),
     ("https://a.example/", "https://a.example"), (":99", "http://127.0.0.1:99"), ("::1", "http://[::1]:11434"),
     ("[::1]:99", "http://[::1]:99")],
)  # fmt: skip
def test_ollama_host_is_read_as_ollama_reads_it(host, url, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert OllamaBackend("m")._endpoint.url == url


@pytest.mark.parametrize("options", [{"context": 0}, {"context": True}, {"keep_alive": 5}, {"num_ctx": 4096}])
def test_wrong_options_are_refused(options):
    with pytest.raises(UsageError):
        OllamaBackend("m", **options)
    with FakeServer() as server, pytest.raises(UsageError, match="trained with 512"):
        OllamaBackend(f"{server.model}@{server.url}", context=4096).generate(ASK)

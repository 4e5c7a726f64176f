"""The embedded llama.cpp server on a real model: answers, constraints, and what bad input becomes."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time

import httpx
import pytest
from asking import SCHEMA, ask

from osport.backends._llama_wire import sampling_fields
from osport.backends.llama_server import LlamaServerBackend
from osport.errors import (
    AuthFailed,
    BadRequest,
    ContextOverflow,
    FormatError,
    ModelNotFound,
    TemplateError,
    UnsupportedFeature,
    UsageError,
)
from osport.plugin import Constraint, Message, Request, Sampling

pytestmark = pytest.mark.engine


@pytest.fixture
def by_url(server: LlamaServerBackend) -> LlamaServerBackend:
    return LlamaServerBackend(server.endpoint.url, api_key=lambda: server.endpoint.api_key)


def test_an_answer_says_what_it_cost_and_why_it_ended(server):
    completion = server.generate(ask())
    assert completion.text
    assert completion.finish_reason == "length"
    assert completion.usage.completion_tokens == 8
    assert completion.usage.prompt_tokens == server.count_tokens([Message.user("Say hi")])
    assert 0 < completion.latency < 60
    assert completion.backend == "llama_server"


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(server):
    # With the prompt cache, the logits of a prompt seen before differ in their last bits.
    fresh = LlamaServerBackend(server.endpoint.url, api_key=lambda: server.endpoint.api_key, prompt_cache=False)
    first, again, other = (fresh.generate(ask(temperature=1.5, seed=seed, max_tokens=16)).text for seed in (1, 1, 2))
    assert first == again != other


def test_stop_strings_end_the_answer(server):
    whole = server.generate(ask("Count from one to ten.", max_tokens=24))
    stop = whole.text.split()[3]
    cut = server.generate(ask("Count from one to ten.", max_tokens=24, stop=(stop,)))
    assert whole.text.startswith(cut.text)
    assert stop not in cut.text
    assert cut.finish_reason == "stop"


def test_a_raw_prompt_is_not_dressed_in_a_template(server):
    completion = server.generate(Request(prompt="Once upon a", sampling=Sampling(max_tokens=3)))
    assert completion.usage.prompt_tokens == 3
    assert completion.effective["route"] == "/v1/completions"


def test_a_prefill_is_continued_and_not_repeated(server):
    conversation = (Message.user("Give me JSON."), Message.assistant('{"label": "'))
    completion = server.generate(Request(conversation, sampling=Sampling(max_tokens=4)))
    rendered = server.count_tokens(conversation)
    assert completion.usage.prompt_tokens == rendered
    assert not completion.text.startswith("{")
    assert (
        "".join(d.text for d in server.stream(Request(conversation, sampling=Sampling(max_tokens=4))))
        == completion.text
    )


def test_a_stream_adds_up_to_the_answer(server):
    *pieces, last = server.stream(ask())
    assert last.completion.text == "".join(piece.text for piece in pieces) == server.generate(ask()).text
    assert len([piece for piece in pieces if piece.text]) > 2
    assert last.completion.usage.completion_tokens == 8
    assert last.completion.finish_reason == "length"
    assert 0 < last.completion.ttft < last.completion.latency


def test_closing_a_stream_frees_the_slot(server):
    endpoint = server.endpoint
    pieces = server.stream(ask("Write a long story.", max_tokens=900))
    assert next(pieces).text
    pieces.close()
    deadline = time.monotonic() + 10
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    while any(slot["is_processing"] for slot in httpx.get(f"{endpoint.url}/slots", headers=headers).json()):
        assert time.monotonic() < deadline, "the slot is still at work"
        time.sleep(0.05)


def test_every_parameter_reaches_the_engine_under_its_own_name(server):
    sampling = Sampling(
        max_tokens=3,
        temperature=0.75,
        top_p=0.5,
        top_k=7,
        min_p=0.25,
        repeat_penalty=1.25,
        presence_penalty=0.5,
        frequency_penalty=0.125,
        seed=11,
        stop=("zzz",),
    )
    sent = sampling_fields(sampling, prompt_cache=True)
    endpoint = server.endpoint
    answer = httpx.post(
        f"{endpoint.url}/completion",
        json={**sent, "prompt": "Once"},
        headers={"Authorization": f"Bearer {endpoint.api_key}"},
        timeout=60,
    ).json()
    used = answer["generation_settings"]
    # Not part of what the engine reports about one answer.
    reported = {name: value for name, value in sent.items() if name != "cache_prompt"}
    assert {name: used[name] for name in reported} == reported


def test_effective_holds_what_was_sent(server):
    effective = server.generate(ask(seed=5)).effective
    assert effective["seed"] == 5
    assert effective["temperature"] == 0.0
    assert effective["context"] == 1024
    assert json.loads(json.dumps(effective)) == effective
    assert "messages" not in effective


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        (Constraint("json_schema", SCHEMA), r'\{"label":"(pos|neg)","note":".{0,4}"\}'),
        (Constraint("choice", ("yes", "no", "may be")), r"yes|no|may be"),
        (Constraint("regex", r"[A-C]{2}-[0-9]{3}"), r"[A-C]{2}-[0-9]{3}"),
        (Constraint("grammar", 'root ::= "left" | "right"'), r"left|right"),
    ],
    ids=lambda value: value.kind if isinstance(value, Constraint) else "",
)
def test_the_embedded_engine_enforces_while_sampling(server, constraint, pattern):
    completion = server.generate(ask("Is this good?", constraint=constraint, max_tokens=60))
    assert re.fullmatch(pattern, completion.text)
    assert completion.finish_reason == "stop"
    assert completion.enforcement.by == "sampling"
    assert "xllamacpp 20" in completion.enforcement.engine
    assert not completion.enforcement.verified


@pytest.mark.parametrize("kind", ["json_schema", "choice", "grammar"])
def test_a_server_by_url_is_asked_in_its_own_dialect(by_url, kind):
    value = {"json_schema": SCHEMA, "choice": ("yes", "no"), "grammar": 'root ::= "yes" | "no"'}[kind]
    completion = by_url.generate(ask("Is this good?", constraint=Constraint(kind, value), max_tokens=60))
    if kind == "json_schema":
        assert set(json.loads(completion.text)) == {"label", "note"}
    else:
        assert completion.text in ("yes", "no")
    assert completion.enforcement.by == "server"
    assert "%llguidance" not in str(completion.effective)


def test_a_schema_that_the_engine_would_ignore_is_never_sent(server):
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(UnsupportedFeature, match="uniqueItems"):
        server.generate(ask(constraint=Constraint("json_schema", schema)))


def test_a_server_by_url_is_not_asked_for_regular_expressions(by_url):
    with pytest.raises(UnsupportedFeature, match="regex"):
        by_url.generate(ask(constraint=Constraint("regex", "a+")))


def test_a_grammar_cannot_smuggle_in_another_dialect(by_url):
    with pytest.raises(UsageError, match="GBNF"):
        by_url.generate(ask(constraint=Constraint("grammar", "%llguidance {}\nstart: /a/")))


def test_a_grammar_that_does_not_parse_is_refused_and_the_server_lives(server):
    for answer in (server.generate, lambda request: list(server.stream(request))):
        with pytest.raises(BadRequest, match="grammar"):
            answer(ask(constraint=Constraint("grammar", "root ::= undefined-rule")))
    assert server.generate(ask()).text


def test_a_prompt_beyond_the_context_is_refused_not_trimmed(server):
    with pytest.raises(ContextOverflow, match=r"2\d\d\d tokens.*1024"):
        server.generate(ask("word " * 2000))
    with pytest.raises(ContextOverflow):
        list(server.stream(ask("word " * 2000)))


def test_facts_come_from_the_header_and_load_nothing(model_path, tmp_path, monkeypatch):
    monkeypatch.setenv("OSPORT_CACHE", str(tmp_path))
    with LlamaServerBackend(str(model_path)) as backend:
        facts = backend.facts()
        assert backend._embedded.pid is None
        assert facts["architecture"] == "llama"
        assert facts["context_length"] == 8192
        assert facts["quantization"] == "Q4_1"
        assert facts["license"] == "apache-2.0"
        assert facts["engine"].startswith("xllamacpp 20")
        assert facts.fact("architecture").source == str(model_path.resolve())


def test_the_digest_is_computed_when_asked_for_and_remembered(model_path, tmp_path, monkeypatch):
    monkeypatch.setenv("OSPORT_CACHE", str(tmp_path))
    with LlamaServerBackend(str(model_path)) as backend:
        facts = backend.facts()
        assert not (tmp_path / "sha256.json").exists()
        assert re.fullmatch(r"[0-9a-f]{64}", facts["sha256"])
        notes = json.loads((tmp_path / "sha256.json").read_text())
        assert list(notes.values()) == [facts["sha256"]]
        (tmp_path / "sha256.json").write_text(json.dumps(dict.fromkeys(notes, "remembered")))
        assert backend.facts()["sha256"] == "remembered"


def test_facts_by_url_come_from_the_server(by_url):
    facts = by_url.facts()
    assert facts["context_length"] == 1024
    assert "im_start" in facts["chat_template"]
    assert facts.fact("context_length").source.endswith("/props")


def test_a_wrong_key_is_refused_without_printing_it(server):
    backend = LlamaServerBackend(server.endpoint.url, api_key=lambda: "sk-very-secret")
    with pytest.raises(AuthFailed) as caught:
        backend.generate(ask())
    assert "sk-very-secret" not in f"{caught.value!r}{caught.value}{backend!r}{backend.endpoint!r}"
    assert caught.value.status == 401


def test_the_key_comes_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("LLAMA_API_KEY", server.endpoint.api_key)
    with pytest.raises(AuthFailed, match="LLAMA_BASE_URL"):
        LlamaServerBackend(server.endpoint.url).generate(ask())
    monkeypatch.setenv("LLAMA_BASE_URL", server.endpoint.url)
    assert LlamaServerBackend(server.endpoint.url).generate(ask()).text


def test_a_model_without_a_template_answers_raw_prompts_only(model_path, tmp_path):
    # The same weights with the template's key renamed, to a name of the same length.
    bare = tmp_path / "bare.gguf"
    head, _, rest = model_path.read_bytes().partition(b"tokenizer.chat_template")
    bare.write_bytes(head + b"tokenizer.chat_templaXX" + rest)
    with LlamaServerBackend(str(bare), context=256, threads=1) as backend:
        for call in (backend.generate, lambda request: list(backend.stream(request))):
            with pytest.raises(TemplateError, match="no chat template"):
                call(ask())
        with pytest.raises(TemplateError):
            backend.count_tokens([Message.user("hi")])
        assert backend.generate(Request(prompt="Once", sampling=Sampling(max_tokens=2))).text


def test_bad_files_are_found_before_anything_starts(model_path, tmp_path):
    with pytest.raises(ModelNotFound, match="does not exist"):
        LlamaServerBackend(str(tmp_path / "absent.gguf"))
    with pytest.raises(ModelNotFound, match="is a folder"):
        LlamaServerBackend(str(tmp_path))
    (tmp_path / "prose.gguf").write_text("This is not a model, whatever it is called.")
    with pytest.raises(FormatError, match="not a GGUF"):
        LlamaServerBackend(str(tmp_path / "prose.gguf"))
    (tmp_path / "cut.gguf").write_bytes(model_path.read_bytes()[:-1000])
    with pytest.raises(FormatError, match="download it again"):
        LlamaServerBackend(str(tmp_path / "cut.gguf"))


def test_a_port_in_use_is_named(model_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            LlamaServerBackend(str(model_path), port=port) as backend,
            pytest.raises(UsageError, match=f"port {port}.*in use"),
        ):
            backend.generate(ask())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contxt": 512}, "did you mean 'context'"),
        ({"context": 0}, "context=0"),
        ({"context": 10**6}, "trained with 8192"),
        ({"slots": "two"}, "slots='two'"),
        ({"threads": True}, "threads=True"),
        ({"port": 70000}, "port=70000"),
        ({"timeout": 0}, "timeout=0"),
        ({"api_key": lambda: "k"}, "server by URL"),
    ],
)
def test_a_wrong_option_is_named(model_path, options, message):
    with pytest.raises(UsageError, match=message):
        LlamaServerBackend(str(model_path), **options)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://", {}, "not the URL"),
        ("http://host:port", {}, "not the URL"),
        ("http://user:pw@host", {}, "no credentials"),
        ("http://host:1", {"context": 5}, "context is set where"),
        ("http://host:1", {"api_key": "sk-plain"}, "callable"),
    ],
)
def test_a_wrong_url_is_refused(url, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        LlamaServerBackend(url, **options)
    assert "sk-plain" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_two_slots_answer_at_the_same_time(server):
    streams = [server.stream(ask(prompt, max_tokens=200)) for prompt in ("Tell a story.", "Tell a joke.")]
    firsts = [next(stream).text for stream in streams]
    assert all(firsts)
    assert all(next(stream).text for stream in itertools.islice(streams, 2))
    for stream in streams:
        stream.close()

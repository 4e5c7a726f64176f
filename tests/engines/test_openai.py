"""The openai backend against the OpenAI routes of a real llama.cpp server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from osport import ConstrainedOutput, Message, Model, Request, Sampling
from osport.backends.llama_server import LlamaServerBackend
from osport.backends.openai import OpenAIBackend
from osport.errors import AuthFailed, BadResponse, ContextOverflow, ModelNotFound, TimedOut, UnsupportedFeature
from osport.testing import BackendConformance

pytestmark = pytest.mark.engine

CONVERSATION = (Message.system("Answer in one word."), Message.user("Which colour has the sky?"))


def ask(**sampling: object) -> Request:
    return Request(CONVERSATION, sampling=Sampling(**{"max_tokens": 6, **sampling}))


def at(server: LlamaServerBackend, name: str | None = None) -> OpenAIBackend:
    endpoint = server.endpoint
    return OpenAIBackend(f"{name or Path(server.model).stem}@{endpoint.url}/v1", api_key=lambda: endpoint.api_key)


@pytest.fixture
def backend(server):
    with at(server) as made:
        yield made


class TestOpenAI(BackendConformance):
    overflow = "word " * 1200
    exceptions = dict.fromkeys(
        (
            "test_a_required_tool_is_called_or_refused",
            "test_only_a_tool_that_was_offered_is_called",
            "test_arguments_are_those_that_the_schema_allows",
            "test_a_streamed_call_is_whole",
        ),
        "llama.cpp drops tool_choice for a model whose template writes no tools; the backend says so",
    )

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def llama_speaks_it(cls, server):
        endpoint = server.endpoint
        cls.reference = f"openai:{Path(server.model).stem}@{endpoint.url}/v1"
        cls.options = {"api_key": lambda: endpoint.api_key}


def test_all_ways_to_ask_give_what_llama_server_gives(backend, server):
    async def both():
        pieces = [piece async for piece in backend.astream(ask())]
        return await backend.agenerate(ask()), pieces[-1].completion

    answers = [server.generate(ask()), backend.generate(ask()), list(backend.stream(ask()))[-1].completion]
    answers += asyncio.run(both())
    assert len({answer.text for answer in answers}) == 1
    assert len({(answer.usage.prompt_tokens, answer.usage.completion_tokens) for answer in answers}) == 1
    assert {answer.finish_reason for answer in answers} == {"length"}


def test_logprobs_are_those_of_llama_server(backend, server):
    request = Request(CONVERSATION, sampling=Sampling(max_tokens=4), logprobs=3)
    ours, theirs = backend.generate(request).logprobs, server.generate(request).logprobs
    assert [one.token for one in ours] == [one.token for one in theirs]
    assert [one.logprob for one in ours] == pytest.approx([one.logprob for one in theirs], abs=0.02)
    assert all(len(one.top) == 3 for one in ours)


def test_facts_come_from_the_list_of_models(backend, server):
    facts = backend.facts()
    assert facts["context_length"] == 1024
    assert facts.fact("name").source == f"{server.endpoint.url}/v1/models"


def test_a_model_name_that_the_server_does_not_have_is_seen_in_the_answer(server):
    with at(server, "another") as backend:
        with pytest.raises(BadResponse, match="answered by"):
            backend.generate(ask())
        with pytest.raises(ModelNotFound, match="no model 'another'"):
            backend.facts()


def test_a_form_is_kept(backend):
    yes_or_no = ConstrainedOutput.json_schema(
        {
            "type": "object",
            "properties": {"wet": {"enum": ["yes", "no"]}},
            "required": ["wet"],
            "additionalProperties": False,
        }
    )
    answer = Model(backend).generate("Is the sea wet?", output=yes_or_no)
    assert answer.parsed["wet"] in ("yes", "no")
    assert (answer.enforcement.by, answer.enforcement.verified) == ("server", True)


def test_a_wrong_key_is_refused(server):
    backend = OpenAIBackend(f"m@{server.endpoint.url}", api_key=lambda: "sk-very-secret")
    with backend, pytest.raises(AuthFailed) as caught:
        backend.generate(ask())
    assert "sk-very-secret" not in f"{caught.value!r}"


def test_a_prompt_that_does_not_fit_and_an_answer_that_comes_too_late(backend):
    with pytest.raises(ContextOverflow):
        backend.generate(Request((Message.user("word " * 2000),)))
    late = Request((Message.user("Write a long story."),), sampling=Sampling(max_tokens=600), timeout=0.3)
    for answer in (backend.generate, lambda request: list(backend.stream(request))):
        with pytest.raises(TimedOut):
            answer(late)


def test_a_model_that_has_no_reasoning_is_not_said_to_have_reasoned(backend):
    with pytest.raises(UnsupportedFeature, match="no reasoning"):
        backend.generate(Request((Message.user("Say hi."),), thinking=True, sampling=Sampling(max_tokens=200)))

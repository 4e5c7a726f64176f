"""The whole contract on the backends that have no engine: what is said twice is said the same way."""

import json

import pytest
from attrs import evolve

from osport.testing import BackendConformance


class TestEcho(BackendConformance):
    reference = "echo:any"
    exceptions = {
        "test_temperature_and_seed_reach_the_engine": "echo repeats what it is told, whatever the seed",
        "test_a_prefill_is_continued_or_refused": "echo repeats the last message, also where that is a prefill",
    }


class TestScriptedEcho(BackendConformance):
    reference = "echo:any"
    options = {"script": lambda request: answer_for(request)}
    exceptions = {"test_temperature_and_seed_reach_the_engine": "a script answers, whatever the seed"}


class TestReplay(BackendConformance):
    """One recorded answer, which every question of the kit gets."""

    exceptions = {
        "test_no_turn_of_a_conversation_is_lost": "the answer was recorded with the usage of then",
        "test_a_prefill_is_continued_or_refused": "the answer was recorded, the prefill comes too late",
    }

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def recorded(cls, tmp_path_factory):
        line = {"id": "any", "text": "The sea is wide.", "latency": 0.4, "usage": {"prompt_tokens": 5}}
        path = tmp_path_factory.mktemp("replay") / "answers.jsonl"
        path.write_text(json.dumps(line))
        cls.reference = f"replay:{path}"

    @classmethod
    def asking(cls, request):
        return evolve(request, item_id="any")


def answer_for(request):
    constraint = request.constraint
    if constraint is None:
        return "the sea is wide and deep"
    return {"json_schema": '{"label":"pos","sure":true}', "choice": "neg", "regex": "abc", "grammar": "pos"}[
        constraint.kind
    ]

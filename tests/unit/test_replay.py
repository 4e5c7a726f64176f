"""Recorded answers: found by id, checked when the file is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from osport import Model
from osport.backends.replay import ReplayBackend
from osport.errors import ModelNotFound, UnsupportedFeature, UsageError
from osport.plugin import Message, Request, Usage

LINE = {"id": "a", "text": "pos", "latency": 1.25}


def request(item_id: str | None) -> Request:
    return Request((Message.user("?"),), item_id=item_id)


def record(folder: Path, *lines: object) -> str:
    path = folder / "answers.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def test_an_answer_is_found_by_its_id_with_what_was_measured_then(tmp_path):
    path = record(
        tmp_path,
        {
            **LINE,
            "model": "claude-x",
            "finish_reason": "stop",
            "ttft": 0.5,
            "usage": {"prompt_tokens": 10, "completion_tokens": 2},
        },
        "",
        {**LINE, "id": "b", "text": "neg"},
    )
    with Model(f"replay:{path}") as model:
        first, second = model.generate(request("a")), model.generate(request("b"))
    assert (first.text, first.latency, first.ttft, first.finish_reason) == ("pos", 1.25, 0.5, "stop")
    assert (first.usage, first.model, first.backend) == (Usage(10, 2), "claude-x", "replay")
    assert (second.text, second.finish_reason) == ("neg", "unknown")


def test_usage_may_stand_as_the_messages_api_gives_it(tmp_path):
    usage = {
        "input_tokens": 5,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 20,
        "output_tokens": 7,
        "service_tier": "standard",
    }
    backend = ReplayBackend(record(tmp_path, {**LINE, "usage": usage}))
    assert backend.generate(request("a")).usage == Usage(125, 7, 20)


def test_an_id_without_an_answer_is_named(tmp_path):
    backend = ReplayBackend(record(tmp_path, LINE))
    with pytest.raises(ModelNotFound, match="'missing'"):
        backend.generate(request("missing"))
    with pytest.raises(UsageError, match="item id"):
        backend.generate(request(None))


def test_sampling_parameters_are_refused_not_dropped(tmp_path):
    with Model(f"replay:{record(tmp_path, LINE)}") as model, pytest.raises(UnsupportedFeature, match="temperature"):
        model.generate(request("a"), temperature=0.5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2"),
        ("[]", "line 2: must be a JSON object"),
        ({**LINE, "id": "a"}, "line 2: the id 'a' stands in line 1 already"),
        ({**LINE, "id": 7}, "line 2: id must be a string"),
        ({**LINE, "id": "b", "text": None}, "line 2: text must"),
        ({"id": "b", "text": ""}, "line 2: latency must"),
        ({**LINE, "id": "b", "latency": 0}, "line 2: latency must"),
        ({**LINE, "id": "b", "latency": True}, "line 2: latency must"),
        ({**LINE, "id": "b", "ttft": "fast"}, "line 2: ttft must"),
        ({**LINE, "id": "b", "latencey": 1}, "line 2: unknown field 'latencey'"),
        ({**LINE, "id": "b", "finish_reason": "bored"}, "line 2: finish_reason is 'bored'"),
        ({**LINE, "id": "b", "model": 3}, "line 2: model must"),
        ({**LINE, "id": "b", "usage": 3}, "line 2: usage must"),
        ({**LINE, "id": "b", "usage": {"tokens": 3}}, "line 2: unknown field 'tokens' in usage"),
        ({**LINE, "id": "b", "usage": {"prompt_tokens": -1}}, "line 2: prompt_tokens must"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, message):
    with pytest.raises(UsageError, match=message):
        ReplayBackend(record(tmp_path, LINE, line))


def test_a_file_that_holds_nothing_or_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="no answers"):
        ReplayBackend(record(tmp_path, "", " "))
    with pytest.raises(ModelNotFound, match="there is no file"):
        ReplayBackend(str(tmp_path / "absent.jsonl"))
    with pytest.raises(ModelNotFound, match="there is no file"):
        ReplayBackend(str(tmp_path))
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(UsageError, match="UTF-8"):
        ReplayBackend(str(tmp_path / "latin.jsonl"))


def test_an_option_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no option 'speed'"):
        ReplayBackend(record(tmp_path, LINE), speed=2)


def test_facts_name_the_file_and_the_models_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("OSPORT_CACHE", str(tmp_path / "cache"))
    path = record(tmp_path, {**LINE, "model": "claude-x"}, {**LINE, "id": "b", "model": "claude-y"})
    facts = ReplayBackend(path).facts()
    assert (facts["answers"], facts["name"], facts["engine"]) == (2, "claude-x, claude-y", "replay")
    assert len(facts["sha256"]) == 64


def test_a_closed_record_is_not_asked(tmp_path):
    backend = ReplayBackend(record(tmp_path, LINE))
    backend.close()
    with pytest.raises(UsageError, match="closed"):
        backend.generate(request("a"))

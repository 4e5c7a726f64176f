"""One schema at every place that enforces it: the same verdict on each instance, or a refusal by name."""

import gzip
import importlib.util
import json
import os
from pathlib import Path

import pytest

pytest.importorskip("llguidance")
SOURCE = Path(__file__).parents[2] / "benchmarks" / "constrained_agreement.py"
CORPUS = Path(os.environ.get("OSPORT_CORPUS", "absent")) / "schemas" / "maskbench_dev.jsonl.gz"
SAME_ENGINE = ("llama_cpp, llguidance", "llama_server, embedded", "vllm, llguidance")
CASES = [
    (
        {
            "type": "object",
            "properties": {"kind": {"enum": ["tool", "food"]}, "tags": {"type": "array", "items": {"type": "boolean"}}},
            "required": ["kind"],
            "additionalProperties": False,
        },
        [({"kind": "tool"}, True), ({"kind": "food", "tags": [True]}, True), ({"kind": "x"}, False), ({}, False)],
    ),
    ({"type": "integer", "minimum": 3, "multipleOf": 2}, [(4, True), (2, False), (5, False), (4.5, False)]),
    ({"type": "array", "items": {"type": "integer"}, "contains": {"const": 1}}, [([1], True), ([2], False)]),
    ({"type": "string", "format": "date"}, [("2024-02-29", True), ("2023-02-30", False)]),
    ({"not": {"type": "string"}}, [(1, True), ("a", False)]),
]


@pytest.fixture(scope="module")
def agreement():
    spec = importlib.util.spec_from_file_location("constrained_agreement", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_our_own_schemas(agreement, tmp_path):
    path = tmp_path / "cases.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for schema, tests in CASES:
            entry = {"schema": schema, "tests": [{"v": valid, "d": instance} for instance, valid in tests]}
            file.write(json.dumps(entry) + "\n")
    for place, counted in agreement.compared(path, 100).items():
        assert counted["differ"] == counted["wrong"] == 0, place
        if not counted["not installed"]:
            assert counted["taken"] >= 1, place
            assert counted["refused"] + counted["taken"] == len(CASES), place


@pytest.mark.skipif(not CORPUS.is_file(), reason="OSPORT_CORPUS names no folder with schemas/maskbench_dev.jsonl.gz")
def test_500_instances_of_real_schemas(agreement, monkeypatch):
    places = {name: agreement.PLACES[name] for name in SAME_ENGINE}
    monkeypatch.setattr(agreement, "PLACES", places)
    for place, counted in agreement.compared(CORPUS, 500).items():
        assert counted["compared"] > 450, place
        assert counted["differ"] == counted["wrong"] == 0, place

"""A whole port on real weights: what the official template and the form buy, and how a kill resumes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from osport.chat_template import ChatTemplate
from osport.port import Port

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {"sentiment": {"enum": ["pos", "neg"]}},
    "required": ["sentiment"],
    "additionalProperties": False,
}
REQUEST = {
    "max_tokens": 12,
    "system": "Rate the review. Output only JSON.",
    "messages": [{"role": "user", "content": "<review>{{input}}</review>"}, {"role": "assistant", "content": "{"}],
}
TEXTS = ("Broke after a day.", "Simply great.", "Too loud.", "Would buy again.", "A waste of money.", "Works well.")


@pytest.fixture
def port(tmp_path, model_path):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "request.json").write_text(json.dumps(REQUEST))
    for file, texts in (("golden.jsonl", TEXTS), ("few.jsonl", ("Terrible!", "Lovely!"))):
        rows = [
            {"id": f"{file[0]}{n}", "input": text, "expected": {"sentiment": ("neg", "pos")[n % 2]}}
            for n, text in enumerate(texts)
        ]
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = f"model = {json.dumps(f'llama_server:{model_path}')}\noptions = {{ context = 512, threads = 1 }}\n"
    (tmp_path / "port.toml").write_text(
        '[port]\nname = "Reviews"\ngolden = "golden.jsonl"\nfew_shot = "few.jsonl"\nform = "schema.json"\n'
        'scorer = "json:sentiment"\nmargin = 0.05\ncandidate = "ported"\n'
        f'[arms.pasted]\n{shared}prompt = "pasted"\nrequest = "request.json"\n'
        f'[arms.ported]\n{shared}template = "official"\nsystem = "Rate the review."\nfew_shot = 2\n'
        'output = "schema.json"\nsampling = { max_tokens = 24 }\n'
    )
    return Port.from_file(tmp_path / "port.toml")


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_the_ported_arm_is_valid_throughout_and_says_where_it_comes_from(port, tmp_path, model_path):
    result = port.run(tmp_path / "out")
    arms = {arm.name: arm for arm in result.arms}
    assert arms["ported"].valid == arms["ported"].items == len(TEXTS)
    assert arms["ported"].enforcement == {"sampling": len(TEXTS)}
    assert arms["pasted"].valid < len(TEXTS)
    assert arms["pasted"].enforcement == {"none": len(TEXTS)}
    assert all(arm.tokens.completion > 0 and arm.latency.known == len(TEXTS) for arm in result.arms)
    settings = arms["ported"].settings["arm"]
    assert settings["template_sha256"] == ChatTemplate.from_gguf(model_path).hash
    assert settings["sha256"] in (tmp_path / "out" / "report.html").read_text()
    assert "xllamacpp" in settings["engine"]
    assert settings["sampling"]["temperature"] == 0


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_blow_in_the_middle_leaves_no_server_and_resumes_where_it_was(port, tmp_path, blow):
    command = f"from osport import Port; Port.from_file({str(tmp_path / 'port.toml')!r}).run({str(tmp_path / 'out')!r})"
    process = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.DEVNULL)
    record = tmp_path / "out" / "pasted.jsonl"
    deadline = time.monotonic() + 120
    while not record.exists() or record.read_bytes().count(b"\n") < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    servers = children_of(process.pid)
    assert servers
    process.send_signal(blow)
    process.wait(30)
    finished = record.read_bytes().rpartition(b"\n")[0]
    gone = time.monotonic() + 20
    while any(alive(pid) for pid in servers):
        assert time.monotonic() < gone, f"still running: {servers}"
        time.sleep(0.05)
    result = port.run(tmp_path / "out")
    assert record.read_bytes().startswith(finished)
    ids = [json.loads(line)["id"] for line in record.read_text().splitlines()[1:]]
    assert sorted(ids) == [f"g{n}" for n in range(len(TEXTS))]
    assert {arm.items for arm in result.arms} == {len(TEXTS)}

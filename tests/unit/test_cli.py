import json
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
def right(text):
    return "many" if int(text) > 10 else "few"

def wrong(text):
    return "few" if int(text) > 10 else "many"

def nearly(text):
    return wrong(text) if int(text) in (1, 2, 3) else right(text)
"""


def osport(*arguments, stdin=""):
    command = [sys.executable, "-m", "osport.cli", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)


@pytest.fixture
def port_file(tmp_path):
    """A function that writes a port of two functions over 60 numbers."""

    def write(candidate, incumbent=None, margin=0.05):
        items = [{"id": str(n), "input": str(n), "expected": "many" if n > 10 else "few"} for n in range(1, 61)]
        (tmp_path / "golden.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        (tmp_path / "count.py").write_text(COUNT)
        lines = ["[port]", 'name = "count"', 'golden = "golden.jsonl"', 'scorer = "label"', f"margin = {margin}"]
        lines += ['candidate = "new"'] + (['incumbent = "old"'] if incumbent else [])
        lines += ["[arms.new]", f'function = "count.py:{candidate}"']
        lines += ["[arms.old]", f'function = "count.py:{incumbent}"'] if incumbent else []
        (tmp_path / "port.toml").write_text("\n".join(lines))
        return tmp_path / "port.toml"

    return write


@pytest.mark.parametrize(
    ("candidate", "incumbent", "margin", "code", "verdict"),
    [
        ("right", "right", 0.10, 0, "PASS"),
        ("wrong", "right", 0.05, 1, "FAIL"),
        ("nearly", "right", 0.05, 3, "INCONCLUSIVE"),
        ("right", None, 0.05, 4, "WITHHELD"),
    ],
)
def test_the_exit_code_of_a_port_is_its_verdict(port_file, candidate, incumbent, margin, code, verdict):
    file = port_file(candidate, incumbent, margin)
    run = osport("port", file, "--json")
    assert (run.returncode, json.loads(run.stdout)["verdict"]) == (code, verdict), run.stderr
    assert Path(json.loads(run.stdout)["report"]).exists()
    assert run.stderr == ""  # no progress bar in a pipe


def test_a_port_tells_people_where_the_report_is(port_file, tmp_path):
    run = osport("port", port_file("right", "right", 0.1), "--out", tmp_path / "elsewhere")
    assert run.stdout.startswith("PASS: ")
    assert run.stdout.rstrip().endswith(str(tmp_path / "elsewhere" / "report.html"))


def test_a_port_resumes_unless_it_is_told_to_start_afresh(port_file):
    file = port_file("right", "right", 0.1)
    osport("port", file)
    record = file.parent / "out" / "new.jsonl"
    before = record.read_bytes()
    osport("port", file)
    assert record.read_bytes() == before
    osport("port", file, "--fresh")
    assert record.read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["generate", "ecko:", "hi"], 5, "Did you mean 'echo'?"),
        (["generate", "echo:", "hi", "--temperature", "-1"], 2, "temperature"),
        (["generate", "echo:", "hi", "--choice", "a", "--regex", "b"], 2, "one of --schema"),
        (["generate", "echo:", "hi", "--schema", "nowhere.json"], 2, "nowhere.json"),
        (["generate", "/nowhere/model.gguf", "hi"], 2, "/nowhere/model.gguf"),
        (["models", "pull", "smollm2"], 2, "smollm2-135m"),
        (["port", "nowhere.toml"], 2, "nowhere.toml"),
        (["prot"], 2, "prot"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_a_code(arguments, code, says):
    run = osport(*arguments)
    assert run.returncode == code, run.stderr
    assert says in run.stderr
    assert "Traceback" not in run.stderr


def test_generate_prints_the_answer():
    assert osport("generate", "echo:", "hello").stdout == "hello\n"
    assert osport("generate", "echo:", "-", stdin="from a pipe").stdout == "from a pipe\n"


def test_generate_takes_a_schema_and_prints_json(tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}')
    run = osport("generate", "echo:", "hello", "--schema", schema, "--json", "--max-tokens", 20)
    answer = json.loads(run.stdout)
    assert answer["parsed"] == {"n": 0}
    assert answer["effective"]["max_tokens"] == 20
    assert answer["enforcement"]["verified"]


def test_lists_are_for_people_and_for_machines():
    rows = json.loads(osport("models", "list", "--json").stdout)
    assert {"name", "path", "pulled", "sha256", "license"} <= set(rows[0])
    assert "smollm2-135m" in osport("models", "list").stdout
    assert "echo" in osport("backends").stdout
    names = {row["name"] for row in json.loads(osport("backends", "--json").stdout)}
    assert {"echo", "llama_server", "llama_cpp", "anthropic", "replay"} <= names

"""The three reports: complete, self-contained, honest about what is not known."""

import json
import re
from xml.etree import ElementTree

import pytest

from osport.errors import StorageError
from osport.port import Port
from osport.port.wording import dollars, probability, seconds

PORT = """
[port]
name = "Triage <of> mail & more"
golden = "golden.jsonl"
scorer = "label"
margin = 0.05
candidate = "ported"
incumbent = "OLD"

[limits]
p95_seconds = 3

[cost]
error_usd = 0.5

[arms.ported]
model = "echo:small"
user = "{{input}}"

[arms.failing]
function = "arms.py:failing"

[arms.OLD]
function = "arms.py:old"
"""

ARMS = """
def old(text):
    return "wrong" if text == "text 2" else text

def failing(text):
    raise OSError("no | disk <b>")
"""


@pytest.fixture
def folder(tmp_path):
    rows = [{"id": f"i{n}", "input": f"text {n}", "expected": "text 1" if n == 1 else f"text {n}"} for n in range(8)]
    rows[3]["expected"] = "something else"
    (tmp_path / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "arms.py").write_text(ARMS)
    (tmp_path / "port.toml").write_text(PORT)
    return tmp_path


@pytest.fixture
def out(folder):
    Port.from_file(folder / "port.toml").run(folder / "out")
    return folder / "out"


def test_the_json_holds_every_figure_and_no_infinity(out):
    def refuse(name):
        raise AssertionError(name)

    report = json.loads((out / "report.json").read_text(), parse_constant=refuse)
    assert report["decision"]["verdict"] == "INCONCLUSIVE"
    ported, failing, _ = report["arms"]
    assert (ported["name"], ported["right"], ported["items"], ported["valid"]) == ("ported", 7, 8, 8)
    assert ported["accuracy"]["low"] < 7 / 8 < ported["accuracy"]["high"]
    assert ported["tokens"]["known"] == 8
    assert ported["cost"]["usd_per_1000"] is None
    assert ported["latency"]["p95"]["high"] is None
    assert failing["latency"]["p95"]["value"] == "Infinity"
    assert failing["errors"] == {"OSError": 8}
    assert (ported["wrong_but_valid"], ported["uncertain"], ported["forced"]) == (1, 0, None)
    deciding = report["comparisons"][0]
    assert (deciding["candidate"], deciding["reference"]) == ("ported", "OLD")
    assert (deciding["worse"], deciding["better"]) == ([], ["i2"])
    assert len(report["rule"]["sha256"]) == len(report["port_file_sha256"]) == 64
    assert report["rule"]["margin"] == 0.05


def test_the_html_is_whole_escaped_and_needs_no_network(out):
    page = (out / "report.html").read_text()
    assert "Triage &lt;of&gt; mail &amp; more" in page
    assert "<of>" not in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:|@import|url\(\s*[\"']?https?:|<script|<link", page)
    picture = ElementTree.fromstring(re.search(r"<svg.*?</svg>", page, re.DOTALL).group())
    words = "".join(picture.itertext())
    assert "ported" in words
    assert "p95 limit" in words
    assert "Not drawn, because p95 is unknown or infinite: failing" in page


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_what_a_reader_must_find_is_in_both_reports(out, name):
    page = (out / name).read_text()
    for words in (
        "INCONCLUSIVE",
        "more items",
        "87.5 %",
        "8 OSError (error)",
        "1 wrong, 0 uncertain",
        "unknown",
        "ported against OLD",
        "i2",
        "5 points of accuracy may be given up",
        "echo",
        "record ported.jsonl",
        "function_sha256",
        "statsmodels",
        "does not decide",
    ):
        assert words in page, words


def test_markdown_tables_hold_together(out):
    rows = [line for line in (out / "report.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) > 10
    head = rows[0].count("|")
    arms = rows[: 2 + 3]
    assert [row.count("|") - row.count("\\|") for row in arms] == [head] * 5


def test_a_report_that_cannot_be_written_is_a_storage_error_and_records_stay(folder):
    (folder / "out" / "report.json").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"report\.json cannot be written"):
        Port.from_file(folder / "port.toml").run(folder / "out")
    assert (folder / "out" / "ported.jsonl").read_text().count("\n") == 9
    assert not list((folder / "out").glob(".*.part"))


def test_numbers_are_written_for_readers():
    assert [seconds(v) for v in (4e-5, 0.0123, 0.5, 1.234, 250, float("inf"))] == [
        "40 µs", "12.3 ms", "500 ms", "1.23 s", "250 s", "∞",
    ]  # fmt: skip
    assert [dollars(v) for v in (None, 0.0, 0.000017, 0.116, 2.328, 1234.5)] == [
        "unknown", "$0.00", "$0.000017", "$0.12", "$2.33", "$1,234.50",
    ]  # fmt: skip
    assert [probability(p) for p in (1.0, 0.0312, 1e-9)] == ["1.000", "0.031", "< 0.001"]

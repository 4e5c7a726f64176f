"""The run record: resume, torn lines, other settings, other processes, a full disk."""

import errno
import json
import os
import resource
import subprocess
import sys

import pytest

from osport.errors import FormatError, StorageError, UsageError
from osport.evals import ItemResult, RunRecord

SETTINGS = {"rule": {"margin": 0.05}, "arm": {"model": "echo:"}}


def result(name, **more):
    return ItemResult(name, "answered", True, {"sentiment": "pos"}, latency=0.25, **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "arm.jsonl"


@pytest.fixture
def two_items(path):
    with RunRecord.open(path, SETTINGS) as record:
        record.append(result("a"))
        record.append(result("b", prompt_tokens=7))
    return path


def test_what_was_appended_is_there_again(two_items):
    with RunRecord.open(two_items, SETTINGS) as record:
        assert list(record.results.values()) == [result("a"), result("b", prompt_tokens=7)]
        record.append(result("c"))
    lines = two_items.read_text().splitlines()
    assert json.loads(lines[0])["settings"] == SETTINGS
    assert [json.loads(line)["id"] for line in lines[1:]] == ["a", "b", "c"]


def test_the_last_line_of_an_item_counts(two_items):
    with RunRecord.open(two_items, SETTINGS) as record:
        record.append(ItemResult("a", "error", error="TimedOut"))
    with RunRecord.open(two_items, SETTINGS) as record:
        assert record.results["a"].status == "error"
        assert len(record.results) == 2


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_cut_off_and_only_that_item_is_lost(two_items, cut):
    whole = two_items.read_bytes()
    two_items.write_bytes(whole[:-cut])
    with RunRecord.open(two_items, SETTINGS) as record:
        assert list(record.results) == ["a"]
        record.append(result("b", prompt_tokens=7))
    assert two_items.read_bytes() == whole


def test_a_torn_head_starts_anew(path):
    path.write_bytes(b'{"osport_rec')
    with RunRecord.open(path, SETTINGS) as record:
        assert not record.results
    assert json.loads(path.read_text())["settings"] == SETTINGS


def test_other_settings_are_refused_and_named(two_items):
    before = two_items.read_bytes()
    other = {"rule": {"margin": 0.1}, "arm": {"model": "echo:", "output": "x"}}
    with pytest.raises(UsageError, match=r"rule\.margin: 0\.05 before, 0\.1 now; arm\.output: added"):
        RunRecord.open(two_items, other)
    assert two_items.read_bytes() == before


def test_without_resume_the_earlier_record_is_kept_under_another_name(two_items):
    before = two_items.read_bytes()
    for number in (1, 2):
        with RunRecord.open(two_items, SETTINGS, resume=False) as record:
            assert not record.results
        assert two_items.with_name(f"arm.{number}.jsonl").exists()
    assert two_items.with_name("arm.1.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not a record\n", "not a record of osport"),
        ("[]\n", "not a record of osport"),
        ('{"osport_record": 9, "settings": {}}\n', "format 9"),
    ],
)
def test_another_file_is_not_taken_for_a_record(path, content, words):
    path.write_text(content)
    with pytest.raises(FormatError, match=words):
        RunRecord.open(path, SETTINGS)
    assert path.read_text() == content


def test_a_damaged_line_in_the_middle_is_named(two_items):
    lines = two_items.read_bytes().splitlines(keepends=True)
    two_items.write_bytes(lines[0] + b"\0\0\0\n" + lines[2])
    with pytest.raises(FormatError, match="line 2 is damaged"):
        RunRecord.open(two_items, SETTINGS)


def test_a_record_in_use_is_refused_also_across_processes(two_items):
    script = (
        "import sys\nfrom osport.evals import RunRecord\nfrom osport.errors import UsageError\n"
        f"try: RunRecord.open({str(two_items)!r}, {SETTINGS!r})\n"
        "except UsageError as error: print(error)\n"
    )
    with RunRecord.open(two_items, SETTINGS):
        with pytest.raises(UsageError, match="in use"):
            RunRecord.open(two_items, SETTINGS)
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "in use by another process" in other.stdout
    with RunRecord.open(two_items, SETTINGS) as record:
        assert len(record.results) == 2


def test_a_full_disk_leaves_no_half_line(two_items):
    before = two_items.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunRecord.open(two_items, SETTINGS) as record:
        # The kernel writes up to the limit and refuses the rest: a real half-written line.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, hard))
        try:
            with pytest.raises(StorageError, match=r"2 finished items before are safe"):
                record.append(result("c"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert two_items.read_bytes() == before
        assert "c" not in record.results
        record.append(result("c"))
    with RunRecord.open(two_items, SETTINGS) as record:
        assert list(record.results) == ["a", "b", "c"]


def test_no_space_left_is_a_storage_error(two_items, monkeypatch):
    before = two_items.read_bytes()
    real = os.write

    def fake_full_disk(descriptor, data):
        real(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with RunRecord.open(two_items, SETTINGS) as record:
        monkeypatch.setattr(os, "write", fake_full_disk)
        with pytest.raises(StorageError, match="No space left"):
            record.append(result("c"))
        monkeypatch.undo()
    assert two_items.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        RunRecord.open(tmp_path / "file" / "arm.jsonl", SETTINGS)


def test_a_device_is_no_record(tmp_path):
    (tmp_path / "arm.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="not a regular file"):
        RunRecord.open(tmp_path / "arm.jsonl", SETTINGS)

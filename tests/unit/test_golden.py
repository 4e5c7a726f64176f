"""Golden sets: what is read, and what is refused with which words."""

import hashlib
import json

import pytest

from osport.errors import StorageError, UsageError
from osport.evals import GoldenSet


def write(tmp_path, *lines):
    path = tmp_path / "golden.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def item(name, **more):
    return json.dumps({"id": name, "input": "a text", "expected": "pos", **more})


def test_items_keep_their_order_and_the_hash_is_that_of_the_file(tmp_path):
    path = write(tmp_path, item("b", meta={"page": 3}), "", item("a"))
    golden = GoldenSet.from_jsonl(path)
    assert [i.id for i in golden] == ["b", "a"]
    assert len(golden) == 2
    assert golden.items[0].meta == {"page": 3}
    assert golden.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_byte_order_mark_and_unicode_line_separators_inside_text_are_read(tmp_path):
    path = tmp_path / "golden.jsonl"
    text = "one\u2028two\u0085three"
    line = json.dumps({"id": "a", "input": text, "expected": 1}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + line.encode())
    assert GoldenSet.from_jsonl(path).items[0].input == text


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([item("a"), item("b"), item("a")], ["line 3", "'a'", "line 1"]),
        ([item("a"), '{"id": "b", '], ["line 2", "JSON"]),
        ([item("a"), '["b"]'], ["line 2", "object", "list"]),
        ([item("a"), '{"id": "b", "input": "x"}'], ["line 2", "missing field expected"]),
        ([item("a"), item("b", label="x")], ["line 2", "unknown field label"]),
        ([item("a"), item(7)], ["line 2", "id must be a str"]),
        ([item("")], ["line 1", "id is empty"]),
        ([item("a", meta=[])], ["line 1", "meta must be a dict"]),
        (['{"id": "a", "id": "b", "input": "x", "expected": 1}'], ["line 1", "'id' occurs twice"]),
        (['{"id": "a", "input": "x", "expected": NaN}'], ["line 1", "NaN"]),
        ([], ["no items"]),
        (["", "  "], ["no items"]),
    ],
)
def test_a_bad_set_is_a_usage_error_that_names_the_place(tmp_path, lines, words):
    with pytest.raises(UsageError) as caught:
        GoldenSet.from_jsonl(write(tmp_path, *lines))
    for word in words:
        assert word in str(caught.value)


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path):
    path = tmp_path / "golden.jsonl"
    path.write_bytes(item("a").encode() + b'\n{"id": "\xff"}\n')
    with pytest.raises(UsageError, match="line 2"):
        GoldenSet.from_jsonl(path)


def test_a_missing_file_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        GoldenSet.from_jsonl(tmp_path / "nowhere.jsonl")

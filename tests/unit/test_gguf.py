"""The GGUF header reader: what it reads, what it leaves unread, and what it refuses."""

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osport.errors import FormatError, StorageError
from osport.formats.gguf import GgufArray, GgufHeader, GgufTruncated

U8, I32, U32, F32, BOOL, STRING, ARRAY = 0, 5, 4, 6, 7, 8, 9


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name, kind, payload):
    return text(name) + struct.pack("<I", kind) + payload


def tensor(name, shape, kind, offset):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(keys=(), tensors=(), data=b"", version=3, counts=None):
    n_tensors, n_keys = counts or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


ARCHITECTURE = key("general.architecture", STRING, text("llama"))
TOKENS = key("tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, 3) + text("a") + text("ö") + text(""))
HEADS = key("llama.attention.head_count_kv", ARRAY, struct.pack("<IQ3i", I32, 3, 4, 0, 8))
GOOD = gguf(
    [ARCHITECTURE, TOKENS, HEADS, key("llama.block_count", U32, struct.pack("<I", 3)), key("flag", BOOL, b"\x01")],
    [tensor("a", (256, 2), 12, 0), tensor("b", (4,), 0, 288)],
    bytes(320),
)


def test_reads_scalars_arrays_and_tensors(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(GOOD)
    header = GgufHeader.read(path)
    assert header.architecture == "llama"
    assert header.metadata["llama.block_count"] == 3
    assert header.metadata["flag"] is True
    assert (header.version, header.file_size, header.data_offset % 32) == (3, len(GOOD), 0)
    assert header.tensors["a"].type == "Q4_K"
    assert (header.tensors["a"].size, header.tensors["b"].size) == (288, 16)
    assert header.metadata["tokenizer.ggml.tokens"].values() == ("a", "ö", "")
    assert header.metadata["llama.attention.head_count_kv"].values() == (4, 0, 8)


def test_arrays_stay_unread_until_asked_for():
    tokens = GgufHeader.parse(GOOD).metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, GgufArray)
    assert (tokens.type, len(tokens)) == ("string", 3)


def test_a_changed_file_is_not_read_as_the_old_one(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(GOOD)
    tokens = GgufHeader.read(path).metadata["tokenizer.ggml.tokens"]
    path.write_bytes(b"GGUF")
    with pytest.raises(StorageError, match="has changed"):
        tokens.values()


def test_big_endian_header_is_read():
    head = b"GGUF" + struct.pack(">IQQ", 3, 0, 1)
    head += struct.pack(">Q", 20) + b"general.architecture" + struct.pack(">IQ", STRING, 3) + b"foo"
    assert GgufHeader.parse(head).architecture == "foo"


def test_unknown_tensor_type_is_sized_by_its_neighbour():
    header = GgufHeader.parse(gguf([], [tensor("x", (256,), 139, 0), tensor("y", (8,), 0, 160)], bytes(192)))
    assert (header.tensors["x"].type, header.tensors["x"].size) == ("type-139", 160)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04aaaaaaaa", "not a GGUF file"),
        (gguf(version=1), "version 1"),
        (gguf(counts=(2**40, 0)), "refused"),
        (gguf([key("k", 77, b"")]), "unknown value type 77"),
        (gguf([key("k", ARRAY, struct.pack("<IQ", ARRAY, 1))]), "unsupported value type 9"),
        (gguf([key("k", BOOL, b"\x02")]), "bool of value 2"),
        (gguf([key("k", U8, b"\x02"), key("k", U8, b"\x02")]), "occurs twice"),
        (gguf([key("k", ARRAY, struct.pack("<IQ", STRING, 2**50))]), "strings"),
        (gguf([key("k", STRING, struct.pack("<Q", 2**60))]), "claims"),
        (gguf([key("general.alignment", U32, struct.pack("<I", 0))]), "power of two"),
        (gguf([], [tensor("a", (2**40, 2**40), 0, 0)]), "absurd shape"),
        (gguf([], [tensor("a", (100,), 12, 0)]), "no multiple"),
        (gguf([], [tensor("a", (1,) * 5, 0, 0)]), "5 dimensions"),
        (gguf([], [tensor("a", (1,), 0, 7)]), "multiple of 32"),
        (gguf([], [tensor("a", (8,), 0, 0), tensor("a", (8,), 0, 32)], bytes(64)), "occurs twice"),
    ],
)
def test_a_header_that_lies_is_refused_with_the_reason(data, message):
    with pytest.raises(FormatError, match=message):
        GgufHeader.parse(data)


def test_the_byte_position_is_named():
    with pytest.raises(FormatError, match=r"unknown value type 77 \(at byte 33\)"):
        GgufHeader.parse(gguf([key("k", 77, b"")]))


def test_more_keys_than_the_file_can_hold_are_refused_at_once(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(counts=(0, 60_000)))
    with pytest.raises(FormatError, match="do not fit a file"):
        GgufHeader.read(path)


def test_missing_weights_are_refused_unless_the_file_is_known_to_be_partial(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(GOOD[:-100])
    with pytest.raises(FormatError, match="download it again"):
        GgufHeader.read(path)
    assert GgufHeader.read(path, partial=True).tensors["b"].size == 16


@pytest.mark.parametrize("keep", range(0, GOOD.index(bytes(256)), 7))
def test_a_header_cut_anywhere_is_truncated_or_not_gguf(tmp_path, keep):
    path = tmp_path / "m.gguf"
    path.write_bytes(GOOD[:keep])
    with pytest.raises(FormatError):
        GgufHeader.read(path, partial=True)


def test_truncation_says_how_much_is_needed():
    with pytest.raises(GgufTruncated) as caught:
        GgufHeader.parse(GOOD[:60])
    assert 60 < caught.value.needed <= len(GOOD)


def test_a_missing_file_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"none\.gguf"):
        GgufHeader.read(tmp_path / "none.gguf")
    with pytest.raises(StorageError):
        GgufHeader.read(tmp_path)


@settings(max_examples=400, deadline=1000)
@given(at=st.integers(0, len(GOOD) - 1), patch=st.binary(min_size=1, max_size=12), keep=st.integers(0, len(GOOD)))
def test_damaged_headers_raise_format_errors_and_nothing_else(at, patch, keep):
    damaged = (GOOD[:at] + patch + GOOD[at + len(patch) :])[:keep]
    try:
        header = GgufHeader.parse(damaged, file_size=len(damaged))
    except FormatError:
        return
    assert all(t.size >= 0 for t in header.tensors.values())


@settings(max_examples=300, deadline=1000)
@given(tail=st.binary(max_size=4096), counts=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)))
def test_random_bytes_stay_under_the_memory_ceiling(tail, counts):
    tracemalloc.start()
    try:
        GgufHeader.parse(b"GGUF" + struct.pack("<IQQ", 3, *counts) + tail)
    except FormatError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 64 * 2**20


def test_the_largest_allowed_header_stays_under_the_memory_ceiling(tmp_path):
    names = [tensor(f"blk.{i}", (1,), 24, i * 32) for i in range(65_000)]
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([key("t", STRING, text("x" * (2**21) + "\N{OLD PERMIC LETTER AN}"))], names))
    tracemalloc.start()
    header = GgufHeader.read(path, partial=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(header.tensors) == 65_000
    assert peak < 64 * 2**20


def test_a_header_that_never_ends_is_refused(tmp_path):
    path = tmp_path / "m.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key("k", ARRAY, struct.pack("<IQ", STRING, 2_900_000))
    with path.open("wb") as file:
        file.write(head)
        for _ in range(33):
            file.write(struct.pack("<Q", 2**20 - 8) + bytes(2**20 - 8))
    with pytest.raises(FormatError, match="more than 33554432 bytes"):
        GgufHeader.read(path)

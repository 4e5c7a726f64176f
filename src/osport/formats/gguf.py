"""The header of a GGUF file, without its weights and without the arrays that nobody asks for.

A vocabulary of 262,144 strings is walked, not decoded: its values are read only when
:meth:`GgufArray.values` is called. Nothing in a header is trusted: counts, lengths, types and offsets
are checked before memory is taken for them, and a :class:`~osport.errors.FormatError` names the byte.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from attrs import field, frozen

from osport.data import load
from osport.errors import FormatError, StorageError

__all__ = ["GgufArray", "GgufHeader", "GgufTensor", "GgufTruncated"]

Buffer: TypeAlias = bytes | mmap.mmap

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_TYPE_NAMES = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64")

# Ceilings far above any published model; they bound time and memory for a hostile header.
_MAX_HEADER_BYTES = 32 * 2**20
_MAX_KEYS = 65_536
_MAX_TENSORS = 65_536
_MAX_WALKED_STRINGS = 3_000_000
_MAX_TEXT_BYTES = 8 * 2**20
_MAX_NAME_BYTES = 1024
_MAX_DIMENSIONS = 4
_MAX_ELEMENTS = 2**48


class GgufTruncated(FormatError):
    """The bytes end inside the header; ``needed`` is the least length that would help."""

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


@frozen
class GgufArray:
    """An array value that has not been read: its element type, its length, and where it stands."""

    type: str
    length: int
    _origin: Path | bytes = field(repr=False)
    _start: int = field(repr=False)
    _stop: int = field(repr=False)
    _endian: str = field(repr=False)

    def __len__(self) -> int:
        return self.length

    def values(self) -> tuple[Any, ...]:
        """All elements, read now. Raises StorageError when the file has gone."""
        raw = _read_span(self._origin, self._start, self._stop)
        kind = _TYPE_NAMES.index(self.type)
        if kind == _STRING:
            out, at, length = [], 0, struct.Struct(self._endian + "Q")
            for _ in range(self.length):
                (size,) = length.unpack_from(raw, at)
                out.append(raw[at + 8 : at + 8 + size].decode("utf-8", "replace"))
                at += 8 + size
            return tuple(out)
        items = struct.unpack(f"{self._endian}{self.length}{_SCALARS[kind]}", raw)
        return tuple(bool(item) for item in items) if kind == _BOOL else items


@frozen
class GgufTensor:
    """One tensor: its shape (fastest dimension first), its type, its place in the data section.

    ``type`` is ggml's name (``Q4_K``), or ``type-<id>`` for one that mainline ggml does not know;
    the size in bytes of such a tensor is taken from the distance to the next one.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int

    @property
    def elements(self) -> int:
        """Number of weights."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@frozen
class GgufHeader:
    """What a GGUF file says about itself.

    ``metadata`` maps keys to scalars, strings and unread :class:`GgufArray`; ``tensors`` maps names to
    :class:`GgufTensor`; ``data_offset`` is where the weights begin; ``file_size`` is None when unknown.
    """

    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    data_offset: int
    file_size: int | None

    @classmethod
    def read(cls, path: str | Path, *, partial: bool = False) -> GgufHeader:
        """Read a local file. ``partial`` allows a file that was cut off behind its header.

        Raises FormatError (with the byte position) for what is not GGUF, ends too early or lies,
        StorageError for what cannot be read.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if size == 0:
                    raise FormatError(f"{path}: not a GGUF file: it is empty")
                length = min(size, _MAX_HEADER_BYTES)
                with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as view:
                    return _Parser(view, length, path, str(path), None if partial else size).header()
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error

    @classmethod
    def parse(cls, data: bytes, *, file_size: int | None = None, name: str = "GGUF bytes") -> GgufHeader:
        """Read the beginning of a file. ``file_size`` is the length of the whole file, when known.

        Raises GgufTruncated when the header goes on behind the last byte.
        """
        return _Parser(data, len(data), data, name, file_size).header()

    @property
    def architecture(self) -> str:
        """``general.architecture``. Raises FormatError when the header has none."""
        value = self.metadata.get("general.architecture")
        if not isinstance(value, str) or not value:
            raise FormatError("the GGUF header has no general.architecture; convert the model again")
        return value


class _Parser:
    """One pass over the header, keeping the position for messages."""

    def __init__(self, data: Buffer, length: int, origin: Path | bytes, name: str, file_size: int | None) -> None:
        self.data, self.length, self.origin, self.name, self.file_size = data, length, origin, name, file_size
        self.at = 0
        self.endian = "<"
        self.text_left = _MAX_TEXT_BYTES
        self.strings_left = _MAX_WALKED_STRINGS

    def fail(self, what: str, at: int | None = None) -> FormatError:
        return FormatError(f"{self.name}: {what} (at byte {self.at if at is None else at})")

    def need(self, count: int) -> None:
        """The next ``count`` bytes must exist, in these bytes and in the file they belong to."""
        end = self.at + count
        if end <= self.length:
            return
        if self.length == _MAX_HEADER_BYTES and (self.file_size is None or end <= self.file_size):
            raise self.fail(f"a header of more than {_MAX_HEADER_BYTES} bytes is refused")
        if self.file_size is not None and end > self.file_size:
            raise GgufTruncated(
                f"{self.name}: the header needs {end} bytes but the file has {self.file_size} (at byte {self.at})", end
            )
        raise GgufTruncated(
            f"{self.name}: the header goes on behind its end at byte {self.length} (at byte {self.at})", end
        )

    def scalar(self, code: str) -> Any:
        form = self.endian + code
        size = struct.calcsize(form)
        self.need(size)
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += size
        return value

    def text(self, limit: int, what: str) -> str:
        start = self.at
        size, limit = self.scalar("Q"), min(limit, self.text_left)
        if size > limit:
            raise self.fail(f"{what} claims {size} bytes; more than {limit} is refused", start)
        self.need(size)
        self.text_left -= size
        raw = self.data[self.at : self.at + size]
        self.at += size
        return raw.decode("utf-8", "replace")

    def header(self) -> GgufHeader:
        self.need(8)
        if bytes(self.data[:4]) != b"GGUF":
            raise self.fail(f"not a GGUF file: it begins with {bytes(self.data[:4])!r}", 0)
        self.at = 4
        version = self.scalar("I")
        if version & 0xFFFF == 0:
            self.endian, self.at = ">", 4
            version = self.scalar("I")
        if version not in (2, 3):
            raise self.fail(f"GGUF version {version} is not supported (2 and 3 are); convert the model again", 4)
        tensors, keys = self.scalar("Q"), self.scalar("Q")
        if tensors > _MAX_TENSORS or keys > _MAX_KEYS:
            raise self.fail(f"the header claims {tensors} tensors and {keys} keys; that many are refused", 8)
        if self.file_size is not None and tensors * 32 + keys * 13 > self.file_size:
            raise self.fail(f"{tensors} tensors and {keys} keys do not fit a file of {self.file_size} bytes", 8)
        metadata = self.metadata(keys)
        return self.tensor_table(version, metadata, tensors)

    def metadata(self, count: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(count):
            start = self.at
            key = self.text(_MAX_NAME_BYTES, "a key")
            if key in found:
                raise self.fail(f"the key {key!r} occurs twice", start)
            found[key] = self.value(key)
        return found

    def value(self, key: str) -> Any:
        start = self.at
        kind = self.scalar("I")
        if kind == _STRING:
            return self.text(_MAX_TEXT_BYTES, f"the text of {key!r}")
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            raise self.fail(f"{key!r} has the unknown value type {kind}", start)
        value = self.scalar(_SCALARS[kind])
        if kind == _BOOL:
            if value > 1:
                raise self.fail(f"{key!r} is a bool of value {value}", start)
            return bool(value)
        return value

    def array(self, key: str) -> GgufArray:
        at = self.at
        kind, count = self.scalar("I"), self.scalar("Q")
        start = self.at
        if kind == _STRING:
            self.walk_strings(key, count)
        elif kind in _SCALARS:
            self.need(count * struct.calcsize("<" + _SCALARS[kind]))
            self.at += count * struct.calcsize("<" + _SCALARS[kind])
        else:
            raise self.fail(f"{key!r} is an array of the unsupported value type {kind}", at)
        return GgufArray(_TYPE_NAMES[kind], count, self.origin, start, self.at, self.endian)

    def walk_strings(self, key: str, count: int) -> None:
        self.strings_left -= count
        if self.strings_left < 0:
            raise self.fail(f"{key!r} claims {count} strings; more than {_MAX_WALKED_STRINGS} are refused")
        self.need(count * 8)
        data, at = self.data, self.at
        length = struct.Struct(self.endian + "Q").unpack_from
        try:
            for _ in range(count):
                at += 8 + length(data, at)[0]
        except (struct.error, OverflowError):
            self.at = min(at, self.length)
            self.need(max(8, at - self.at + 8))
            raise self.fail(f"a string of {key!r} has an absurd length") from None
        self.need(at - self.at)
        self.at = at

    def tensor_table(self, version: int, metadata: dict[str, Any], count: int) -> GgufHeader:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1) or alignment > 2**20:
            raise self.fail(f"general.alignment is {alignment!r}; it must be a power of two")
        layouts = load("ggml_types.toml")["layouts"].items()
        known = {number: (name, weights, size) for name, (number, weights, size) in layouts}
        rows: dict[str, tuple[tuple[int, ...], int, int, int]] = {}
        for _ in range(count):
            start = self.at
            name = self.text(_MAX_NAME_BYTES, "a tensor name")
            if name in rows:
                raise self.fail(f"the tensor {name!r} occurs twice", start)
            rank = self.scalar("I")
            if rank > _MAX_DIMENSIONS:
                raise self.fail(f"the tensor {name!r} has {rank} dimensions; ggml has at most {_MAX_DIMENSIONS}")
            shape = tuple(self.scalar("Q") for _ in range(rank))
            kind, offset = self.scalar("I"), self.scalar("Q")
            if offset % alignment:
                raise self.fail(f"the tensor {name!r} begins at {offset}, not at a multiple of {alignment}", start)
            elements = 1
            for length in shape:
                elements *= length
                if elements > _MAX_ELEMENTS:
                    raise self.fail(f"the tensor {name!r} has the absurd shape {shape}", start)
            row = shape[0] if shape else 1
            if kind in known and row % known[kind][1]:
                raise self.fail(f"rows of {name!r} ({row}) are no multiple of a {known[kind][0]} block", start)
            rows[name] = (shape, kind, offset, elements)
        data_offset = -(-self.at // alignment) * alignment
        data_size = None if self.file_size is None else max(0, self.file_size - data_offset)
        tensors = _sized(rows, known, data_size)
        for tensor in tensors.values():
            if data_size is not None and tensor.offset + tensor.size > data_size:
                raise GgufTruncated(
                    f"{self.name}: the tensor {tensor.name!r} ends at byte "
                    f"{data_offset + tensor.offset + tensor.size} but the file has {self.file_size}; "
                    "download it again",
                    data_offset + tensor.offset + tensor.size,
                )
        return GgufHeader(version, MappingProxyType(metadata), MappingProxyType(tensors), data_offset, self.file_size)


def _sized(
    rows: Mapping[str, tuple[tuple[int, ...], int, int, int]],
    known: Mapping[int, tuple[str, int, int]],
    data_size: int | None,
) -> dict[str, GgufTensor]:
    starts = sorted({offset for _, _, offset, _ in rows.values()})
    ends = dict(pairwise(starts))
    tensors: dict[str, GgufTensor] = {}
    for name, (shape, kind, offset, elements) in rows.items():
        if kind in known:
            label, weights, block = known[kind]
            size = elements // weights * block
        else:
            end = ends.get(offset, data_size)
            if end is None:
                raise FormatError(f"the tensor {name!r} has the unknown type {kind}; nothing bounds its size")
            label, size = f"type-{kind}", max(0, end - offset)
        tensors[name] = GgufTensor(name, shape, label, offset, size)
    return tensors


def _read_span(origin: Path | bytes, start: int, stop: int) -> bytes:
    if isinstance(origin, bytes):
        return origin[start:stop]
    try:
        with origin.open("rb") as file:
            file.seek(start)
            raw = file.read(stop - start)
    except OSError as error:
        raise StorageError(f"{origin}: cannot be read: {error.strerror or error}") from error
    if len(raw) != stop - start:
        raise StorageError(f"{origin}: the file has changed since its header was read")
    return raw

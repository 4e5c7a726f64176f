"""Golden sets: the items whose right answer is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from attrs import field, frozen

from osport.errors import StorageError, UsageError

__all__ = ["GoldenItem", "GoldenSet", "read_file"]

REQUIRED = ("id", "input", "expected")
KNOWN = (*REQUIRED, "meta")


@frozen
class GoldenItem:
    """One question with its right answer; ``meta`` is carried along and never sent to a model."""

    id: str
    input: str
    expected: Any
    meta: Mapping[str, Any] = field(factory=dict)


@frozen
class GoldenSet:
    """Items in the order of their file. ``sha256`` is that of the file's bytes."""

    items: tuple[GoldenItem, ...]
    sha256: str
    source: str

    @classmethod
    def from_jsonl(cls, path: str | Path) -> GoldenSet:
        """Read one item a line: ``{"id": str, "input": str, "expected": any JSON, "meta": object}``.

        ``meta`` may be left out; lines of white space are skipped. A line that is not such an
        object, an unknown or missing field, an id used twice, or a file without items is a
        :class:`~osport.errors.UsageError` that names the line; a file that cannot be read is a
        :class:`~osport.errors.StorageError`.
        """
        content = read_file(path, "golden set")
        items: list[GoldenItem] = []
        line_of: dict[str, int] = {}
        for number, line in enumerate(content.split(b"\n"), 1):
            if not line.strip():
                continue
            where = f"golden set {path}, line {number}"
            item = parse_item(line, where)
            if item.id in line_of:
                raise UsageError(f"{where}: id {item.id!r} is already used in line {line_of[item.id]}; ids must differ")
            line_of[item.id] = number
            items.append(item)
        if not items:
            raise UsageError(f"golden set {path}: no items; write one JSON object a line with {', '.join(REQUIRED)}")
        return cls(tuple(items), hashlib.sha256(content).hexdigest(), str(path))

    def __iter__(self) -> Iterator[GoldenItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def read_file(path: str | Path, what: str) -> bytes:
    """The bytes of a file that the caller named; StorageError says ``what`` could not be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StorageError(f"{what} {path}: {error.strerror or error}") from error


def parse_item(line: bytes, where: str) -> GoldenItem:
    try:
        text = line.decode("utf-8-sig")
        data = json.loads(text, object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    except (UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise UsageError(f"{where}: must be a JSON object, not {type(data).__name__}")
    missing = [name for name in REQUIRED if name not in data]
    if missing:
        raise UsageError(f"{where}: missing field {', '.join(missing)}")
    unknown = [name for name in data if name not in KNOWN]
    if unknown:
        raise UsageError(f"{where}: unknown field {', '.join(unknown)}; known are {', '.join(KNOWN)}")
    for name, kind in (("id", str), ("input", str), ("meta", dict)):
        if name in data and not isinstance(data[name], kind):
            raise UsageError(f"{where}: {name} must be a {kind.__name__}, not {type(data[name]).__name__}")
    if not data["id"]:
        raise UsageError(f"{where}: id is empty")
    return GoldenItem(**data)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """json keeps the last of two equal keys without a word; here it is an error."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} occurs twice")
        found[key] = value
    return found


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

"""Headers of safetensors checkpoints: tensor shapes and sizes, without the tensors.

Layout: 8 bytes little-endian length, then that many bytes of JSON, then data
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import frozen

from osport.errors import FormatError, StorageError

__all__ = ["Checkpoint", "SafetensorsHeader", "StoredTensor", "parse_header"]

# The format's own ceiling is 100 MB; a published shard stays under 1 MB, and parsing JSON costs many times its size.
_MAX_HEADER = 4 * 2**20
_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


@frozen
class StoredTensor:
    """One tensor: its data type (``BF16``), its shape, its size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int

    @property
    def elements(self) -> int:
        """Number of stored values; a packed int4 matrix counts its int32 words."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@frozen
class SafetensorsHeader:
    """The tensors of one file by name."""

    tensors: Mapping[str, StoredTensor]

    @classmethod
    def read(cls, path: str | Path) -> SafetensorsHeader:
        """Read a local file. Raises FormatError for a header that lies, StorageError when it cannot be read."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                head = file.read(8)
                length = int.from_bytes(head, "little")
                if len(head) < 8 or length > min(_MAX_HEADER, size - 8):
                    raise FormatError(f"{path}: claims a header of {length} bytes in a file of {size} (at byte 0)")
                raw = file.read(length)
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
        return parse_header(raw, size - 8 - length, str(path))


@frozen
class Checkpoint:
    """All tensors of a checkpoint, gathered over its shards; ``size`` is their sum in bytes."""

    size: int
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def of_folder(cls, folder: str | Path) -> Checkpoint | None:
        """The checkpoint in a folder: every shard's header, or only the index when the shards are not there.

        None when the folder holds neither. Raises FormatError when shards that the index names are missing
        while others are present.
        """
        folder = Path(folder)
        index = folder / "model.safetensors.index.json"
        shards = sorted(folder.glob("*.safetensors"))
        if index.exists():
            total, named = _read_index(index)
            missing = sorted(named - {shard.name for shard in shards})
            if not missing:
                shards = [folder / name for name in sorted(named)]
            elif len(missing) < len(named):
                raise FormatError(f"{folder}: {len(missing)} of {len(named)} shards are missing, first {missing[0]}")
            elif total is not None:
                return cls(total, MappingProxyType({}))
        if not shards:
            return None
        tensors: dict[str, StoredTensor] = {}
        for shard in shards:
            tensors |= SafetensorsHeader.read(shard).tensors
        return cls(sum(tensor.size for tensor in tensors.values()), MappingProxyType(tensors))


def parse_header(raw: bytes, data_size: int | None, name: str) -> SafetensorsHeader:
    """Parse the JSON part; ``data_size`` is the number of bytes behind it, None when unknown."""
    try:
        table = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: the header is not JSON: {error} (at byte 8)") from error
    if not isinstance(table, dict):
        raise FormatError(f"{name}: the header is not a JSON object (at byte 8)")
    tensors = {key: _tensor(key, value, data_size, name) for key, value in table.items() if key != "__metadata__"}
    return SafetensorsHeader(MappingProxyType(tensors))


def _tensor(key: str, value: Any, data_size: int | None, name: str) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        bits = _BITS.get(dtype)
        sane = all(isinstance(n, int) and 0 <= n < 2**48 for n in (*shape, begin, end)) and len(shape) <= 16
    except (TypeError, KeyError, ValueError) as error:
        raise FormatError(f"{name}: the entry of {key!r} is not a tensor's ({error})") from error
    if not sane or begin > end or (data_size is not None and end > data_size):
        raise FormatError(f"{name}: {key!r} claims bytes {begin} to {end}, which the file does not have")
    tensor = StoredTensor(dtype, shape, end - begin)
    if bits is not None and -(-tensor.elements * bits // 8) != tensor.size:
        raise FormatError(f"{name}: {key!r} is {dtype} of shape {shape} but claims {tensor.size} bytes")
    return tensor


def _read_index(path: Path) -> tuple[int | None, set[str]]:
    try:
        if path.stat().st_size > 8 * 2**20:
            raise FormatError(f"{path}: an index of more than 8 MiB is refused")
        table = json.loads(path.read_bytes())
        named = {str(shard) for shard in table["weight_map"].values()}
        total = table.get("metadata", {}).get("total_size")
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path}: not a safetensors index: {error}") from error
    if any("/" in shard or "\\" in shard for shard in named):
        raise FormatError(f"{path}: a shard name leaves the folder")
    return (total if isinstance(total, int) and total > 0 else None), named

"""The SHA-256 of a model file or a record, as a fact."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from osport import store
from osport.core.facts import Fact

__all__ = ["FileDigest"]


class FileDigest(Fact):
    """The SHA-256 of a file, computed when it is first looked at and remembered between runs.

    A model of 100 MB takes a fraction of a second, one of 40 GB minutes, and few callers ask.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, str(path))

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        return _remembered_sha256(value) if name == "value" else value

    def __repr__(self) -> str:
        return f"FileDigest({self.source!r})"


def _remembered_sha256(path: Path) -> str:
    status = path.stat()
    # A file that is written anew gets another size or another time of change.
    key = f"{path}|{status.st_size}|{status.st_mtime_ns}"
    notes = store.cache_dir() / "sha256.json"
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(notes.read_text("utf-8"))
    if isinstance(known, dict) and key in known:
        return known[key]
    digest = store.sha256_of(path)
    # Without the note the file is read again next time: slower, never wrong.
    with contextlib.suppress(OSError):
        notes.parent.mkdir(parents=True, exist_ok=True)
        part = notes.with_name(f"{notes.name}.{os.getpid()}")
        part.write_text(json.dumps({**known, key: digest} if isinstance(known, dict) else {key: digest}), "utf-8")
        part.replace(notes)
    return digest

"""Bytes that cost time to make, kept in a folder of bounded size; whatever is wrong with it, they are made again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

__all__ = ["FileCache"]

DIGEST = hashlib.sha256
DIGEST_BYTES = 32


class FileCache:
    """One file an entry, with a digest before its bytes; what was used least recently goes first.

    ``entries``, ``size``: the most files, and bytes in all. Processes may share the folder. A folder that cannot be
    read or written, and a full disk, are no errors: then nothing is kept.
    """

    def __init__(self, folder: Path, *, entries: int, size: int) -> None:
        self._folder = folder
        self._entries = entries
        self._size = size

    def get(self, key: str) -> bytes | None:
        """What was kept under a key (a name for a file); None where there is nothing, or it was damaged."""
        file = self._folder / key
        try:
            stored = file.read_bytes()
        except OSError:
            return None
        data = stored[DIGEST_BYTES:]
        if DIGEST(data).digest() != stored[:DIGEST_BYTES]:
            self.drop(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(file)  # used just now
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep the bytes, unless they alone would fill the folder; it appears whole or not at all."""
        if len(data) + DIGEST_BYTES > self._size:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(prefix=".part-", dir=self._folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(DIGEST(data).digest())
                    file.write(data)
                Path(part).replace(self._folder / key)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
            self._shrink()

    def drop(self, key: str) -> None:
        """Forget an entry."""
        with contextlib.suppress(OSError):
            (self._folder / key).unlink()

    def _shrink(self) -> None:
        """Part of files that nobody finished count as well, and go like the others."""
        found = []
        with os.scandir(self._folder) as files:
            for file in files:
                with contextlib.suppress(OSError):  # another process may have removed it
                    status = file.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, status.st_size, file.name))
        found.sort()
        size = sum(each for _, each, _ in found)
        for number, (_, each, name) in enumerate(found):
            if size <= self._size and len(found) - number <= self._entries:
                return
            self.drop(name)
            size -= each

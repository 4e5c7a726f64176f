"""The record of a run: append-only JSONL that survives a kill at any moment.

The first line holds the settings that decide the answers; every later line one finished item.
An item is finished once its line, newline included, is in the file.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import attrs
import cattrs
from attrs import field, frozen

from osport.errors import FormatError, StorageError, UsageError
from osport.evals.optional import optional

__all__ = ["ItemResult", "RunRecord"]

FORMAT = 1


@frozen
class ItemResult:
    """How one item ended.

    ``status``: ``answered`` (the form is valid; ``right`` says whether the value is), ``invalid``
    (an answer without the form asked for; its text is kept) or ``error`` (no answer).
    ``started`` and ``ended`` are seconds since the epoch, retries included. ``latency`` is in
    seconds, None where unknown; see :attr:`seconds`. ``retried_on_resume`` marks an error of the
    infrastructure rather than of the model. ``uncertain``: the answer says that the model does not know.
    ``removed_mass``: the probability that the model gave to answers which the form does not allow.
    """

    id: str
    status: Literal["answered", "invalid", "error"]
    right: bool = False
    answer: Any = None
    text: str | None = None
    error: str | None = None
    message: str | None = None
    retried_on_resume: bool = False
    model: str = ""
    enforcement: str = "none"
    latency: float | None = None
    ttft: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    uncertain: bool = False
    removed_mass: float | None = None
    attempts: int = 1
    started: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float | None:
        """Latency for the statistics: a call that failed took for ever; None where it is unknown."""
        return math.inf if self.status == "error" else self.latency


@attrs.define
class RunRecord:
    """One arm's record file, open for appending and locked against other processes.

    ``results``: the last result of each item, by id, in the order in which they were first finished.
    """

    path: Path
    settings: Mapping[str, Any]
    results: dict[str, ItemResult] = field(factory=dict)
    _descriptor: int = -1
    _size: int = 0
    _lock: Any = None

    @classmethod
    def open(cls, path: str | Path, settings: Mapping[str, Any], *, resume: bool = True) -> RunRecord:
        """Create the record, or take up an existing one; without ``resume`` that one is renamed and kept.

        A torn last line (the process was killed while it wrote) is cut off. Raises
        :class:`~osport.errors.UsageError` when the existing record was made with other settings
        (it names them) or is in use by another process, :class:`~osport.errors.FormatError` when
        the file is no record, :class:`~osport.errors.StorageError` when it cannot be written.
        """
        record = cls(Path(path), json.loads(json.dumps(settings)))
        try:
            record._acquire()
            if not resume:
                record._move_aside()
            record._load()
        except BaseException:
            record.close()
            raise
        return record

    def append(self, result: ItemResult) -> None:
        """Write one finished item. On StorageError the record is as it was before the call."""
        self._write({key: value for key, value in attrs.asdict(result).items() if value is not None})
        self.results[result.id] = result

    def close(self) -> None:
        """Release file and lock. Closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _acquire(self) -> None:
        filelock = optional("filelock")
        lock = filelock.FileLock(f"{self.path}.lock", timeout=0)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout as error:
            raise UsageError(f"record {self.path} is in use by another process; wait for it or stop it") from error
        except OSError as error:
            raise StorageError(f"record {self.path} cannot be written: {error.strerror or error}") from error
        self._lock = lock

    def _move_aside(self) -> None:
        number = 1
        while (kept := self.path.with_suffix(f".{number}{self.path.suffix}")).exists():
            number += 1
        try:
            if self.path.exists():
                self.path.rename(kept)
        except OSError as error:
            raise StorageError(f"record {self.path} cannot be moved aside: {error.strerror}") from error

    def _load(self) -> None:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            # A device such as /dev/full reads without end.
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise StorageError(f"record {self.path} is not a regular file")
            whole, newline, _torn = self.path.read_bytes().rpartition(b"\n")
            content = whole + newline
            os.ftruncate(self._descriptor, len(content))
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"record {self.path} cannot be opened: {error.strerror or error}") from error
        self._size = len(content)
        if not content:
            self._write({"osport_record": FORMAT, "settings": self.settings})
            return
        head, *lines = content.splitlines()
        self._check_head(head)
        for number, line in enumerate(lines, 2):
            try:
                result = cattrs.structure(json.loads(line), ItemResult)
            except Exception as error:
                raise FormatError(f"record {self.path}, line {number} is damaged: {error}") from error
            self.results[result.id] = result

    def _check_head(self, line: bytes) -> None:
        try:
            head = json.loads(line)
            version, before = head["osport_record"], head["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{self.path} is not a record of osport; choose another folder") from error
        if version != FORMAT:
            raise FormatError(f"record {self.path} has format {version!r}; this osport writes {FORMAT}")
        changed = differences(before, self.settings)
        if changed:
            raise UsageError(
                f"record {self.path} was made with other settings ({'; '.join(changed)}); "
                "restore them to resume, or choose another folder"
            )

    def _write(self, data: Mapping[str, Any]) -> None:
        line = json.dumps(data, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise StorageError(
                f"record {self.path} cannot be written: {error.strerror}; "
                f"the {len(self.results)} finished items before are safe, resume once there is room"
            ) from error
        except BaseException:  # Ctrl-C between two partial writes
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """What differs between two JSON values, each with its dotted path."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in dict.fromkeys([*before, *now]):
            path = f"{where}.{key}" if where else key
            if key not in before or key not in now:
                found.append(f"{path}: {'added' if key in now else 'removed'}")
            else:
                found += differences(before[key], now[key], path)
        return found
    return [] if before == now else [f"{where}: {shorten(before)} before, {shorten(now)} now"]


def shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""One child process that holds vLLM, as its parent sees it: calls go in, and the lines of each come back to it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any

from attrs import define, field

from osport.backends._engine_log import EngineLog

__all__ = ["Line", "Running", "is_last"]

Line = Mapping[str, Any]


@define(eq=False)
class Running:
    """One child: its process, what it said when it was ready, and where the lines of each call go.

    Two threads serve its pipes, and neither waits for the other: the child does not read while it writes, so with
    both pipes full a reader that waited would wait for ever.
    """

    process: subprocess.Popen[bytes]
    log: EngineLog
    ready: Line = field(factory=dict)
    answered: bool = False
    calls: dict[int, Callable[[Line | None], None]] = field(factory=dict)
    _to_write: queue.SimpleQueue[bytes | None] = field(factory=queue.SimpleQueue)
    _lock: threading.Lock = field(factory=threading.Lock)
    _numbers: int = 0
    _ended: bool = False
    _killed: bool = False

    def __attrs_post_init__(self) -> None:
        threading.Thread(target=self._write_all, name="osport-vllm-write", daemon=True).start()

    def begin(self, call: Line, deliver: Callable[[Line | None], None]) -> int:
        """Send a call; ``deliver`` gets its lines, and None when the child has ended."""
        with self._lock:
            self._numbers += 1
            number = self._numbers
            self.calls[number] = deliver
            ended = self._ended
        if ended:
            deliver(None)
        else:
            self.write({"call": number, **call})
        return number

    def abort(self, number: int) -> None:
        """Let go of a call, whether it has ended or not."""
        with self._lock:
            running = self.calls.pop(number, None) is not None
        if running:
            self.write({"call": number, "do": "abort"})

    def write(self, line: Line) -> None:
        """One line to the child, which does not wait until it is read. That the child has ended is told by ``read``."""
        self._to_write.put(json.dumps(line).encode() + b"\n")

    def end_input(self) -> None:
        """Close the child's pipe behind the lines that are still to be written."""
        self._to_write.put(None)

    def _write_all(self) -> None:
        assert self.process.stdin is not None  # noqa: S101 - a pipe was asked for
        with contextlib.suppress(OSError), self.process.stdin as pipe:
            while (line := self._to_write.get()) is not None:
                pipe.write(line)
                pipe.flush()

    def read(self, stdout: IO[bytes]) -> None:
        """Hand on what the child says, until it ends."""
        with contextlib.suppress(OSError, ValueError):
            for data in stdout:
                line = json.loads(data)
                number = line["call"]
                self.answered = self.answered or (is_last(line) and "error" not in line)
                with self._lock:
                    deliver = self.calls.pop(number, None) if is_last(line) else self.calls.get(number)
                if deliver is not None:
                    deliver(line)
        self.end_group()
        with self._lock:
            self._ended = True
            waiting = list(self.calls.values())
            self.calls.clear()
        for deliver in waiting:
            deliver(None)

    def end_group(self) -> None:
        """End what vLLM started, and the child itself if it is still there.

        Once only, as long as the process id is certain to be ours.
        """
        with self._lock:
            first, self._killed = not self._killed, True
        if first:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return not self._ended and self.process.poll() is None


def is_last(line: Line) -> bool:
    """Whether no other line of its call follows."""
    return "text" not in line or "finish" in line

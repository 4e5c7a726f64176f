"""The last lines that an engine in a child process wrote, kept for the error message."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import IO

__all__ = ["EngineLog"]

LOG_LINES = 200
TAIL_LINES = 8


class EngineLog:
    """Reads a stream to its end on a thread of its own, for a full pipe would stop the child."""

    def __init__(self, stream: IO[bytes], *, lines: int = TAIL_LINES) -> None:
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self._shown = lines
        self._reader = threading.Thread(target=self._keep, args=(stream,), name="osport-engine-log", daemon=True)
        self._reader.start()

    def complete(self, seconds: float = 1.0) -> None:
        """Wait for what a child that has ended still had to say."""
        self._reader.join(seconds)

    def tail(self) -> str:
        """The last lines under a heading; empty when there are none."""
        lines = list(self.lines)[-self._shown :]
        return "\n".join(["last lines of the engine's log:", *(f"  {line}" for line in lines)]) if lines else ""

    def _keep(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError), stream:
            for line in stream:
                self.lines.append(line.decode("utf-8", "replace").rstrip())

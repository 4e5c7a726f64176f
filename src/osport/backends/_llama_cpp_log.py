"""llama.cpp's log in this process: kept in memory for messages, and silent on the host's stderr."""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from typing import Any

__all__ = ["clear_log", "keep_log", "log_tail", "repeat_on_stderr"]

LOG_LINES = 200
TAIL_LINES = 8
# ggml_log_level in ggml.h.
DEBUG, CONTINUED = 1, 5

_log: deque[str] = deque(maxlen=LOG_LINES)
_callback: Any = None
_repeat = False


def keep_log(package: Any) -> None:
    """Take over the log of ``llama_cpp``, for the whole process."""
    global _callback
    if _callback is None:
        level_of_line = DEBUG

        def keep(level: int, text: bytes, user_data: object) -> None:
            nonlocal level_of_line
            level_of_line = level_of_line if level == CONTINUED else level
            line = text.decode("utf-8", "replace").rstrip()
            # Dots show the progress of loading.
            if level_of_line != DEBUG and line.strip(". "):
                _log.append(line)
                if _repeat:
                    print(line, file=sys.stderr, flush=True)

        # The engine keeps only the address, so the callback must never be collected.
        _callback = package.llama_log_callback(keep)
    package.llama_log_set(_callback, ctypes.c_void_p(0))


def repeat_on_stderr() -> None:
    """For a process of its own, whose last lines must outlive it."""
    global _repeat
    _repeat = True


def clear_log() -> None:
    """Forget what was logged so far."""
    _log.clear()


def log_tail() -> str:
    """The last lines that llama.cpp logged in this process, as the end of an error message."""
    lines = list(_log)[-TAIL_LINES:]
    return "\n".join(["last lines of the engine's log:", *(f"  {line}" for line in lines)]) if lines else ""

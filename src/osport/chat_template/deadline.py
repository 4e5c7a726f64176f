"""How long a template may run, and how much memory the process may gain while it does.

Python's own interrupt serves: an exception is raised in the thread that renders, between two of its instructions.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import time

__all__ = ["COMPILE_SECONDS", "SECONDS", "OutOfMemory", "OutOfTime", "deadline"]

SECONDS = 3.0  # of one render; with the next, a first call stays under 5 s
COMPILE_SECONDS = 1.5  # published templates take a tenth of it
MEMORY_BYTES = 512 * 2**20


class OutOfTime(Exception):
    """A template ran longer than it may."""


class OutOfMemory(Exception):
    """The process grew by more than :data:`MEMORY_BYTES` while a template ran."""


class _Running(threading.local):
    """The deadline of this thread, on the monotonic clock; 0 when nothing runs under one."""

    until = 0.0


_running = _Running()


class _Watch:
    """One thread that looks after all renders of this process, and stops those that are late or too large."""

    POLL_SECONDS = 0.05
    IDLE_SECONDS = 30.0
    LET_GO = -1.0  # in the place of a time: it was stopped already

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, float] = {}
        self._thread: threading.Thread | None = None

    def start(self, ident: int, until: float) -> None:
        with self._lock:
            self._running[ident] = until
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look_after, name="osport-template-watch", daemon=True)
                self._thread.start()

    def stop(self, ident: int) -> None:
        with self._lock:
            if self._running.pop(ident, 0.0) < 0:  # stopped by us: the exception may still be on its way
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None)

    def _look_after(self) -> None:
        idle_since = time.monotonic()
        before: dict[int, tuple[float, int]] = {}  # until when, and how large the process was at the first look
        while True:
            time.sleep(self.POLL_SECONDS)
            now = time.monotonic()
            with self._lock:
                size = _own_bytes() if self._running else 0
                before = {
                    ident: before[ident] if before.get(ident, (0,))[0] == until else (until, size)
                    for ident, until in self._running.items()
                }
                for ident, until in self._running.items():
                    large = size - before[ident][1] > MEMORY_BYTES
                    if until >= 0 and (large or until < now):
                        self._running[ident] = self.LET_GO
                        raised = ctypes.py_object(OutOfMemory if large else OutOfTime)
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), raised)
                if self._running:
                    idle_since = now
                elif now - idle_since > self.IDLE_SECONDS:
                    self._thread = None
                    return


def _own_bytes() -> int:
    """What this process holds apart from mapped files, as far as the system tells."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - not a path but the kernel
            _, resident, shared = (int(pages) for pages in statm.read().split()[:3])
    except (OSError, ValueError):
        return 0
    return (resident - shared) * mmap.PAGESIZE


_watch = _Watch()


class deadline:  # noqa: N801 - used as a context manager, like those of contextlib
    """Give what runs inside so many seconds (default :data:`SECONDS`); deadlines inside one share its time."""

    __slots__ = ("_ident", "_seconds")

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = SECONDS if seconds is None else seconds

    def __enter__(self) -> None:
        self._ident = 0
        if not _running.until:
            self._ident = threading.get_ident()
            _running.until = until = time.monotonic() + self._seconds
            _watch.start(self._ident, until)
        elif _running.until < time.monotonic():
            raise OutOfTime(self._late())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._ident:
            return
        _watch.stop(self._ident)
        until, _running.until = _running.until, 0.0
        # The exceptions of the watch come without words. What was stopped inside, and taken for a refusal there,
        # says nothing about the template.
        if isinstance(error, OutOfMemory):
            raise OutOfMemory(f"it took more than {MEMORY_BYTES // 2**20} MiB of memory") from None
        if isinstance(error, OutOfTime) or (
            until < time.monotonic() and (error is None or isinstance(error, Exception))
        ):
            raise OutOfTime(self._late()) from None

    def _late(self) -> str:
        return f"it ran longer than {self._seconds:g} s"

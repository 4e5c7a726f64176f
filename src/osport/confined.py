"""Questions answered in a process of its own, under limits of the operating system.

For what no ``except`` can stop in this process: one call into C or Rust that never ends, or takes all memory. The
child answers one line of JSON for each line it reads. It is started at the first need, kept for the next question,
and killed when it is late or too large.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import IO, Any

__all__ = ["Confined", "Unanswered", "serve"]

START_SECONDS = 60.0
GRACE_SECONDS = 1.0
AT_ONCE = 4
"""So many children work side by side, so that a question that takes its whole time holds up no other."""

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Unanswered(Exception):
    """No answer within the limits; the message says which these are."""


class Confined:
    """Questions to the ``main`` of a module, which calls :func:`serve` with the same limits.

    ``seconds``: of one question. ``memory``: bytes beyond what the child holds when it is ready. Thread-safe. The
    children end with this object, or with this process.
    """

    def __init__(self, module: str, *, seconds: float, memory: int) -> None:
        self._module = module
        self._limits = f"{seconds:g} s or more than {memory // 2**20} MiB"
        self._seconds = seconds
        self._places = threading.Semaphore(AT_ONCE)
        self._idle: list[_Child] = []
        weakref.finalize(self, _stop_all, self._idle)

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The child's answer. Raises :class:`Unanswered`."""
        line = json.dumps(question, default=lambda value: f"<{type(value).__name__}>")
        with self._places:
            child = self._ready()
            try:
                reply = child.exchange(line, self._seconds + GRACE_SECONDS)
            except BaseException:  # an answer that comes late must not be taken for the next one's
                child.stop()
                raise
            if not reply:
                child.stop()
                raise Unanswered(f"it took longer than {self._limits}")
            # One is enough between questions.
            if self._idle:
                child.stop()
            else:
                self._idle.append(child)
        answer: dict[str, Any] = json.loads(reply)
        return answer

    def _ready(self) -> _Child:
        while True:
            try:
                child = self._idle.pop()
            except IndexError:
                break
            if child.alive:
                return child
            child.stop()
        child = _Child(self._module)
        if child.exchange("", START_SECONDS) != "ready\n":
            child.stop()
            raise Unanswered("the process that it needs does not start")
        return child


class _Child:
    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {module} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="surrogatepass",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def exchange(self, line: str, seconds: float) -> str:
        """Write a line, read a line; an empty string when the child is late or gone."""
        answers: list[str] = []

        def talk(to: IO[str], back: IO[str]) -> None:
            with contextlib.suppress(OSError, ValueError):
                to.write(line + "\n")
                to.flush()
                answers.append(back.readline())

        thread = threading.Thread(target=talk, args=(self._process.stdin, self._process.stdout), daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self._process.kill()
            thread.join()
            return ""
        return answers[0] if answers else ""

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _stop_all(children: list[_Child]) -> None:
    while children:
        children.pop().stop()


def serve(prepare: Callable[[], Answer], *, seconds: float, memory: int) -> None:
    """The child: prepare yourself, then set limits, then answer until stdin ends.

    ``prepare`` loads all that the answers need. See :class:`Confined` for the limits.
    """
    # What is printed in this process must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer = prepare()
    sys.stdin.readline()
    _limit_memory_and_files(memory)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        _limit_time(seconds)
        try:
            reply = answer(json.loads(line))
        except MemoryError:
            os._exit(1)
        print(json.dumps(reply), file=answers, flush=True)


def _limit_memory_and_files(memory: int) -> None:
    """No files, and no more memory than given beyond what is held now."""
    try:
        import resource
    except ImportError:  # Windows: the time limit holds alone
        return
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - not a path but the kernel
            size = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    for name in ("RLIMIT_FSIZE", "RLIMIT_CORE"):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (0, 0))


def _limit_time(seconds: float) -> None:
    """End by yourself when the parent, which would see to it, is gone."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        allowed = int(time.process_time() + seconds + GRACE_SECONDS) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, most))

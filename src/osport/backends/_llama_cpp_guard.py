"""The calls of one llama.cpp model in a child process: whatever ends the child is an error here, and no more."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from attrs import evolve

from osport.backends._child_process import ChildProcess
from osport.backends._interruption import Interruption
from osport.backends._llama_cpp_calls import NAME, Settings
from osport.backends._one_at_a_time import OneAtATime
from osport.core.alarm import alarm
from osport.core.types import Completion, ContinuationScore, Message, Request
from osport.errors import BackendError, ServerFault, TimedOut, UnsupportedFeature, UsageError

__all__ = ["GuardedCalls"]

# The child stops a call by itself; if it does not within this many seconds, it hangs and is ended.
PATIENCE = 5.0
SHORT_OF_MEMORY = "If memory is short, give a smaller context or a smaller file"


class GuardedCalls:
    """Thread-safe. The child starts with the first call, and anew with the first call after its death."""

    def __init__(self, settings: Settings, startup_timeout: float) -> None:
        if sys.platform == "win32":
            raise UnsupportedFeature("a child process on Windows", NAME, reason="say in_process=True")
        self.settings = settings
        self._startup_timeout = startup_timeout
        self._queue = OneAtATime(NAME)
        self._lock = threading.Lock()
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, None before the first call."""
        return self._child.process.pid if self._child else None

    def load(self) -> None:
        """Start the child and load the model now."""
        with self._queue.turn(self.settings.timeout, Interruption()):
            self._running()

    def answer(self, request: Request, interruption: Interruption, *, pieces: bool) -> Generator[str, None, Completion]:
        """The pieces of the answer, if they are wanted, then the whole of it."""
        started = time.perf_counter()
        first: float | None = None
        with self._turn(request, interruption) as (child, request, sent):
            talk = child.talk(interruption, "answer", request, pieces)
            while True:
                try:
                    piece = next(talk)
                except StopIteration as end:
                    completion: Completion = end.value
                    break
                first = first or time.perf_counter() - started
                yield piece
        if first is None and completion.ttft is not None:
            first = completion.ttft + sent - started
        return evolve(completion, latency=time.perf_counter() - started, ttft=first)

    def score(
        self, request: Request, continuations: Sequence[str], interruption: Interruption
    ) -> tuple[ContinuationScore, ...]:
        """The log-probabilities of the continuations."""
        with self._turn(request, interruption) as (child, request, _):
            talk = child.talk(interruption, "score", request, tuple(continuations))
            scores: tuple[ContinuationScore, ...] = _end_of(talk)
            return scores

    def count_tokens(self, messages: Sequence[Message], interruption: Interruption) -> int:
        """Prompt tokens of these messages after the chat template."""
        with self._turn(Request(tuple(messages)), interruption) as (child, request, _):
            count: int = _end_of(child.talk(interruption, "count_tokens", request.messages))
            return count

    def close(self) -> None:
        """Stop the child, whatever it is doing."""
        self._queue.close(interrupt=self._stop)

    def _stop(self) -> None:
        with self._lock:
            if self._child is not None:
                self._child.stop()

    @contextlib.contextmanager
    def _turn(self, request: Request, interruption: Interruption) -> Iterator[tuple[_Child, Request, float]]:
        """A child for one call, the request with the time that is left to it, and when that was."""
        timeout = request.timeout or self.settings.timeout
        with self._queue.turn(timeout, interruption) as left:
            child = self._running()
            sent = time.perf_counter()
            try:
                with child.ended_after(left + PATIENCE):
                    yield child, evolve(request, timeout=left), sent
            except TimedOut as error:
                raise TimedOut(f"{NAME}: no complete answer within {timeout:g} s (timeout)", backend=NAME) from error
            except (EOFError, OSError) as error:
                self._queue.check_open()
                if child.out_of_patience:
                    raise TimedOut(
                        f"{NAME}: no answer within {timeout:g} s (timeout), and the engine did not stop either; its "
                        "process was ended, the next call starts a new one",
                        backend=NAME,
                    ) from error
                what = "ended during this call; the next call starts a new one"
                raise ServerFault(self._ended(child, what), backend=NAME) from error
            finally:
                if child.talking:
                    child.fall_silent()

    def _running(self) -> _Child:
        """The child with the model loaded; the caller has the turn."""
        if self._child is not None and self._child.alive:
            return self._child
        with self._lock:
            self._queue.check_open()
            if self._child is not None:
                self._child.stop()
            child = self._child = _Child()
        try:
            with child.ended_after(self._startup_timeout):
                child.send((os.getpid(), sys.path))
                child.send(self.settings)
                _end_of(child.talk(Interruption(), "load"))
        except (EOFError, OSError) as error:
            self._queue.check_open()
            if child.out_of_patience:
                what = f"did not load {self.settings.path} within {self._startup_timeout:g} s (startup_timeout)"
                raise TimedOut(f"{NAME}: the engine's process {what}", backend=NAME) from error
            what = f"ended while it loaded {self.settings.path} with context={self.settings.context}"
            raise BackendError(self._ended(child, what), backend=NAME) from error
        except BaseException:
            child.stop()
            raise
        return child

    def _ended(self, child: _Child, what: str) -> str:
        return f"{NAME}: the engine's process {what}. {SHORT_OF_MEMORY} {child.ended()}"


class _Child(ChildProcess):
    """The protocol of :mod:`osport.backends._llama_cpp_child`: numbered calls, and a number alone to end one."""

    def __init__(self) -> None:
        super().__init__(Path(__file__).with_name("_llama_cpp_child.py"))
        self.out_of_patience = False
        self.talking = False
        self.calls = 0
        self._sending = threading.Lock()
        self._requests = Connection(os.dup(self.stdin.fileno()), readable=False)
        self._answers = Connection(os.dup(self.stdout.fileno()), writable=False)
        self.stdin.close()
        self.stdout.close()

    def send(self, message: object) -> None:
        """Write one message; safe from any thread."""
        try:
            data = ForkingPickler.dumps(message)
        except Exception as error:
            raise UsageError(f"{NAME}: the request cannot be sent to the engine's process: {error}") from error
        with self._sending:
            self._requests.send_bytes(data)

    def talk(self, interruption: Interruption, method: str, *arguments: object) -> Generator[str, None, Any]:
        """Call a method and hand on the pieces until its result."""
        self.calls += 1
        number = self.calls
        self.send((number, method, *arguments))
        self.talking = True
        with interruption.acted_on_by(lambda: self._interrupt(number)):
            while True:
                kind, value = self._answers.recv()
                if kind == "piece":
                    yield value
                    continue
                self.talking = False
                if kind == "failed":
                    raise value
                return value

    def fall_silent(self) -> None:
        """End a call whose result nobody waits for; a child that does not is ended itself."""
        self._interrupt(self.calls)
        try:
            with self.ended_after(PATIENCE):
                while self._answers.recv()[0] == "piece":
                    pass
            self.talking = False
        except BaseException as error:
            # Also when the reader was torn from the middle of a message, and what it reads now makes no sense.
            self.stop()
            if not isinstance(error, Exception):
                raise

    def _interrupt(self, number: int) -> None:
        with contextlib.suppress(OSError):
            self.send((number,))

    @contextlib.contextmanager
    def ended_after(self, seconds: float) -> Iterator[None]:
        """Kill the child if the block lasts longer; reading from it then fails with EOFError."""

        def kill() -> None:
            self.out_of_patience = True
            self.process.kill()

        with alarm(seconds, kill):
            yield


def _end_of(talk: Generator[str, None, Any]) -> Any:
    while True:
        try:
            next(talk)
        except StopIteration as end:
            return end.value

"""The parent's side of vLLM: a child process that holds the engine, and many calls to it at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import frozen

from osport.backends._engine_log import EngineLog
from osport.backends._vllm_running import Line, Running, is_last
from osport.errors import (
    BackendError,
    BadRequest,
    ContextOverflow,
    MissingDependency,
    OsportError,
    ServerFault,
    TimedOut,
    UsageError,
)

__all__ = ["VllmEngine"]

NAME = "vllm"
MAX_RESTARTS = 3
STOP_SECONDS = 15.0
LOG_LINES_SHOWN = 20
CLOSED = "this vllm model is closed; make a new Model"
# Started as a script.
CHILD = Path(__file__).with_name("_vllm_child.py")


@frozen
class _Failure:
    """What a call to the child ends with when it does not end with an answer."""

    engine: VllmEngine
    running: Running

    def of(self, line: Line | None) -> OsportError | None:
        if line is None:
            return self.engine.death(self.running)
        kind = line.get("error")
        if kind is None:
            return None
        if kind == "overflow":
            return ContextOverflow(
                f"{NAME}: the prompt has {line['tokens']} tokens and the context {self.running.ready['context']}; at "
                "least one must be left for the answer. osport never trims a prompt: shorten it or give a larger "
                "context",
                **self.engine.names,
            )
        error: type[BackendError] = BadRequest if kind == "request" else ServerFault
        return error(f"{NAME}: {line['message']}", **self.engine.names)


class VllmEngine:
    """vLLM in a child process; thread-safe. The first call starts it, one that died is started again."""

    def __init__(self, settings: Mapping[str, Any], environment: Mapping[str, str], *, startup_timeout: float) -> None:
        if find_spec("vllm") is None:
            raise MissingDependency("vllm", "vllm")
        self.closed = False
        self.restarts = 0
        self.names: dict[str, Any] = {"backend": NAME, "model": settings["served_model_name"]}
        self._settings = settings
        self._environment = environment
        self._startup_timeout = startup_timeout
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def pid(self) -> int | None:
        """Process id of the child, None before the first call."""
        return self._running.process.pid if self._running else None

    def running(self) -> Running:
        """The child, started if need be.

        Raises :class:`~osport.errors.BackendError`, which trying again would not change, when it does not start,
        and when it has died in spite of three restarts without an answer in between;
        :class:`~osport.errors.TimedOut` when it does not load in time.
        """
        with self._lock:
            if self.closed:
                raise UsageError(CLOSED)
            if self._running is None:
                self._running = self._start()
            elif not self._running.alive:
                if self._running.answered:
                    self.restarts = 0
                if self.restarts >= MAX_RESTARTS:
                    what = f"the engine died again after {MAX_RESTARTS} restarts without an answer and is not restarted"
                    raise BackendError(self._ended(self._running, what), **self.names)
                self.restarts += 1
                self._stop()
                self._running = self._start()
            return self._running

    def lines(self, call: Line, timeout: float) -> Iterator[Line]:
        """The lines of one call, the last one included; leaving early ends the call in the engine, too."""
        running = self.running()
        failure = _Failure(self, running)
        arrived: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        deadline = time.monotonic() + timeout
        number = running.begin(call, arrived.put)
        try:
            while True:
                try:
                    line = arrived.get(timeout=max(deadline - time.monotonic(), 0))
                except queue.Empty:
                    raise self.too_late(timeout) from None
                if error := failure.of(line):
                    raise error
                assert line is not None  # noqa: S101 - None is a failure
                yield line
                if is_last(line):
                    return
        finally:
            running.abort(number)

    async def alines(self, call: Line, timeout: float) -> AsyncIterator[Line]:
        """:meth:`lines` without a thread that waits."""
        running = self._running
        if running is None or self.closed or not running.alive:
            # Starting it takes its time.
            running = await asyncio.to_thread(self.running)
        failure = _Failure(self, running)
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Line | None] = asyncio.Queue()

        def deliver(line: Line | None) -> None:
            # A loop that is closed has nobody who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(arrived.put_nowait, line)

        deadline = loop.time() + timeout
        number = running.begin(call, deliver)
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        line = await arrived.get()
                except TimeoutError:
                    raise self.too_late(timeout) from None
                if error := failure.of(line):
                    raise error
                assert line is not None  # noqa: S101 - None is a failure
                yield line
                if is_last(line):
                    return
        finally:
            running.abort(number)

    def each_last(self, calls: Mapping[int, tuple[Line, float]], *, at_once: int) -> dict[int, Line | OsportError]:
        """The last line of each call, or its error, by the call's own key; ``at_once`` of them in the engine.

        A call's time, in seconds beside it, begins when it is handed to the engine.
        """
        arrived: queue.SimpleQueue[tuple[int, Line | None]] = queue.SimpleQueue()
        waiting = list(calls.items())[::-1]
        begun: dict[int, tuple[Running, int, float]] = {}
        results: dict[int, Line | OsportError] = {}
        try:
            while waiting or begun:
                while waiting and len(begun) < at_once:
                    key, (call, timeout) = waiting.pop()
                    try:
                        running = self.running()
                    except OsportError as error:
                        results[key] = error
                        continue
                    number = running.begin(call, lambda line, key=key: arrived.put((key, line)))  # type: ignore[misc]
                    begun[key] = running, number, time.monotonic() + timeout
                if not begun:
                    break
                key = min(begun, key=lambda key: begun[key][2])
                line: Line | None = None
                error_of_key: OsportError | None = None
                try:
                    key, line = arrived.get(timeout=max(begun[key][2] - time.monotonic(), 0))
                except queue.Empty:
                    error_of_key = self.too_late(calls[key][1])
                if key not in begun:  # its time was up before this line came
                    continue
                running, number, _ = begun.pop(key)
                running.abort(number)
                error_of_key = error_of_key or _Failure(self, running).of(line)
                results[key] = error_of_key if error_of_key is not None or line is None else line  # type: ignore[assignment]
        finally:
            for running, number, _ in begun.values():
                running.abort(number)
        return results

    def too_late(self, timeout: float) -> TimedOut:
        """The error of a call whose time is up."""
        return TimedOut(f"{NAME}: no complete answer within {timeout:g} s (timeout)", **self.names)

    def death(self, running: Running) -> OsportError:
        """The error of a call whose child has ended."""
        if self.closed:
            return UsageError(CLOSED)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(STOP_SECONDS)
        return ServerFault(self._ended(running, "the engine died during this call"), **self.names)

    def close(self) -> None:
        """End the child and what it started. Closing twice is harmless."""
        self.closed = True
        # Once without the lock: who holds it may be waiting for this very process to load.
        self._stop()
        with self._lock:
            self._stop()

    def _start(self) -> Running:
        process = subprocess.Popen(
            # -P: the folder of the script holds a vllm.py of our own.
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **self._environment},
            # A group of its own: what vLLM starts ends with it, and Ctrl-C reaches the parent only.
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        assert process.stderr is not None  # noqa: S101
        running = Running(process, EngineLog(process.stderr, lines=LOG_LINES_SHOWN))
        self._stop = weakref.finalize(self, _stop, running, os.getpid())
        running.write({"parent": os.getpid(), **self._settings})
        first: list[bytes] = []
        wait = threading.Thread(target=lambda: first.append(process.stdout.readline()), daemon=True)  # type: ignore[union-attr]
        wait.start()
        try:
            wait.join(self._startup_timeout)
        except BaseException:
            self._stop()
            raise
        if first and first[0]:
            running.ready = json.loads(first[0])
            threading.Thread(target=running.read, args=(process.stdout,), name="osport-vllm", daemon=True).start()
            return running
        timed_out = not first
        self._stop()
        running.log.complete()
        if self.closed:
            raise UsageError(CLOSED)
        if timed_out:
            message = f"{NAME}: the model was not loaded after {self._startup_timeout:g} s (startup_timeout)"
            raise TimedOut(f"{message}\n{running.log.tail()}".rstrip(), **self.names)
        raise BackendError(self._ended(running, f"{NAME}: the model does not load"), **self.names)

    def _ended(self, running: Running, what: str) -> str:
        code = running.process.returncode
        ended = f" (signal {-code})" if code is not None and code < 0 else f" (exit status {code})"
        running.log.complete()
        return f"{what}{ended}\n{running.log.tail()}".rstrip()


def _stop(running: Running, owner: int) -> None:
    if os.getpid() != owner:  # a forked copy of the parent must not stop the parent's engine
        return
    process = running.process
    running.end_input()
    # Loaded, the child ends in order when its pipe closes; before, it does not look at the pipe.
    if running.ready:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    running.end_group()
    process.wait()

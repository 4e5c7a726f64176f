"""The parent's side of the embedded server: start, watch, restart a few times, stop, leave nothing behind."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from attrs import field, frozen

from osport.backends._engine_log import EngineLog
from osport.errors import MissingDependency, ServerFault, TimedOut, UsageError

__all__ = ["EmbeddedServer", "Endpoint", "Settings", "engine_name"]

# Threads that spin while they wait for one another crawl as soon as another process wants their core. On two
# cores, 64 tokens of a 135M model: idle 0.42 s either way; beside one busy process 6 s and more with OpenMP's
# own spin count, 1.2 to 2.3 s with this one.
BESIDE_OTHERS = {"GOMP_SPINCOUNT": "300"}
MAX_RESTARTS = 3
STOP_SECONDS = 3.0


@frozen
class Endpoint:
    """Where a server listens, and the key it wants."""

    url: str
    api_key: str | None = field(default=None, repr=False)


@frozen
class Settings:
    """What the engine is started with. ``context`` counts tokens per slot; ``port`` 0: any free one."""

    path: Path
    alias: str
    context: int
    slots: int
    threads: int
    gpu_layers: int | None
    port: int
    startup_timeout: float


def _nothing() -> None:
    """What there is to stop before the first start."""


@frozen(eq=False)
class _Child:
    process: subprocess.Popen[bytes]
    endpoint: Endpoint
    log: EngineLog

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class EmbeddedServer:
    """One llama.cpp server in a child process; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        if find_spec("xllamacpp") is None:
            raise MissingDependency("xllamacpp", "llama-server")
        self.settings = settings
        self.closed = False
        self.restarts = 0
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._stop: Callable[[], object] = _nothing

    @property
    def pid(self) -> int | None:
        """Process id of the child, None before the first call."""
        return self._child.process.pid if self._child else None

    def endpoint(self) -> Endpoint:
        """Where the server listens. The first call starts it.

        A server that died is started again, at most three times in all; then it is a ServerFault for good.
        """
        with self._lock:
            if self.closed:
                raise UsageError("this llama_server model is closed; make a new Model")
            if self._child is None:
                self._child = self._start()
            elif not self._child.alive:
                if self.restarts >= MAX_RESTARTS:
                    what = f"the embedded server died again after {MAX_RESTARTS} restarts and is not restarted"
                    raise self._fault(self._child, what)
                self.restarts += 1
                self._stop()
                self._child = self._start()
            return self._child.endpoint

    def death(self, endpoint: Endpoint) -> ServerFault | None:
        """The fault to report if the server that listened there has died, else None."""
        child = self._child
        if child is None or child.endpoint is not endpoint:
            return ServerFault("the embedded server died during this call and was started again since", **self._names)
        # A connection breaks a moment before the process can be reaped.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(0.5)
        return None if child.alive else self._fault(child, "the embedded server died during this call")

    def close(self) -> None:
        """Stop the child. Closing twice is harmless."""
        self.closed = True
        # Once without the lock: who holds it may be waiting for this very process to start.
        self._stop()
        with self._lock:
            self._stop()

    @property
    def _names(self) -> dict[str, Any]:
        return {"backend": "llama_server", "model": self.settings.alias}

    def _start(self) -> _Child:
        settings = self.settings
        key = secrets.token_urlsafe(24)
        process = subprocess.Popen(
            # -P: neither the working folder nor the script's own may shadow a package. By path, not by -m:
            # the child needs nothing of osport and finds xllamacpp where this interpreter does.
            [sys.executable, "-P", str(Path(__file__).with_name("_llama_server_child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**BESIDE_OTHERS, **os.environ},
            # Ctrl-C in the terminal reaches the parent only, which then stops the child in order.
            start_new_session=True,
        )
        self._stop = weakref.finalize(self, _stop, process, os.getpid())
        assert process.stderr is not None  # noqa: S101 - a pipe was asked for
        log = EngineLog(process.stderr)
        parameters = {
            "parent": os.getpid(),
            "path": str(settings.path),
            "alias": settings.alias,
            "context": settings.context,
            "slots": settings.slots,
            "threads": settings.threads,
            "gpu_layers": settings.gpu_layers,
            "port": settings.port,
            "api_key": key,
        }
        try:
            url = _exchange(process, parameters, settings.startup_timeout)
        except BaseException:
            self._stop()
            raise
        child = _Child(process, Endpoint(url or "", key), log)
        if url:
            return child
        timed_out = process.poll() is None
        self._stop()
        log.complete()
        if timed_out:
            message = f"the embedded server was not ready after {settings.startup_timeout:g} s (startup_timeout)"
            raise TimedOut(f"{message}\n{log.tail()}".rstrip(), **self._names)
        if any("couldn't bind" in line for line in log.lines):
            raise UsageError(
                f"port {settings.port} on 127.0.0.1 is in use; leave the option port out and a free one is taken"
            )
        raise self._fault(child, f"the embedded server did not start with {settings.path}")

    def _fault(self, child: _Child, what: str) -> ServerFault:
        code = child.process.returncode
        ended = f" (signal {-code})" if code is not None and code < 0 else f" (exit status {code})"
        return ServerFault(f"{what}{ended}\n{child.log.tail()}".rstrip(), **self._names)


@functools.cache
def engine_name() -> str:
    """Name and version of the embedded engine."""
    return f"xllamacpp {version('xllamacpp')}"


def _exchange(process: subprocess.Popen[bytes], parameters: dict[str, object], timeout: float) -> str | None:
    """Send the parameters and wait for the address; None when none came in time."""
    answer: list[bytes] = []

    def talk(stdin: IO[bytes], stdout: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            stdin.write(json.dumps(parameters).encode() + b"\n")
            stdin.flush()
            answer.append(stdout.readline())

    thread = threading.Thread(target=talk, args=(process.stdin, process.stdout), name="osport-llama-start", daemon=True)
    thread.start()
    thread.join(timeout)
    if answer and answer[0]:
        return str(json.loads(answer[0])["url"])
    if not thread.is_alive():
        # The pipe closed without an answer: the child is ending.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    return None


def _stop(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:  # a forked copy of the parent must not stop the parent's server
        return
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()

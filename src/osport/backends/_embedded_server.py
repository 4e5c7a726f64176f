"""The parent's side of the embedded server: start, watch, restart a few times, stop, leave nothing behind."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import subprocess
import threading
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from attrs import frozen

from osport.backends._child_process import STOP_SECONDS, ChildProcess
from osport.backends._http_client import Endpoint
from osport.errors import BackendError, MissingDependency, ServerFault, TimedOut, UsageError

__all__ = ["EmbeddedServer", "Settings", "engine_name"]

MAX_RESTARTS = 3


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

    @property
    def pid(self) -> int | None:
        """Process id of the child, None before the first call."""
        return self._child.process.pid if self._child else None

    def endpoint(self) -> Endpoint:
        """Where the server listens. The first call starts it, and one that died is started again.

        Raises :class:`~osport.errors.BackendError`, which trying again would not change, when it does not start,
        and when it has died in spite of three restarts without an answer in between;
        :class:`~osport.errors.TimedOut` when it does not start in time.
        """
        with self._lock:
            self._refuse_closed()
            child = self._child
            if child is None or child.endpoint is None:
                return self._start()
            if child.alive:
                return child.endpoint
            if self.restarts >= MAX_RESTARTS:
                what = f"the embedded server died again after {MAX_RESTARTS} restarts without an answer"
                raise BackendError(f"{what} and is not restarted {child.ended()}", **self._names)
            self.restarts += 1
            child.stop()
            return self._start()

    def answered(self) -> None:
        """An answer came: what the server died of before is over."""
        self.restarts = 0

    def death(self, endpoint: Endpoint) -> ServerFault | None:
        """The fault to report if the server that listened there has died, else None."""
        child = self._child
        if child is None or child.endpoint is not endpoint:
            return ServerFault("the embedded server died during this call and was started again since", **self._names)
        # A connection breaks a moment before the process can be reaped.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(0.5)
        if child.alive:
            return None
        return ServerFault(f"the embedded server died during this call {child.ended()}", **self._names)

    def close(self) -> None:
        """Stop the child. Closing twice is harmless."""
        self.closed = True
        # Once without the lock: who holds it may be waiting for this very process to start.
        self._stop()
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._child is not None:
            self._child.stop()

    def _refuse_closed(self) -> None:
        if self.closed:
            raise UsageError("this llama_server model is closed; make a new Model")

    @property
    def _names(self) -> dict[str, Any]:
        return {"backend": "llama_server", "model": self.settings.alias}

    def _start(self) -> Endpoint:
        settings = self.settings
        key = secrets.token_urlsafe(24)
        child = self._child = _Child()
        try:
            # Who closed the model before it had this child to stop, leaves that to this thread.
            self._refuse_closed()
            url = child.started(
                {
                    "parent": os.getpid(),
                    "path": str(settings.path),
                    "alias": settings.alias,
                    "context": settings.context,
                    "slots": settings.slots,
                    "threads": settings.threads,
                    "gpu_layers": settings.gpu_layers,
                    "port": settings.port,
                    "api_key": key,
                },
                settings.startup_timeout,
            )
        except BaseException:
            child.stop()
            raise
        if url:
            child.endpoint = Endpoint(url, key)
            return child.endpoint
        timed_out = child.alive
        child.stop()
        self._refuse_closed()
        ended = child.ended()
        if timed_out:
            message = f"the embedded server was not ready after {settings.startup_timeout:g} s (startup_timeout)"
            raise TimedOut(f"{message}\n{child.log.tail()}".rstrip(), **self._names)
        if any("couldn't bind" in line for line in child.log.lines):
            raise UsageError(
                f"port {settings.port} on 127.0.0.1 is in use; leave the option port out and a free one is taken"
            )
        raise BackendError(f"the embedded server did not start with {settings.path} {ended}", **self._names)


class _Child(ChildProcess):
    """The protocol of :mod:`osport.backends._llama_server_child`: one line in, one line out."""

    def __init__(self) -> None:
        # By path, not by -m: the child needs nothing of osport and finds xllamacpp where this interpreter does.
        super().__init__(Path(__file__).with_name("_llama_server_child.py"))
        self.endpoint: Endpoint | None = None

    def started(self, parameters: dict[str, object], timeout: float) -> str | None:
        """Send the parameters and wait for the address; None when none came in time."""
        answer: list[bytes] = []

        def talk(stdin: IO[bytes], stdout: IO[bytes]) -> None:
            with contextlib.suppress(OSError, ValueError):
                stdin.write(json.dumps(parameters).encode() + b"\n")
                stdin.flush()
                answer.append(stdout.readline())

        thread = threading.Thread(target=talk, args=(self.stdin, self.stdout), name="osport-llama-start", daemon=True)
        thread.start()
        thread.join(timeout)
        if answer and answer[0]:
            return str(json.loads(answer[0])["url"])
        if not thread.is_alive():
            # The pipe closed without an answer: the child is ending.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        return None


@functools.cache
def engine_name() -> str:
    """Name and version of the embedded engine."""
    return f"xllamacpp {version('xllamacpp')}"

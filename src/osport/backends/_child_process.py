"""A script of ours in a child process: its pipes, its log, its end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import IO, cast

from osport.backends._engine_log import EngineLog

__all__ = ["BESIDE_OTHERS", "STOP_SECONDS", "ChildProcess"]

# Threads that spin while they wait for one another crawl as soon as another process wants their core. On two
# cores, 64 tokens of a 135M model: idle 0.42 s either way; beside one busy process 6 s and more with OpenMP's
# own spin count, 1.2 to 2.3 s with this one.
BESIDE_OTHERS = {"GOMP_SPINCOUNT": "300"}
# Where a debugger is installed, a failed assertion of llama.cpp starts it and its backtrace hides the assertion.
NO_DEBUGGER = {"GGML_NO_BACKTRACE": "1"}
STOP_SECONDS = 3.0


class ChildProcess:
    """Started at once; stopped by ``stop``, with this object, or with this process.

    The script reads its stdin, writes its stdout, and what it writes to stderr is its log.
    """

    def __init__(self, script: Path) -> None:
        self.process = subprocess.Popen(
            # -P: neither the working folder nor the script's own may shadow a package.
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**BESIDE_OTHERS, **NO_DEBUGGER, **os.environ},
            # Ctrl-C in the terminal reaches the parent only, which then stops the child in order.
            start_new_session=True,
        )
        self.stop = weakref.finalize(self, _stop, self.process, os.getpid())
        pipes = (self.process.stdin, self.process.stdout, self.process.stderr)
        self.stdin, self.stdout, stderr = (cast("IO[bytes]", pipe) for pipe in pipes)
        self.log = EngineLog(stderr)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def ended(self) -> str:
        """How the process ended, with the last lines of its log; waits a moment for both."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self.log.complete()
        code = self.process.returncode
        how = "it hangs" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"({how})\n{self.log.tail()}".rstrip()


def _stop(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:  # a forked copy of the parent must not stop the parent's child
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

"""Render an untrusted template in a process of its own, under limits of the operating system.

The child answers one line of JSON for each line it reads. It is started at the first need, kept for
the next render, and killed when it is late or too large.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import IO, Any

from osport.chat_template.limits import SECONDS
from osport.errors import TemplateError

__all__ = ["render_in_child"]

MEMORY_BYTES = 512 * 2**20
START_SECONDS = 60.0


def render_in_child(
    source: str,
    now: datetime,
    reason: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final: bool | str = False,
    plain: bool = False,
    **variables: Any,
) -> str:
    """Render as ``renderer.in_process`` does, elsewhere; ``reason`` says why, and stands in the error.

    ``plain`` makes no difference: what comes through a pipe is plain.
    """
    question = {
        "source": source,
        "now": now.isoformat(),
        "messages": messages,
        "options": {
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
            "continue_final": continue_final,
            **variables,
        },
    }
    answer = _child.ask(json.dumps(question, default=lambda value: f"<{type(value).__name__}>"), reason)
    if "error" in answer:
        raise TemplateError(answer["error"])
    return str(answer["text"])


class _Child:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: str, reason: str) -> dict[str, Any]:
        with self._lock:
            process = self._started()
            line = self._exchange(process, question, SECONDS + 1)
            if line:
                answer: dict[str, Any] = json.loads(line)
                return answer
            self.stop()
        raise TemplateError(
            f"the chat template was stopped: it took longer than {SECONDS:g} s or more than "
            f"{MEMORY_BYTES // 2**20} MiB, and its form does not bound its cost ({reason})"
        )

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                errors="surrogatepass",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            if self._exchange(self._process, "", START_SECONDS) != "ready\n":
                self.stop()
                raise TemplateError("the process that renders untrusted templates does not start")
            atexit.register(self.stop)
        return self._process

    @staticmethod
    def _exchange(process: subprocess.Popen[str], line: str, seconds: float) -> str:
        """Write a line, read a line; an empty string when the child is late or gone."""
        answers: list[str] = []

        def talk(to: IO[str], back: IO[str]) -> None:
            with contextlib.suppress(OSError, ValueError):
                to.write(line + "\n")
                to.flush()
                answers.append(back.readline())

        thread = threading.Thread(target=talk, args=(process.stdin, process.stdout), daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            process.kill()
            thread.join()
            return ""
        return answers[0] if answers else ""


_child = _Child()


def main() -> None:
    """The child: limit yourself, then answer until stdin ends."""
    from osport.chat_template import renderer

    renderer.in_process("", datetime(2000, 1, 1))  # everything that renders is loaded before the limits
    _limit()
    sys.stdin.readline()
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            question = json.loads(line)
            render = renderer.in_process(question["source"], datetime.fromisoformat(question["now"]))
            answer = {"text": render(question["messages"], **question["options"])}
        except MemoryError:
            answer = {"error": f"the chat template needs more than {MEMORY_BYTES // 2**20} MiB"}
        except TemplateError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def _limit() -> None:
    """No files, no further processes, and no more memory than a prompt can need."""
    try:
        import resource
    except ImportError:  # Windows: the time limit holds alone
        return
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - not a path but the kernel
            size = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, size + MEMORY_BYTES))
    for name in ("RLIMIT_FSIZE", "RLIMIT_CORE"):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (0, 0))

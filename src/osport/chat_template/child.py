"""What a stranger's template or pattern asks for, in a process of its own under limits of the operating system.

The child answers one line of JSON for each line it reads. It is started at the first need, kept for
the next question, and killed when it is late or too large.
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

from osport.chat_template.deadline import MEMORY_BYTES, SECONDS
from osport.errors import TemplateError

__all__ = ["parse_in_child", "render_in_child"]

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
    return str(_child.ask(question, f"its form does not bound its cost ({reason})")["text"])


def parse_in_child(
    text: str, response: Mapping[str, Any], prompt: str, tools: Sequence[Mapping[str, Any]] | None
) -> dict[str, Any]:
    """The message that transformers' ``parse_response`` makes of an answer.

    Raises :class:`~osport.errors.TemplateError` for a response template or an answer that it does not take.
    """
    question = {"response": response, "text": text, "prefix": prompt, "tools": tools}
    message: dict[str, Any] = _child.ask(question, "its patterns are the model's own")["message"]
    return message


class _Child:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: Mapping[str, Any], reason: str) -> dict[str, Any]:
        line = json.dumps(question, default=lambda value: f"<{type(value).__name__}>")
        with self._lock:
            process = self._started()
            reply = self._exchange(process, line, SECONDS + 1)
            if not reply:
                self.stop()
                raise TemplateError(
                    f"the chat template was stopped: it took longer than {SECONDS:g} s or more than "
                    f"{MEMORY_BYTES // 2**20} MiB, and {reason}"
                )
        answer: dict[str, Any] = json.loads(reply)
        if "error" in answer:
            raise TemplateError(answer["error"])
        return answer

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


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from osport.chat_template import renderer

    if "source" in question:
        render = renderer.in_process(question["source"], datetime.fromisoformat(question["now"]))
        return {"text": render(question["messages"], **question["options"])}
    from transformers.utils.chat_parsing import parse_response

    try:
        return {
            "message": parse_response(
                question["text"], question["response"], prefix=question["prefix"], tools=question["tools"]
            )
        }
    except Exception as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error


def main() -> None:
    """The child: limit yourself, then answer until stdin ends."""
    from osport.chat_template import renderer

    renderer.in_process("", datetime(2000, 1, 1))  # everything that renders is loaded before the limits
    _limit()
    sys.stdin.readline()
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line))
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

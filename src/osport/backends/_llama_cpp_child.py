"""The child process that holds the model of the ``llama_cpp`` backend.

Started by :mod:`osport.backends._llama_cpp_guard` as a script. Pickled messages come in on stdin and go out
on stdout; the engine's log goes to stderr. It ends with its parent, whatever the engine does meanwhile.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

PARENT_POLL_SECONDS = 0.5


def leave_with(parent: int) -> None:
    """End this process once the parent is gone.

    The end of stdin says so too, but not while some other child of the parent has inherited its far end.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Answer calls, one at a time, until the parent is gone."""
    requests = Connection(os.dup(0), writable=False)
    answers = Connection(os.dup(1), readable=False)
    # What is printed in this process must not mix with the answers.
    os.dup2(2, 1)
    # As in the parent, or what it imports would not be found here.
    parent, sys.path[:] = requests.recv()
    leave_with(parent)

    from osport.backends._interruption import Interruption
    from osport.backends._llama_cpp_calls import LlamaCppCalls
    from osport.backends._llama_cpp_log import repeat_on_stderr
    from osport.errors import BackendError, OsportError

    repeat_on_stderr()
    calls = LlamaCppCalls(requests.recv())
    pending: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    def listen() -> None:
        number, interruption = 0, Interruption()
        try:
            while True:
                asked, *call = requests.recv()
                if call:
                    number, interruption = asked, Interruption()
                    pending.put((interruption, *call))
                elif asked == number:
                    interruption.ask()
        except EOFError:
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a child that listens no more would hang
            traceback.print_exc()
            os._exit(1)

    def load(interruption: Interruption) -> None:
        calls.load()

    def answer(request: Any, pieces: bool, interruption: Interruption) -> Any:
        running = calls.answer(request, interruption, pieces=pieces)
        while True:
            try:
                piece = next(running)
            except StopIteration as end:
                return end.value
            answers.send(("piece", piece))

    threading.Thread(target=listen, daemon=True).start()
    methods: dict[str, Any] = {"load": load, "answer": answer, "score": calls.score, "count_tokens": calls.count_tokens}
    while True:
        interruption, method, *arguments = pending.get()
        try:
            outcome = "done", methods[method](*arguments, interruption)
        except OsportError as error:
            outcome = "failed", error
        except Exception:  # noqa: BLE001 - told to the parent, who raises it
            outcome = "failed", BackendError(f"the engine's process failed in {method}:\n{traceback.format_exc()}")
        answers.send(outcome)


if __name__ == "__main__":
    main()

"""The child process that holds the embedded llama.cpp server.

Started by :mod:`osport.backends._embedded_server` as a script; it imports nothing of osport. It reads
its parameters as one line of JSON from stdin, writes one line of JSON with the address to stdout, and
serves until the parent is gone. The engine's log goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

PARENT_POLL_SECONDS = 0.5
SPARE_HTTP_THREADS = 32
PROMPT_BATCH = 256


def configure(settings: dict[str, Any]) -> Any:
    """The engine's parameters, everything that matters set explicitly."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["alias"]}
    # The engine divides n_ctx among the slots.
    params.n_ctx = settings["context"] * settings["slots"]
    params.n_parallel = settings["slots"]
    params.kv_unified = False
    # A call that was given up frees its slot between two batches of its prompt: small ones, for on a processor a
    # larger batch is no faster (64 to 2048 tokens: no difference beyond the noise).
    params.n_batch = params.n_ubatch = PROMPT_BATCH
    params.ctx_shift = False
    params.hostnames = ["127.0.0.1"]
    params.port = settings["port"]
    params.api_keys = [settings["api_key"]]
    params.ui = False
    # A connection that is kept open occupies a thread of the server, whether it asks something or not.
    params.n_threads_http = settings["slots"] + SPARE_HTTP_THREADS
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    # Prompts that left their slot are not kept in main memory: the default may take 8 GiB of it.
    params.cache_ram_mib = 0
    if settings["gpu_layers"] is not None:
        params.n_gpu_layers = settings["gpu_layers"]
        params.fit_params = False
    return params


def leave_with_parent(parent: int) -> None:
    """End this process once the parent is gone.

    Two signs, because each fails alone: stdin stays open while some other child of the parent has
    inherited its far end, and a parent id of 1 is normal inside a container.
    """

    def watch_stdin() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    def watch_parent() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(0)

    for watch in (watch_stdin, watch_parent):
        threading.Thread(target=watch, daemon=True).start()


def read_line() -> bytes:
    """The first line of stdin, read byte by byte so that nothing stays in a buffer."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


def main() -> int:
    """Serve until the parent is gone; 1 when the engine does not start."""
    settings = json.loads(read_line() or b"null")
    if settings is None:
        return 0
    leave_with_parent(settings["parent"])
    # What the engine prints on stdout must not mix with the address.
    answer = os.dup(1)
    os.dup2(2, 1)
    import xllamacpp

    try:
        server = xllamacpp.Server(configure(settings))
    except RuntimeError as error:
        print(error, file=sys.stderr, flush=True)
        # Threads of a half-started engine must not hold up the exit.
        os._exit(1)
    os.write(answer, json.dumps({"url": server.listening_address}).encode() + b"\n")
    os.close(answer)
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())

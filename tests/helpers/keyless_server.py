"""A real llama.cpp server that somebody started without a key, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

CHILD = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.chat_template = sys.argv[1], sys.argv[2]
params.n_ctx, params.n_parallel, params.hostnames, params.port = 512, 1, ["127.0.0.1"], 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print("listening " + server.listening_address, flush=True)
sys.stdin.read()
"""


class Server:
    """``template``: Jinja source that the server uses instead of the model's own; ``url`` stays empty if it refuses."""

    def __init__(self, model, template=""):
        self.child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(model), template],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.url = ""
        for line in self.child.stdout:
            if line.startswith("listening "):
                self.url = line.split()[1]
                break

    def post(self, path, **body):
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def close(self):
        self.child.stdin.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.close()

"""The program of the child process that imports one engine and prints what it says of itself, as JSON."""

from __future__ import annotations

import importlib
import json
import sys


def main(module: str, system_info: str, gpu: str) -> None:
    """Import ``module``; call the two functions of it that are named, where a name is given."""
    engine = importlib.import_module(module)
    said = getattr(engine, system_info)() if system_info else ""
    offload = getattr(engine, gpu)() if gpu else None
    print(json.dumps({"info": said.decode() if isinstance(said, bytes) else said, "gpu": offload}))


if __name__ == "__main__":
    main(*sys.argv[1:])

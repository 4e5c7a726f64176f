"""What ``import osport`` costs, each import in a fresh process, interleaved; medians.

The aim: at most 30 ms over attrs + pluggy, which every user of osport has loaded sooner or later.
Peers that are not installed are named and left out.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from importlib.util import find_spec

ROUNDS = 15
STATEMENTS = {
    "nothing": "pass",
    "attrs + pluggy": "import attrs, pluggy",
    "osport": "import osport",
    "osport.Model": "from osport import Model",
    "litellm": "import litellm",
    "outlines": "import outlines",
    "llm": "import llm",
}


def seconds(statement: str) -> float:
    code = f"import time; t = time.perf_counter(); exec({statement!r}); print(time.perf_counter() - t)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(run.stdout.splitlines()[-1])


def main() -> None:
    peers = {name: statement for name, statement in STATEMENTS.items() if statement == f"import {name}"}
    absent = [name for name in peers if find_spec(name) is None]
    chosen = {name: statement for name, statement in STATEMENTS.items() if name not in absent}
    for statement in chosen.values():
        seconds(statement)  # bytecode and disk cache
    samples: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(ROUNDS):
        for name, statement in chosen.items():
            samples[name].append(seconds(statement))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    for name, median in medians.items():
        ratio = median / medians["osport"]
        print(f"{name:<16} {median * 1000:8.1f} ms   {ratio:8.2f} x import osport")
    over = (medians["osport"] - medians["attrs + pluggy"]) * 1000
    print(f"import osport is {over:+.1f} ms against attrs + pluggy (aim: at most +30 ms)")
    if absent:
        print(f"not installed, so not measured: {', '.join(absent)}")


if __name__ == "__main__":
    main()

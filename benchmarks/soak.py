"""Many requests against the embedded llama.cpp server, with faults in between: what leaks, is lost or hangs.

Each request is of one kind, drawn by a seeded generator, and each kind has one way to end: with an answer, or
with one error of the tree. The server is killed three times on the way. At the end:

* every request has exactly one outcome, and it is the expected one (a killed server costs a retry, no answer);
* resident memory of this process and of the server, once warm, is flat within 5 %;
* threads and open files are as many as before, and the server still answers.

    python benchmarks/soak.py [model] [--requests 10000] [--workers 4]

Linux only: memory and open files are read from /proc.
"""

from __future__ import annotations

import argparse
import collections
import os
import queue
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from osport import ConstrainedOutput, Message, Model, Request
from osport.errors import ContextOverflow, OsportError, ServerFault, TimedOut, UsageError

CONTEXT = 512
LIMIT = 120.0
"""Seconds that a call may take, retries and a restart of the server included."""
FLAT = 0.05
KILLS = 3
YES_OR_NO = ConstrainedOutput.choice(["yes", "no"])
OBJECT = ConstrainedOutput.json_schema(
    {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
)

Ask = Callable[[Model, int], object]


def plain(model: Model, number: int) -> object:
    return model.generate(f"Say {number}.", max_tokens=3, timeout=LIMIT)


def streamed(model: Model, number: int) -> object:
    pieces = model.stream(f"Say {number}.", max_tokens=3, timeout=LIMIT)
    last = next(pieces)
    try:
        *_, last = last, *pieces
    except ServerFault:
        # A stream is not tried again once it has begun; one that a kill cut off is asked for again here.
        *_, last = model.stream(f"Say {number}.", max_tokens=3, timeout=LIMIT)
    return last.completion


def left(model: Model, number: int) -> object:
    pieces = model.stream(f"Write a long story about {number}.", max_tokens=200, timeout=LIMIT)
    first = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    return first


def chosen(model: Model, number: int) -> object:
    return model.generate(f"Is {number} even?", output=YES_OR_NO, max_tokens=8, timeout=LIMIT).parsed


def formed(model: Model, number: int) -> object:
    return model.generate(f"Is {number} even?", output=OBJECT, max_tokens=16, timeout=LIMIT).parsed


def too_long(model: Model, number: int) -> object:
    return model.generate([Message.user(f"{number} " * CONTEXT)], max_tokens=3, timeout=LIMIT)


def too_slow(model: Model, number: int) -> object:
    return model.generate(f"Write a long story about {number}.", max_tokens=400, timeout=0.05)


def senseless(model: Model, number: int) -> object:
    return model.generate(Request(prompt=f"{number}"), top_k=-1, timeout=LIMIT)


KINDS: tuple[tuple[Ask, int, type[OsportError] | None], ...] = (
    (plain, 60, None),
    (streamed, 15, None),
    (left, 6, None),
    (chosen, 7, None),
    (formed, 4, None),
    (too_long, 3, ContextOverflow),
    (too_slow, 2, TimedOut),
    (senseless, 3, UsageError),
)
"""How a request is made, its share in percent, and the error that it must end in."""


def resident(pid: int | str) -> int:
    """Resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Soak:
    def __init__(self, model: Model, requests: int, workers: int) -> None:
        self.model = model
        self.requests = requests
        self.workers = workers
        self.todo: queue.SimpleQueue[tuple[int, Ask, type[OsportError] | None]] = queue.SimpleQueue()
        draw = random.Random(0)
        weights = [share for _, share, _ in KINDS]
        for number in range(requests):
            ask, _, error = draw.choices(KINDS, weights)[0]
            self.todo.put((number, ask, error))
        self.outcomes: collections.Counter[int] = collections.Counter()
        self.kinds: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.memory: list[tuple[int, int]] = []
        self.lock = threading.Lock()

    @property
    def server(self) -> int:
        return self.model.backend._embedded.pid  # type: ignore[attr-defined, no-any-return]

    def work(self) -> None:
        while True:
            try:
                number, ask, expected = self.todo.get_nowait()
            except queue.Empty:
                return
            try:
                answer = ask(self.model, number)
                found = "answered" if answer is not None else "nothing"
            except OsportError as error:
                found = type(error).__name__
                message = str(error)
            else:
                message = ""
            with self.lock:
                self.outcomes[number] += 1
                self.kinds[f"{ask.__name__}: {found}"] += 1
                if found != (expected.__name__ if expected else "answered"):
                    self.wrong.append(f"request {number} ({ask.__name__}): {found} {message[:200]}")

    def run(self) -> float:
        threads = [threading.Thread(target=self.work, daemon=True) for _ in range(self.workers)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        kills = [self.requests * (turn + 1) // (2 * (KILLS + 1)) for turn in range(KILLS)]
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
            finished = self.outcomes.total()
            if kills and finished >= kills[0]:
                kills.pop(0)
                os.kill(self.server, signal.SIGKILL)
            if finished >= self.requests * 0.6:  # after the last kill, and warm again
                try:
                    self.memory.append((resident("self"), resident(self.server)))
                except FileNotFoundError:
                    self.wrong.append("the server died without being killed")
        return time.perf_counter() - started


def drift(samples: list[int]) -> float:
    """The median of the last fifth over that of the first fifth, less one."""
    fifth = max(1, len(samples) // 5)
    return statistics.median(samples[-fifth:]) / statistics.median(samples[:fifth]) - 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Many requests with faults against the embedded server.")
    parser.add_argument("model", nargs="?", default="smollm2-135m", help="a catalogue name or the path of a .gguf file")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)
    asked = parser.parse_args()
    failures = []
    with Model(f"llama_server:{asked.model}", context=CONTEXT, slots=asked.workers) as model:
        plain(model, 0)
        files, threads = open_files(), threading.active_count()
        soak = Soak(model, asked.requests, asked.workers)
        seconds = soak.run()
        print(f"{asked.requests} requests in {seconds:.0f} s, {asked.requests / seconds:.1f} a second")
        for kind, count in sorted(soak.kinds.items()):
            print(f"  {kind:<28} {count}")
        if set(soak.outcomes.values()) != {1} or len(soak.outcomes) != asked.requests:
            failures.append("a request was lost or answered twice")
        failures += soak.wrong[:20]
        for name, samples in zip(("this process", "the server"), zip(*soak.memory, strict=True), strict=True):
            growth = drift(list(samples))
            print(f"memory of {name}: {samples[-1] / 2**20:.0f} MiB at the end, {growth:+.1%} over the last two fifths")
            if growth > FLAT:
                failures.append(f"memory of {name} grew by {growth:.1%}")
        time.sleep(2)
        now = open_files(), threading.active_count()
        print(f"open files {files} -> {now[0]}, threads {threads} -> {now[1]}")
        # A pool keeps a connection for each worker; that is no leak.
        if now[0] > files + asked.workers or now[1] > threads:
            failures.append("open files or threads were left behind")
        plain(model, asked.requests)
    print("\n".join(["FAILED:", *failures]) if failures else "no leak, nothing lost, nothing stuck")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

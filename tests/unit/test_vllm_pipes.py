"""The pipes between a process and the vLLM child: full in both directions, or not read at all. The child is a fake."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from osport.backends._engine_log import EngineLog
from osport.backends._vllm_running import Running

CALLS = 60
LONG_PROMPT = {"do": "generate", "prompt": list(range(8192))}
# Like the real child: one event loop that takes the calls, and writes each answer in one piece. An answer has the
# size of five hundred tokens with twenty log-probabilities each.
FAKE_CHILD = """
import asyncio, json, os, sys

def send(**message):
    line = memoryview(json.dumps(message).encode() + b"\\n")
    while line:
        line = line[os.write(1, line):]

async def answer(number):
    await asyncio.sleep(0.02)
    send(call=number, text="x" * 350_000, finish="stop")

async def main():
    reader = asyncio.StreamReader(limit=2**30)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    tasks = []
    while line := await reader.readline():
        tasks.append(asyncio.create_task(answer(json.loads(line)["call"])))

asyncio.run(main())
"""


@pytest.fixture
def running():
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", FAKE_CHILD], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        made = Running(process, EngineLog(process.stderr))
        reader = threading.Thread(target=made.read, args=(process.stdout,), daemon=True)
        reader.start()
        yield made
        process.kill()
        reader.join(10)
        made.end_input()


def begun(running: Running, deliver: Callable[[object], None]) -> list[int]:
    """The numbers of many calls; fails instead of hanging."""
    numbers: list[int] = []
    caller = threading.Thread(
        target=lambda: numbers.extend(running.begin(LONG_PROMPT, deliver) for _ in range(CALLS)), daemon=True
    )
    caller.start()
    caller.join(15)
    assert len(numbers) == CALLS, "beginning a call waits for the child"
    return numbers


def test_many_long_prompts_and_long_answers_pass_one_another(running):
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    begun(running, answers.put)
    for _ in range(CALLS):
        assert answers.get(timeout=30)["finish"] == "stop"
    assert running.answered


def test_a_child_that_reads_nothing_holds_up_nobody_who_calls(running):
    running.process.send_signal(signal.SIGSTOP)
    for number in begun(running, lambda line: None):
        running.abort(number)
    assert not running.calls

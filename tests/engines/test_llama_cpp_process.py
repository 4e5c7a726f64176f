"""The child process of ``llama_cpp``: nothing that ends it, or the call in it, ends more than that call."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from asking import ask
from processes import alive, wait_until_gone

from osport.backends import _llama_cpp_guard
from osport.backends.llama_cpp import LlamaCppBackend
from osport.errors import BackendError, ServerFault, TimedOut, UsageError
from osport.plugin import Constraint, Request, Sampling

pytestmark = pytest.mark.engine

LONG = ask("Write a long story.", max_tokens=400)
# Takes tens of seconds to read, and nothing of it is known from another test.
LONG_TEXT = "word " * 7000
SLOW = Request(prompt=LONG_TEXT, sampling=Sampling(max_tokens=2))
AT_ONCE = 6.0
"""Seconds: far below what reading the slow prompt takes, far above what stopping takes on a busy machine."""

HOST = """
import resource, signal, sys, time
from osport.backends.llama_cpp import LlamaCppBackend
from osport.errors import BackendError
from osport.plugin import Request, Sampling
short = Request(prompt="Once", sampling=Sampling(max_tokens=2))
backend = LlamaCppBackend(sys.argv[1], context=8192, threads=1)
"""


def run(program: str, model_path: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HOST + program, str(model_path)], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def backend(model_path):
    with LlamaCppBackend(str(model_path), context=512, threads=1) as made:
        yield made


@pytest.fixture(params=[False, True], ids=["child", "in-process"])
def roomy(request, model_path):
    with LlamaCppBackend(str(model_path), threads=1, in_process=request.param) as made:
        made.load()
        yield made


# What ends the child.


def test_a_death_in_the_middle_of_an_answer_is_an_error_with_the_log(backend):
    for call in (backend.stream, lambda request: iter([backend.generate(request)])):
        backend.load()
        pid = backend._calls.pid
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(ServerFault, match=r"ended during this call[\s\S]*signal 9[\s\S]*engine's log"):
            list(call(ask("Write a long story.", max_tokens=450, temperature=1.5)))
        killer.join()
        assert backend.generate(ask()).text
        assert backend._calls.pid != pid


def test_after_a_death_between_two_calls_the_next_one_is_answered(backend):
    before = backend.generate(ask()).text
    os.kill(backend._calls.pid, signal.SIGKILL)
    # Gone is it only when all of its threads are.
    backend._calls._child.process.wait(10)
    assert backend.generate(ask()).text == before


def test_a_grammar_that_overflows_the_engines_stack_costs_one_call(backend):
    # llama.cpp's parser calls itself for each parenthesis; the very check for bad grammars ends the process.
    deep = Constraint("grammar", f'root ::= {"(" * 20_000}"a"{")" * 20_000}')
    with pytest.raises(ServerFault, match="signal 11"):
        backend.generate(ask(constraint=deep))
    assert backend.generate(ask()).text


@pytest.mark.parametrize("mebibytes", [250, 450, 600])
def test_a_load_without_enough_memory_is_an_error_that_says_what_to_do(model_path, mebibytes):
    # The child inherits the limit. As memory ends at one place or another, it exits, says so, or aborts.
    program = f"""
resource.setrlimit(resource.RLIMIT_AS, ({mebibytes} << 20, resource.RLIM_INFINITY))
try:
    backend.generate(short)
except BackendError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("then:", backend.generate(short).finish_reason)
"""
    done = run(program, model_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "smaller context or a smaller file" in done.stdout
    assert "emory alloc" in done.stdout or "insufficient memory" in done.stdout
    assert done.stdout.endswith("then: length\n")


def test_a_child_that_hangs_is_ended(backend, monkeypatch):
    monkeypatch.setattr(_llama_cpp_guard, "PATIENCE", 0.5)
    backend.load()
    pid = backend._calls.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TimedOut, match="did not stop either"):
        backend.generate(ask(timeout=0.5))
    wait_until_gone(pid)
    assert backend.generate(ask()).text


def test_a_start_that_takes_too_long_is_stopped(model_path):
    with (
        LlamaCppBackend(str(model_path), startup_timeout=0.05) as backend,
        pytest.raises(TimedOut, match="startup_timeout"),
    ):
        backend.generate(ask())
    assert not alive(backend._calls.pid)


# What ends the call.


def test_a_prompt_that_takes_too_long_to_read_is_stopped(roomy):
    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"0\.3 s"):
        roomy.generate(Request(prompt=LONG_TEXT, timeout=0.3))
    assert roomy.generate(ask()).text
    assert time.monotonic() - started < AT_ONCE


@pytest.mark.parametrize("way", ["agenerate", "astream"])
def test_a_cancelled_call_frees_the_engine_while_it_reads_the_prompt(roomy, way):
    async def call() -> None:
        if way == "agenerate":
            await roomy.agenerate(SLOW)
        else:
            async for _ in roomy.astream(SLOW):
                pass

    async def cancelled() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(), 0.3)
        started = time.monotonic()
        await roomy.agenerate(ask())
        return time.monotonic() - started

    assert asyncio.run(cancelled()) < AT_ONCE


def test_a_call_that_is_cancelled_in_the_queue_never_begins(backend):
    async def both() -> object:
        pieces = backend.astream(LONG)
        await anext(pieces)
        waiting = asyncio.create_task(backend.agenerate(SLOW))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await pieces.aclose()
        return await backend.agenerate(ask())

    assert asyncio.run(both()).text
    loaded, streamed, answered = 1, 1, 1
    assert backend._calls._child.calls == loaded + streamed + answered


def test_calls_that_are_cancelled_in_the_queue_leave_no_thread_waiting(roomy):
    async def cancelled() -> bool:
        running = asyncio.create_task(roomy.agenerate(SLOW))
        await asyncio.sleep(0.2)
        waiting = [asyncio.create_task(roomy.agenerate(ask())) for _ in range(40)]
        await asyncio.sleep(0.2)
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # A thread of the same few that the calls waited on.
        await asyncio.to_thread(lambda: None)
        had_to_wait = running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return had_to_wait

    assert not asyncio.run(cancelled())


def test_close_does_not_wait_until_the_prompt_is_read(roomy):
    outcome: list[BaseException] = []

    def read() -> None:
        try:
            roomy.generate(SLOW)
        except UsageError as error:
            outcome.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.5)
    started = time.monotonic()
    roomy.close()
    reader.join(60)
    assert time.monotonic() - started < AT_ONCE
    assert "closed" in str(outcome[0])


def test_a_stream_that_is_left_frees_the_engine_and_keeps_what_was_read(backend):
    whole = backend.generate(ask("Write a long story."))
    for _ in range(5):
        pieces = backend.stream(LONG)
        next(pieces)
        pid = backend._calls.pid
        pieces.close()
        started = time.monotonic()
        again = backend.generate(ask("Write a long story."))
        assert time.monotonic() - started < AT_ONCE
        assert again.text == whole.text
        # The last token is computed again where one came behind it before the stream was left.
        assert again.usage.cached_tokens >= again.usage.prompt_tokens - 1
        assert backend._calls.pid == pid


@pytest.mark.parametrize("in_process", [False, True], ids=["child", "in-process"])
def test_ctrl_c_ends_the_call_and_leaves_the_model_usable(model_path, in_process):
    program = f"""
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts deaf to it
backend = LlamaCppBackend(sys.argv[1], threads=1, in_process={in_process})
backend.load()
print("ready", flush=True)
try:
    backend.generate(Request(prompt={LONG_TEXT!r}, sampling=Sampling(max_tokens=400)))
except KeyboardInterrupt:
    print("interrupted", backend.generate(short).finish_reason, flush=True)
"""
    command = [sys.executable, "-c", HOST + program, str(model_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as host:
        assert host.stdout.readline() == "ready\n"
        time.sleep(1.0)
        host.send_signal(signal.SIGINT)
        said, complaint = host.communicate(timeout=60)
    assert (said, complaint, host.returncode) == ("interrupted length\n", "", 0)


# What the child leaves behind: nothing.


def test_close_ends_the_process(backend):
    backend.load()
    pid = backend._calls.pid
    backend.close()
    assert not alive(pid)
    backend.close()


def test_a_forgotten_backend_takes_its_process_along(model_path):
    backend = LlamaCppBackend(str(model_path), context=256, threads=1)
    backend.load()
    pid = backend._calls.pid
    del backend
    gc.collect()
    wait_until_gone(pid)


def test_a_program_that_ends_without_close_leaves_nothing(model_path):
    done = run("backend.load()\nprint(backend._calls.pid)", model_path)
    assert (done.returncode, done.stderr) == (0, "")
    wait_until_gone(int(done.stdout))


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "at-work"])
@pytest.mark.parametrize("inherited", [False, True], ids=["alone", "pipe-inherited"])
def test_a_parent_killed_outright_leaves_nothing(model_path, inherited, busy):
    # A forked copy of the parent keeps the pipe open; then only the parent's id tells.
    fork = "import os\nif os.fork() == 0: time.sleep(20); os._exit(0)\n" if inherited else ""
    work = f"backend.generate(Request(prompt={LONG_TEXT!r}))" if busy else "time.sleep(60)"
    program = f"backend.load()\nprint(backend._calls.pid, flush=True)\n{fork}{work}"
    command = [sys.executable, "-c", HOST + program, str(model_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        assert alive(pid)
        parent.kill()
        parent.wait()
        wait_until_gone(pid)
        if inherited:
            os.killpg(parent.pid, signal.SIGKILL)


def test_ctrl_c_in_the_terminal_reaches_the_parent_only(backend):
    backend.load()
    assert os.getsid(backend._calls.pid) != os.getsid(0)


def test_what_cannot_be_sent_or_computed_is_an_error_that_names_it(backend):
    with pytest.raises(UsageError, match="cannot be sent"):
        backend.generate(ask(constraint=Constraint("choice", (lambda: "yes",))))
    with pytest.raises(BackendError, match="Traceback[\\s\\S]*TypeError"):
        backend.generate(ask(constraint=Constraint("choice", 5)))
    assert backend.generate(ask()).text

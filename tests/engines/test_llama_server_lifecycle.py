"""The embedded server's process: what its death costs, and that it is never left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from processes import alive, wait_until_gone

from osport import Model, Retries
from osport.backends._embedded_server import MAX_RESTARTS, EmbeddedServer
from osport.backends.llama_server import LlamaServerBackend
from osport.errors import BackendError, ServerFault, TimedOut, UsageError
from osport.plugin import Completion, Message, Request, Sampling

pytestmark = pytest.mark.engine

LONG = Request((Message.user("Write a long story."),), sampling=Sampling(max_tokens=400))
SHORT = Request((Message.user("Say hi"),), sampling=Sampling(max_tokens=2))

HOST = """
import sys, time
from osport.backends.llama_server import LlamaServerBackend
from osport.plugin import Message, Request, Sampling
backend = LlamaServerBackend(sys.argv[1], context=256, threads=1)
backend.generate(Request((Message.user("Say hi"),), sampling=Sampling(max_tokens=1)))
print(backend._embedded.pid, flush=True)
"""


@pytest.fixture
def backend(model_path):
    with LlamaServerBackend(str(model_path), context=512, threads=1) as made:
        yield made


def test_a_death_in_the_middle_of_an_answer_is_an_error_with_the_log(backend):
    pieces = backend.stream(LONG)
    assert next(pieces).text
    os.kill(backend._embedded.pid, signal.SIGKILL)
    with pytest.raises(ServerFault, match=r"died during this call \(signal 9\)[\s\S]*engine's log[\s\S]*model loaded"):
        list(pieces)
    assert backend.generate(SHORT).text


def test_a_death_in_the_middle_of_a_batch_costs_only_what_was_at_work(model_path):
    with Model(f"llama_server:{model_path}", context=512, threads=1, retries=Retries(most=0)) as model:
        model.generate(SHORT)
        first = model.backend._embedded.pid
        threading.Timer(0.2, os.kill, (first, signal.SIGKILL)).start()
        results = model.batch([LONG, SHORT, SHORT, SHORT], concurrency=1)
        assert isinstance(results[0], ServerFault)
        assert results[0].retryable
        assert [type(result) for result in results[1:]] == [Completion] * 3
        assert model.backend._embedded.pid != first


def test_a_model_that_may_retry_answers_in_spite_of_a_death(model_path):
    with Model(f"llama_server:{model_path}", context=512, threads=1) as model:
        model.generate(SHORT)
        first = model.backend._embedded.pid
        threading.Timer(0.2, os.kill, (first, signal.SIGKILL)).start()
        assert model.generate(LONG).text
        assert model.backend._embedded.pid != first


@pytest.fixture
def starts(monkeypatch):
    """One entry for each start of an embedded server."""
    counted: list[EmbeddedServer] = []
    start = EmbeddedServer._start

    def counting(server):
        counted.append(server)
        return start(server)

    monkeypatch.setattr(EmbeddedServer, "_start", counting)
    return counted


def kill(backend):
    os.kill(backend._embedded.pid, signal.SIGKILL)
    backend._embedded._child.process.wait(10)


def test_a_server_that_keeps_dying_without_an_answer_is_given_up(backend):
    for _ in range(MAX_RESTARTS + 1):
        backend.load()
        kill(backend)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"not restarted \(signal 9\)[\s\S]*engine's log") as caught:
            backend.generate(SHORT)
        assert not caught.value.retryable


def test_a_server_that_dies_now_and_then_is_restarted_every_time(backend):
    for _ in range(MAX_RESTARTS + 1):
        backend.generate(SHORT)
        kill(backend)
    assert list(backend.stream(SHORT))[-1].completion


def test_a_model_that_does_not_load_is_tried_once(tmp_path, model_path, starts):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model_path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lamma", 1))
    with Model(f"llama_server:{broken}", context=256, threads=1) as model:
        for number in (1, 2):
            with pytest.raises(BackendError, match=r"did not start[\s\S]*unknown model architecture") as caught:
                model.generate("hi")
            assert not caught.value.retryable
            assert len(starts) == number


def test_loading_starts_the_server_before_the_first_call(backend):
    assert backend._embedded.pid is None
    backend.load()
    pid = backend._embedded.pid
    assert alive(pid)
    backend.generate(SHORT)
    assert backend._embedded.pid == pid


def test_close_ends_the_process_and_refuses_further_calls(backend):
    backend.generate(SHORT)
    pid = backend._embedded.pid
    backend.close()
    assert not alive(pid)
    for call in (backend.generate, lambda request: list(backend.stream(request))):
        with pytest.raises(UsageError, match="closed"):
            call(SHORT)
    backend.close()


def test_close_during_an_answer_ends_that_answer(backend):
    pieces = backend.stream(LONG)
    next(pieces)
    backend.close()
    with pytest.raises(ServerFault):
        list(pieces)


def test_a_forgotten_backend_takes_its_process_along(model_path):
    backend = LlamaServerBackend(str(model_path), context=256, threads=1)
    backend.generate(SHORT)
    pid = backend._embedded.pid
    del backend
    gc.collect()
    wait_until_gone(pid)


def test_a_program_that_ends_without_close_leaves_nothing(model_path):
    done = subprocess.run([sys.executable, "-c", HOST, str(model_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    wait_until_gone(int(done.stdout))


@pytest.mark.parametrize("inherited", [False, True], ids=["alone", "pipe-inherited"])
def test_a_parent_killed_outright_leaves_nothing(model_path, inherited):
    # A forked copy of the parent keeps the pipe open; then only the parent's id tells.
    fork = "import os\nif os.fork() == 0: time.sleep(20); os._exit(0)\n" if inherited else ""
    program = f"{HOST}{fork}time.sleep(60)"
    command = [sys.executable, "-c", program, str(model_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.2)
        assert alive(pid)
        parent.kill()
        parent.wait()
        wait_until_gone(pid)
        if inherited:
            os.killpg(parent.pid, signal.SIGKILL)


def test_ctrl_c_in_the_terminal_reaches_the_parent_only(backend):
    backend.generate(SHORT)
    assert os.getsid(backend._embedded.pid) != os.getsid(0)


def test_a_start_that_takes_too_long_is_stopped(model_path):
    with (
        LlamaServerBackend(str(model_path), startup_timeout=0.01) as backend,
        pytest.raises(TimedOut, match="startup_timeout"),
    ):
        backend.generate(SHORT)


def test_an_answer_that_takes_too_long_is_stopped(backend):
    backend.generate(SHORT)
    late = Request(LONG.messages, sampling=LONG.sampling, timeout=0.3)
    with pytest.raises(TimedOut, match=r"0\.3 s"):
        backend.generate(late)
    with pytest.raises(TimedOut, match=r"0\.3 s"):
        list(backend.stream(late))
    assert backend.generate(SHORT).text


def test_many_threads_start_one_server(backend, starts):
    answers: list[Completion] = []

    def call() -> None:
        answers.append(backend.generate(SHORT))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 4
    assert len(starts) == 1


def test_the_engine_keeps_quiet(model_path):
    done = subprocess.run([sys.executable, "-c", HOST, str(model_path)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""

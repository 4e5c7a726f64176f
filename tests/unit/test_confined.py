"""A question in a child process: answered, or stopped within its limits; no child is left, none holds up another."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from osport.confined import Confined, Unanswered, serve

HERE = Path(__file__).parent
SECONDS, MEMORY = 1.0, 200 * 2**20


def main():
    def prepare():
        print("noise on stdout is no answer")
        return lambda question: {"value": eval(question["python"])}

    serve(prepare, seconds=SECONDS, memory=MEMORY)


@pytest.fixture
def start(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))

    def started(seconds=SECONDS):
        made = Confined("test_confined", seconds=seconds, memory=MEMORY)
        assert made.ask({"python": "1 + 1"}) == {"value": 2}
        return made

    return started


@pytest.fixture
def child(start):
    return start()


def pid(child):
    return child.ask({"python": "__import__('os').getpid()"})["value"]


def test_a_child_is_kept_for_the_next_question(child):
    assert pid(child) == pid(child)
    assert child.ask({"python": "[print('noise'), 'ü\\ud800']"}) == {"value": [None, "ü\ud800"]}


@pytest.mark.parametrize(
    "bomb",
    ["'x' * 10**10", "[0] * 10**9", "(lambda s: [s.append(bytes(10**7)) for _ in iter(int, 1)])([])", "10**10**9"],
)
def test_what_is_too_large_or_late_is_stopped_and_the_next_question_answered(child, bomb):
    before, started = pid(child), time.monotonic()
    with pytest.raises(Unanswered, match="longer than 1 s or more than 200 MiB"):
        child.ask({"python": bomb})
    assert time.monotonic() - started < SECONDS + 5
    assert pid(child) != before


def test_a_child_that_dies_is_replaced(child):
    with pytest.raises(Unanswered):
        child.ask({"python": "__import__('os').kill(__import__('os').getpid(), 9)"})
    assert child.ask({"python": "3"}) == {"value": 3}


def test_files_cannot_be_written(child, tmp_path):
    with pytest.raises(Unanswered):
        child.ask({"python": f"open({str(tmp_path / 'x')!r}, 'w').write('x' * 10000)"})
    assert (tmp_path / "x").stat().st_size == 0


def test_a_slow_question_holds_up_no_other(start, tmp_path):
    child, go_on = start(seconds=30), tmp_path / "go on"
    wait = f"[__import__('time').sleep(0.02) for _ in iter(__import__('pathlib').Path({str(go_on)!r}).exists, True)]"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(child.ask, {"python": f"len({wait})"})
        assert child.ask({"python": "4"}) == {"value": 4}
        assert not slow.done()
        go_on.touch()
        assert slow.result(30)["value"] >= 0
    assert len(child._idle) == 1


def test_a_module_that_does_not_start(monkeypatch):
    with pytest.raises(Unanswered, match="does not start"):
        Confined("no_such_module", seconds=1, memory=MEMORY).ask({})


def test_no_child_outlives_its_owner(start):
    child = start()
    process = child._idle[0]._process
    del child
    process.wait(5)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of CPU time there")
def test_a_child_whose_parent_was_killed_ends_by_itself():
    parent = """
import os, sys, threading, time
sys.path.insert(0, sys.argv[1])
from osport.confined import Confined
child = Confined("test_confined", seconds=1.0, memory=2**27)
print(child.ask({"python": "__import__('os').getpid()"})["value"], flush=True)
threading.Thread(target=child.ask, args=({"python": "[0 for _ in iter(int, 1)]"},), daemon=True).start()
time.sleep(0.3)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", parent, str(HERE)], capture_output=True, text=True, timeout=60)
    orphan = int(done.stdout)
    deadline = time.monotonic() + 10
    while alive(orphan) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(orphan)


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

"""Running an arm: order of events, retries, errors, resume, Ctrl-C."""

import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from osport.core.types import Completion, Usage
from osport.errors import (
    AuthFailed,
    BadRequest,
    ConstraintViolated,
    ContractViolation,
    RateLimited,
    ServerFault,
    StorageError,
    Truncated,
    UsageError,
)
from osport.evals import GoldenItem, Retries, RunRecord, run_arm, scorer

AT_ONCE = Retries(most=2, first_wait=0)
ITEMS = [GoldenItem(f"i{number}", f"text {number}", "yes") for number in range(6)]


def answer(text, **more):
    return Completion(text, "stop", parsed=text, latency=0.5, **more)


@pytest.fixture
def run(tmp_path):
    def go(ask, items=ITEMS, **options):
        with RunRecord.open(tmp_path / "arm.jsonl", {}) as record:
            run_arm(items, ask, scorer("label"), record, retries=AT_ONCE, **options)
            return record.results

    return go


class Asked:
    """Counts the questions, answers or raises what the script says for an item, "yes" otherwise."""

    def __init__(self, **script):
        self.script = script
        self.count = {}
        self.lock = threading.Lock()

    def __call__(self, item):
        with self.lock:
            turn = self.count[item.id] = self.count.get(item.id, 0) + 1
        reply = self.script.get(item.id, "yes")
        if isinstance(reply, list):
            reply = reply[min(turn, len(reply)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Completion) else answer(reply)


def test_every_item_is_asked_once_and_scored(run):
    asked = Asked(i2="no", i3=answer("yes", model="m", usage=Usage(7, 1, 2)))
    results = run(asked, concurrency=3)
    assert set(results) == {item.id for item in ITEMS}
    assert set(asked.count.values()) == {1}
    assert [name for name, r in results.items() if not r.right] == ["i2"]
    third = results["i3"]
    assert (third.model, third.prompt_tokens, third.completion_tokens, third.cached_tokens) == ("m", 7, 1, 2)
    assert (third.latency, third.status, third.attempts) == (0.5, "answered", 1)
    assert third.started <= third.ended


def test_concurrency_asks_that_many_at_a_time_and_no_more(run):
    together = threading.Barrier(3, timeout=10)
    running, most, lock = [0], [0], threading.Lock()

    def ask(item):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        together.wait()
        with lock:
            running[0] -= 1
        return answer("yes")

    run(ask, concurrency=3)
    assert most[0] == 3


def test_an_answer_without_its_form_is_invalid_with_the_text_kept(run):
    violated = ConstraintViolated("not JSON", Completion("yes, I think", "stop", latency=0.7))
    cut = Truncated("cut off", Completion('{"a', "length", latency=0.9))
    results = run(Asked(i0=violated, i1=cut))
    assert (results["i0"].status, results["i0"].error, results["i0"].text) == (
        "invalid",
        "ConstraintViolated",
        "yes, I think",
    )
    assert (results["i1"].status, results["i1"].error, results["i1"].seconds) == ("invalid", "Truncated", 0.9)
    assert not results["i0"].right


def test_only_retryable_errors_are_tried_again_and_not_for_ever(run):
    asked = Asked(i0=[ServerFault("died"), "yes"], i1=RateLimited("slow down"), i2=BadRequest("malformed"))
    results = run(asked)
    assert asked.count["i0"] == 2
    assert (results["i0"].status, results["i0"].attempts) == ("answered", 2)
    assert asked.count["i1"] == 1 + AT_ONCE.most
    assert (results["i1"].error, results["i1"].message) == ("RateLimited", "slow down")
    assert asked.count["i2"] == 1
    assert results["i2"].error == "BadRequest"


def test_an_error_counts_as_wrong_and_as_infinitely_slow(run):
    failed = run(Asked(i0=BadRequest("malformed")))["i0"]
    assert not failed.right
    assert failed.latency is None
    assert failed.seconds == float("inf")


def test_time_lost_in_failed_attempts_belongs_to_the_latency(run):
    def ask(item, seen=set()):  # noqa: B006 - remembers across calls on purpose
        if item.id not in seen:
            seen.add(item.id)
            time.sleep(0.2)
            raise ServerFault("died")
        return answer("yes")

    assert run(ask, items=ITEMS[:1])["i0"].latency >= 0.5 + 0.2


def test_a_latency_that_nobody_measured_stays_unknown(run):
    assert run(Asked(i0=Completion("yes", "stop", parsed="yes")))["i0"].seconds is None


def test_the_wait_grows_honours_the_server_and_is_bounded():
    retries = Retries(most=5, first_wait=1, longest_wait=60)
    first, third = retries.wait(1, ServerFault("x")), retries.wait(3, ServerFault("x"))
    assert 1 <= first <= 1.25
    assert 4 <= third <= 5
    assert retries.wait(1, RateLimited("x", retry_after=17)) == 17
    assert retries.wait(1, RateLimited("x", retry_after=3600)) == 60
    assert retries.wait(30, ServerFault("x")) == 60


def test_what_a_function_raises_is_recorded_by_class_and_not_asked_again(run):
    asked = Asked(i0=ZeroDivisionError("by zero"), i1=ContractViolation("no completion"))
    results = run(asked)
    assert (results["i0"].status, results["i0"].error, results["i0"].message) == (
        "error",
        "ZeroDivisionError",
        "by zero",
    )
    run(asked)
    assert asked.count["i0"] == asked.count["i1"] == 1


def test_resume_asks_what_is_missing_and_what_the_infrastructure_failed(run):
    run(Asked(i1=BadRequest("malformed"), i2="no"), items=ITEMS[:4])
    again = Asked()
    results = run(again)
    assert set(again.count) == {"i1", "i4", "i5"}
    assert results["i1"].right
    assert not results["i2"].right


@pytest.mark.parametrize("error", [AuthFailed("no key"), UsageError("wrong option")])
def test_an_error_that_is_no_items_fault_stops_the_run_and_keeps_what_is_finished(run, error):
    asked = Asked(i3=error)
    with pytest.raises(type(error), match=str(error)):
        run(asked)
    assert set(asked.count) == {"i0", "i1", "i2", "i3"}
    rest = Asked()
    run(rest)
    assert set(rest.count) == {"i3", "i4", "i5"}


def test_a_record_that_cannot_be_written_stops_the_run(run, monkeypatch):
    monkeypatch.setattr(RunRecord, "append", lambda self, result: (_ for _ in ()).throw(StorageError("disk full")))
    with pytest.raises(StorageError, match="disk full"):
        run(Asked())


def test_progress_is_silent_in_a_pipe(run, capfd):
    run(Asked())
    assert capfd.readouterr() == ("", "")


def test_progress_on_a_terminal_shows_items_rate_and_time_left(run, capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(Asked(), items=ITEMS[:2])
    run(Asked(), name="ported")
    shown = capfd.readouterr().err
    assert "ported" in shown
    assert "2/6" in shown
    assert "6/6" in shown
    assert "item/s" in shown or "s/item" in shown


def test_ctrl_c_ends_at_once_with_the_record_intact(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(f"""
        import signal, time
        from osport.core.types import Completion
        from osport.evals import GoldenItem, RunRecord, run_arm, scorer

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts deaf to it

        def ask(item):
            if item.id == "2":
                print("hanging", flush=True)
                time.sleep(600)
            return Completion("yes", "stop", parsed="yes", latency=0.1)

        items = [GoldenItem(str(n), "text", "yes") for n in range(9)]
        with RunRecord.open({str(tmp_path / "arm.jsonl")!r}, {{}}) as record:
            run_arm(items, ask, scorer("label"), record)
        """)
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "hanging\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in errors
    with RunRecord.open(tmp_path / "arm.jsonl", {}) as record:
        assert list(record.results) == ["0", "1"]


def test_answers_that_are_in_when_the_run_stops_are_recorded(run):
    others_answered = threading.Event()

    def ask(item):
        if item.id == "i0":
            assert others_answered.wait(10)
            time.sleep(0.1)
            raise AuthFailed("no key")
        if item.id == "i5":
            others_answered.set()
        return answer("yes")

    with pytest.raises(AuthFailed):
        run(ask, concurrency=2)
    rest = Asked()
    run(rest)
    assert set(rest.count) == {"i0"}

"""Run one arm over a golden set: concurrency, retries, progress, resume."""

from __future__ import annotations

import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve
from tqdm import tqdm

from osport.core.retries import Retries
from osport.core.types import Completion
from osport.errors import (
    AuthFailed,
    BackendError,
    ContractViolation,
    OsportError,
    OutputError,
)
from osport.evals.golden import GoldenItem
from osport.evals.record import ItemResult, RunRecord
from osport.evals.scorers import is_right
from osport.plugin.hookspecs import ScorerSpec

__all__ = ["run_arm"]

Ask = Callable[[GoldenItem], Completion]


def run_arm(
    items: Sequence[GoldenItem],
    ask: Ask,
    score: ScorerSpec,
    record: RunRecord,
    *,
    name: str = "",
    concurrency: int = 1,
    retries: Retries | None = None,
) -> None:
    """Ask every item that the record does not hold yet, ``concurrency`` at a time.

    ``ask`` returns a completion whose ``parsed`` is the answer, and raises what went wrong:

    * an ``OutputError`` makes the item invalid, with the text kept;
    * a retryable ``BackendError`` is tried again, then recorded as an error, as is any other
      ``BackendError`` or an exception that is not of the tree (a function's own);
    * credentials that are refused and every other error of the tree are not the item's fault: they
      stop the run, and the record keeps what is finished.

    Errors count as wrong, with an infinite latency. On resume, items that ended in a
    ``BackendError`` are asked again: that is the infrastructure's fault, not the model's.

    Progress (items, rate, time left) is shown on a terminal only. Ctrl-C ends at once; calls in
    flight are abandoned and asked again on resume.
    """
    pending = [item for item in items if needs_asking(record.results.get(item.id))]
    if not pending:
        return
    worker = Worker(ask, score, retries or Retries())
    todo: queue.SimpleQueue[GoldenItem | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[ItemResult | BaseException] = queue.SimpleQueue()
    for item in pending:
        todo.put(item)
    # Daemon threads: a call that cannot be interrupted must not hold up Ctrl-C.
    threads = [
        threading.Thread(target=worker.work, args=(todo, done), name=f"osport-run-{number}", daemon=True)
        for number in range(min(concurrency, len(pending)))
    ]
    size = shutil.get_terminal_size()
    try:
        with tqdm(
            total=len(items),
            initial=len(items) - len(pending),
            desc=name,
            unit="item",
            disable=not sys.stderr.isatty(),
            # tqdm draws nothing on a terminal that does not know its size.
            ncols=min(size.columns, 100),
            nrows=size.lines,
        ) as bar:
            for thread in threads:
                thread.start()
            for _ in pending:
                record.append(result_or_raise(done.get()))
                bar.update()
    finally:
        worker.stop.set()


def result_or_raise(outcome: ItemResult | BaseException) -> ItemResult:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def needs_asking(result: ItemResult | None) -> bool:
    return result is None or result.retried_on_resume


class Worker:
    """What the threads of one run share."""

    def __init__(self, ask: Ask, score: ScorerSpec, retries: Retries) -> None:
        self.ask = ask
        self.score = score
        self.retries = retries
        self.stop = threading.Event()

    def work(self, todo: queue.SimpleQueue[Any], done: queue.SimpleQueue[Any]) -> None:
        """Ask items until there are none or the run is stopped; hand over results and what stops the run."""
        while not self.stop.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put(self.finish(item))
            except BaseException as error:  # noqa: BLE001 - raised again by the main thread
                done.put(error)
                return

    def finish(self, item: GoldenItem) -> ItemResult:
        """Ask one item until it has a result."""
        started, clock = time.time(), time.perf_counter()
        attempt, wasted = 1, 0.0
        while True:
            try:
                completion = self.ask(item)
            except OutputError as error:
                invalid = failed(item, "invalid", error)
                result = with_completion(invalid, error.completion, wasted) if error.completion else invalid
                break
            except AuthFailed:
                raise
            except BackendError as error:
                if not error.retryable or attempt > self.retries.most or self.stop.is_set():
                    result = evolve(failed(item, "error", error), retried_on_resume=True)
                    break
                self.stop.wait(self.retries.wait(attempt, error))
                attempt += 1
                wasted = time.perf_counter() - clock
            except ContractViolation as error:
                result = failed(item, "error", error)
                break
            except OsportError:
                raise
            except Exception as error:  # noqa: BLE001 - a function may raise anything; it is recorded by class
                result = failed(item, "error", error)
                break
            else:
                right = is_right(self.score, item.expected, completion.parsed)
                answered = ItemResult(item.id, "answered", right, completion.parsed)
                result = with_completion(answered, completion, wasted)
                break
        return evolve(result, attempts=attempt, started=started, ended=started + time.perf_counter() - clock)


def failed(item: GoldenItem, status: Any, error: Exception) -> ItemResult:
    return ItemResult(item.id, status, error=type(error).__name__, message=str(error))


def with_completion(result: ItemResult, completion: Completion, wasted: float) -> ItemResult:
    """The result with what the completion says; ``wasted`` seconds of failed attempts count as waiting."""
    usage = completion.usage
    return evolve(
        result,
        text=completion.text,
        model=completion.model,
        enforcement=str(completion.enforcement),
        # Exactly zero is the default of a completion that was never timed.
        latency=completion.latency + wasted if completion.latency else None,
        ttft=completion.ttft,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        uncertain=completion.uncertain,
        removed_mass=completion.removed_mass,
    )

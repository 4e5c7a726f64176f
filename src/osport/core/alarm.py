"""What is to happen when a call takes too long, watched by one thread for all of them.

To start a thread for each call holds it up: while an engine has all cores, the new one waits for its turn.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator

__all__ = ["alarm"]


class _Alarms:
    """Those that are set, each with its moment on the monotonic clock."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._set: dict[int, tuple[float, Callable[[], object]]] = {}
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._asleep_until = math.inf

    def set(self, moment: float, act: Callable[[], object]) -> int:
        with self._changed:
            number = next(self._numbers)
            self._set[number] = moment, act
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="osport-alarm", daemon=True)
                self._thread.start()
            elif moment < self._asleep_until:
                self._changed.notify()
        return number

    def unset(self, number: int) -> None:
        with self._changed:
            self._set.pop(number, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                due = [number for number, (moment, _) in self._set.items() if moment <= time.monotonic()]
                acts = [self._set.pop(number)[1] for number in due]
                if not acts:
                    self._asleep_until = min((moment for moment, _ in self._set.values()), default=math.inf)
                    left = self._asleep_until - time.monotonic()
                    self._changed.wait(None if left == math.inf else max(left, 0))
                    continue
            for act in acts:
                with contextlib.suppress(Exception):  # the others are still to be watched
                    act()


_alarms = _Alarms()


def _forget() -> None:
    """A forked process has neither the thread nor the calls that it watches."""
    global _alarms
    _alarms = _Alarms()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def alarm(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Call ``act`` on another thread if the block lasts longer; it must be quick, and what it raises is lost.

    A call that has begun when the block ends is not waited for.
    """
    alarms = _alarms
    number = alarms.set(time.monotonic() + seconds, act)
    try:
        yield
    finally:
        alarms.unset(number)

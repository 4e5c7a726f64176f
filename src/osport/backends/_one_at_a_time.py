"""Who may use an engine that survives one caller at a time, and when it may be taken away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from osport.backends._interruption import Interruption
from osport.errors import BackendError, TimedOut, UsageError

__all__ = ["OneAtATime"]

CLOSED = "this model is closed; make a new Model"


class OneAtATime:
    """A queue in front of one engine.

    A *turn* lasts for a whole answer, also while a stream waits for its consumer. A *step* lasts for
    one call into an engine of this process; ``close`` waits for the step and not for the turn, so a stream
    that nobody reads on does not hold it up, and every later step finds the engine closed.
    """

    def __init__(self, backend: str) -> None:
        self.closed = False
        self._backend = backend
        self._owner: int | None = None
        self._free = threading.Condition()
        self._step = threading.RLock()

    @contextlib.contextmanager
    def turn(self, timeout: float, interruption: Interruption) -> Iterator[float]:
        """Wait until the engine is free, then have it for the block. Gives the seconds that are left of ``timeout``.

        Raises :class:`~osport.errors.UsageError` after ``close``, and when this same thread has it
        already, for it would wait for itself; :class:`~osport.errors.TimedOut` after ``timeout`` seconds;
        :class:`~osport.errors.BackendError` when it is interrupted before it has the engine.
        """
        me = threading.get_ident()
        deadline = time.monotonic() + timeout
        with interruption.acted_on_by(self._look_again), self._free:
            if self._owner == me and not self.closed:
                raise UsageError(
                    f"{self._backend}: this thread is still reading a stream of this model; finish or close it first"
                )
            free = self._free.wait_for(
                lambda: self.closed or interruption.asked or self._owner is None, deadline - time.monotonic()
            )
            self.check_open()
            if interruption.asked:
                raise BackendError(f"{self._backend}: the call was cancelled", backend=self._backend)
            if not free:
                raise TimedOut(
                    f"{self._backend}: other calls had the model for {timeout:g} s (timeout)", backend=self._backend
                )
            self._owner = me
        try:
            yield max(deadline - time.monotonic(), 0.001)
        finally:
            with self._free:
                self._owner = None
                # Not one alone, for its time may be up at this very moment.
                self._free.notify_all()

    def _look_again(self) -> None:
        with self._free:
            self._free.notify_all()

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """One call into the engine. Raises :class:`~osport.errors.UsageError` after ``close``."""
        with self._step:
            self.check_open()
            yield

    def check_open(self) -> None:
        """Raise :class:`~osport.errors.UsageError` after ``close``."""
        if self.closed:
            raise UsageError(f"{self._backend}: {CLOSED}")

    def close(self, *, interrupt: Callable[[], None] | None = None, release: Callable[[], None] | None = None) -> None:
        """Refuse what comes from now on, end the step that runs, and release the engine once.

        ``interrupt`` makes a step that runs come to its end; ``release`` is called behind it.
        """
        with self._free:
            if self.closed:
                return
            self.closed = True
            self._free.notify_all()
        if interrupt is not None:
            interrupt()
        if release is not None:
            with self._step:
                release()

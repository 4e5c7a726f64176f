"""The wish, from any thread, that one call end early."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

__all__ = ["Interruption"]


class Interruption:
    """Made by who may want the call to end; acted on by who runs it."""

    def __init__(self) -> None:
        self.asked = False
        self._lock = threading.Lock()
        self._act: Callable[[], object] | None = None

    def ask(self) -> None:
        """End the call. A call that has ended already is not disturbed."""
        with self._lock:
            self.asked = True
            if self._act is not None:
                self._act()

    @contextlib.contextmanager
    def acted_on_by(self, act: Callable[[], object]) -> Iterator[None]:
        """During the block ``act`` is called when the end is asked for, and at once if it was."""
        with self._lock:
            self._act = act
            if self.asked:
                act()
        try:
            yield
        finally:
            with self._lock:
                self._act = None

"""When a call that failed is tried again, and how long after."""

from __future__ import annotations

import random

from attrs import field, frozen, validators

from osport.errors import BackendError, TimedOut

__all__ = ["Retries"]


@frozen
class Retries:
    """How often a retryable :class:`~osport.errors.BackendError` is tried again, and how long after.

    The wait doubles from ``first_wait`` seconds up to ``longest_wait``, with up to a quarter of
    jitter; a server's ``retry_after`` is honoured, and one above ``longest_wait`` is not waited for at all.
    """

    most: int = field(default=3, validator=validators.ge(0))
    first_wait: float = field(default=1.0, validator=validators.ge(0))
    longest_wait: float = field(default=60.0, validator=validators.ge(0))

    def wait(self, attempt: int, error: BackendError) -> float:
        """Seconds to wait after failed attempt number ``attempt`` (from 1)."""
        # Jitter keeps parallel calls from coming back all at once; nothing secret hangs on it.
        growing: float = self.first_wait * 2 ** (attempt - 1) * random.uniform(1, 1.25)  # noqa: S311
        return min(max(growing, error.retry_after or 0), self.longest_wait)

    def pause(self, attempt: int, error: BackendError, seconds_left: float) -> float | None:
        """Seconds to wait before the attempt after number ``attempt``; None when there is to be none.

        That is so after a :class:`~osport.errors.TimedOut`, too: the time that the caller gave is spent.
        """
        if not error.retryable or isinstance(error, TimedOut) or attempt > self.most:
            return None
        if error.retry_after is not None and error.retry_after > self.longest_wait:
            return None
        wait = self.wait(attempt, error)
        return wait if wait < seconds_left else None

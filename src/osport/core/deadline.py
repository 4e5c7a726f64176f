"""Until when something may take: one moment for all that is done on the way."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from attrs import frozen

__all__ = ["Deadline", "is_seconds"]

_applied: ContextVar[Deadline | None] = ContextVar("osport_deadline", default=None)


@frozen
class Deadline:
    """The moment ``ends`` on the monotonic clock; ``seconds`` is what the caller gave, for messages.

    >>> with Deadline.after(1).applied():
    ...     Deadline.after(600).seconds
    1
    """

    seconds: float
    ends: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now, but never later than the one that is applied here."""
        made, outer = cls(seconds, time.monotonic() + seconds), _applied.get()
        return outer if outer is not None and outer.ends < made.ends else made

    @property
    def left(self) -> float:
        """Seconds; 0 when it is over."""
        return max(0.0, self.ends - time.monotonic())

    @property
    def timeout(self) -> float:
        """What is left as somebody else's timeout: seconds to the millisecond, and never 0."""
        return max(math.ceil(self.left * 1000) / 1000, 0.001)

    @contextlib.contextmanager
    def applied(self) -> Iterator[Deadline]:
        """What is begun in the block ends by this one, too; a worker of ``asyncio.to_thread`` included.

        Not around a ``yield`` of a generator: it would apply to what its consumer does.
        """
        before = _applied.set(self)
        try:
            yield self
        finally:
            _applied.reset(before)


def is_seconds(value: Any) -> bool:
    """Whether this is a time above 0 that ends."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf

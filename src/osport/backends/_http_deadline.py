"""A deadline for a whole answer, where the HTTP library has limits for each read only: a server that drips makes many.

For httpx, and for the library of the same make that the Anthropic SDK uses.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from osport.core.deadline import Deadline

__all__ = ["limit_connection", "watched", "wire_until"]

_here = threading.local()


@contextlib.contextmanager
def wire_until(deadline: Deadline) -> Iterator[None]:
    """What this thread reads and writes inside ends by the deadline, else it is a TimeoutError.

    Around each wait, never around a ``yield``: it would hold for what the consumer does meanwhile.
    """
    before = getattr(_here, "deadline", None)
    _here.deadline = deadline
    try:
        yield
    finally:
        _here.deadline = before


def limit_connection(event: str, info: Mapping[str, Any]) -> None:
    """The ``trace`` extension of every request: new connections come by here, and learn to look at the deadline."""
    if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
        stream = info["return_value"]
        for name in ("read", "write"):
            setattr(stream, name, functools.partial(_limited, getattr(stream, name)))


def _limited(act: Callable[..., Any], what: Any, timeout: float | None = None) -> Any:
    deadline: Deadline | None = getattr(_here, "deadline", None)
    if deadline is not None:
        left = deadline.left
        if not left:
            raise TimeoutError(f"the {deadline.seconds:g} s are over")
        timeout = left if timeout is None else min(timeout, left)
    return act(what, timeout=timeout)


def watched(stream: Any, deadline: Deadline, kind: type) -> Any:
    """The same bytes; waiting for them ends by the deadline. ``kind``: the library's class of such streams."""

    class Watched(kind):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            chunks = iter(stream)
            while True:
                with wire_until(deadline):
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                yield chunk

        def close(self) -> None:
            stream.close()

    return Watched()

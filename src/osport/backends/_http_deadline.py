"""A deadline for a whole answer, where the HTTP library has limits for each read only: a server that drips makes many.

For httpx, and for the library of the same make that the Anthropic SDK uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from osport.core.deadline import Deadline

__all__ = ["awatched", "limit_connection", "watched", "wire_until"]

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
    return _watched_class(kind)(stream, deadline)


@functools.cache
def _watched_class(kind: type) -> type:
    class Watched(kind):  # type: ignore[misc]
        def __init__(self, stream: Any, deadline: Deadline) -> None:
            self._stream = stream
            self._deadline = deadline

        def __iter__(self) -> Iterator[bytes]:
            chunks = iter(self._stream)
            while True:
                with wire_until(self._deadline):
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                yield chunk

        def close(self) -> None:
            self._stream.close()

    return Watched


def awatched(stream: Any, deadline: Deadline, kind: type) -> Any:
    """:func:`watched` for asyncio."""
    return _awatched_class(kind)(stream, deadline)


@functools.cache
def _awatched_class(kind: type) -> type:
    class Watched(kind):  # type: ignore[misc]
        def __init__(self, stream: Any, deadline: Deadline) -> None:
            self._stream = stream
            self._deadline = deadline

        async def __aiter__(self) -> AsyncIterator[bytes]:
            chunks = aiter(self._stream)
            while True:
                # Around each wait, never around a yield: it would cancel what the consumer does meanwhile.
                async with asyncio.timeout(self._deadline.left):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Watched

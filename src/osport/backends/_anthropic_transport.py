"""What the vendor's SDK does not see to: the deadline of a whole answer, and that an answer is one."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from osport.errors import BadResponse, TimedOut

__all__ = ["async_watched_transport", "watched_transport"]

KINDS = ("application/json", "text/event-stream")


def watched_transport(backend: str) -> Any:
    """A transport of the SDK's HTTP library.

    Its answers raise :class:`~osport.errors.TimedOut` once the call's read timeout is over, however they drip, and
    :class:`~osport.errors.BadResponse` when they are neither JSON nor events.
    """
    import httpx2

    class Watched(httpx2.SyncByteStream):
        def __init__(self, stream: Any, seconds: float | None) -> None:
            self.stream = stream
            self.seconds = seconds
            self.ends = time.monotonic() + (seconds if seconds is not None else float("inf"))

        def __iter__(self) -> Iterator[bytes]:
            for chunk in self.stream:
                yield chunk
                if time.monotonic() > self.ends:
                    raise _late(backend, self.seconds)

        def close(self) -> None:
            self.stream.close()

    class Transport(httpx2.HTTPTransport):
        def handle_request(self, request: Any) -> Any:
            response = super().handle_request(request)
            if wrong := _no_answer(backend, response):
                response.close()
                raise wrong
            response.stream = Watched(response.stream, _read_timeout(request))
            return response

    return Transport(verify=_tls())


def async_watched_transport(backend: str) -> Any:
    """:func:`watched_transport` for asyncio; no connection is kept, for an idle one would outlive its loop."""
    import httpx2

    class Watched(httpx2.AsyncByteStream):
        def __init__(self, stream: Any, seconds: float | None) -> None:
            self.stream = stream
            self.seconds = seconds
            self.ends = asyncio.get_running_loop().time() + seconds if seconds is not None else None

        async def __aiter__(self) -> AsyncIterator[bytes]:
            chunks = aiter(self.stream)
            while True:
                # Around each wait, never around a yield: it would cancel what the consumer does meanwhile.
                try:
                    async with asyncio.timeout_at(self.ends):
                        chunk = await anext(chunks, None)
                except TimeoutError as error:
                    raise _late(backend, self.seconds) from error
                if chunk is None:
                    return
                yield chunk

        async def aclose(self) -> None:
            await self.stream.aclose()

    class Transport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            if wrong := _no_answer(backend, response):
                await response.aclose()
                raise wrong
            response.stream = Watched(response.stream, _read_timeout(request))
            return response

    return Transport(verify=_tls(), limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0))


@functools.cache
def _tls() -> Any:
    """Reading the certificates takes longer than many an answer: once for all clients."""
    import httpx2

    return httpx2.create_ssl_context()


def _read_timeout(request: Any) -> float | None:
    seconds: float | None = request.extensions.get("timeout", {}).get("read")
    return seconds


def _late(backend: str, seconds: float | None) -> TimedOut:
    return TimedOut(f"{backend}: no complete answer within {seconds:g} s (timeout)", backend=backend)


def _no_answer(backend: str, response: Any) -> BadResponse | None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not response.is_success or kind in KINDS:
        return None
    what = f"the answer is {kind or 'of no type'}, neither JSON nor events; is this the right server?"
    return BadResponse(f"{backend}: {what}", backend=backend)

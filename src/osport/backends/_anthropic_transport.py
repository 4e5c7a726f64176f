"""What the vendor's SDK does not see to: the deadline of a whole answer, and that an answer is one."""

from __future__ import annotations

import functools
from typing import Any

from osport.backends._http_deadline import limit_connection, watched, wire_until
from osport.core.deadline import Deadline
from osport.errors import BadResponse

__all__ = ["watched_async_transport", "watched_transport"]

KINDS = ("application/json", "text/event-stream")


def watched_transport(backend: str) -> Any:
    """A transport of the SDK's HTTP library.

    Its answers raise ``TimeoutError`` once the call's read timeout is over, however they drip, and
    :class:`~osport.errors.BadResponse` when they are neither JSON nor events.
    """
    import httpx2

    class Transport(httpx2.HTTPTransport):
        def handle_request(self, request: Any) -> Any:
            deadline = Deadline.after(request.extensions["timeout"]["read"])
            request.extensions["trace"] = limit_connection
            with wire_until(deadline):
                response = super().handle_request(request)
            if error := _other_kind(response, backend):
                response.close()
                raise error
            response.stream = watched(response.stream, deadline, httpx2.SyncByteStream)
            return response

    return Transport(verify=_tls())


def watched_async_transport(backend: str) -> Any:
    """:func:`watched_transport` for asyncio, where the caller sees to the deadline."""
    import httpx2

    class Transport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            if error := _other_kind(response, backend):
                await response.aclose()
                raise error
            return response

    return Transport(verify=_tls())


def _other_kind(response: Any, backend: str) -> BadResponse | None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not response.is_success or kind in KINDS:
        return None
    what = f"the answer is {kind or 'of no type'}, neither JSON nor events; is this the right server?"
    return BadResponse(f"{backend}: {what}", backend=backend)


@functools.cache
def _tls() -> Any:
    """Reading the certificates takes longer than many an answer: once for all clients."""
    import httpx2

    return httpx2.create_ssl_context()

"""What the vendor's SDK does not see to: the deadline of a whole answer, and that an answer is one."""

from __future__ import annotations

from typing import Any

from osport.backends._http_deadline import limit_connection, watched, wire_until
from osport.core.deadline import Deadline
from osport.errors import BadResponse

__all__ = ["watched_transport"]

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
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.is_success and kind not in KINDS:
                response.close()
                what = f"the answer is {kind or 'of no type'}, neither JSON nor events; is this the right server?"
                raise BadResponse(f"{backend}: {what}", backend=backend)
            response.stream = watched(response.stream, deadline, httpx2.SyncByteStream)
            return response

    return Transport()

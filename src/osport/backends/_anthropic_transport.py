"""What the vendor's SDK does not see to: the deadline of a whole answer, and that an answer is one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from osport.errors import BadResponse, TimedOut

__all__ = ["watched_transport"]

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
                    what = f"no complete answer within {self.seconds:g} s (timeout)"
                    raise TimedOut(f"{backend}: {what}", backend=backend)

        def close(self) -> None:
            self.stream.close()

    class Transport(httpx2.HTTPTransport):
        def handle_request(self, request: Any) -> Any:
            response = super().handle_request(request)
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.is_success and kind not in KINDS:
                response.close()
                what = f"the answer is {kind or 'of no type'}, neither JSON nor events; is this the right server?"
                raise BadResponse(f"{backend}: {what}", backend=backend)
            response.stream = Watched(response.stream, request.extensions.get("timeout", {}).get("read"))
            return response

    return Transport()

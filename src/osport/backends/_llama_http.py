"""The road to a llama.cpp server: what is asked over HTTP, from a thread or from an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from typing import Any, Self, TypeVar

from attrs import frozen

from osport.backends._embedded_server import Endpoint
from osport.backends._http_errors import error_from_answer, translated
from osport.errors import BadResponse, MissingDependency, TimedOut

__all__ = ["Ask", "Asking", "LlamaHttp"]

BACKEND = "llama_server"

T = TypeVar("T")


@frozen
class Ask:
    """One request to the server: a POST with this body, or a GET without one. ``timeout`` in seconds.

    ``streamed``: the answer is the list of the objects that came in. The server does not notice that a client has
    gone while it prepares an answer in one piece; of a stream it does, at its next piece.
    """

    path: str
    body: Mapping[str, Any] | None
    timeout: float
    streamed: bool = False


Asking = Generator[Ask, Any, T]
"""What asks the server and goes on with its answers, written once for both roads: it yields what to ask, is sent
the JSON that came back (or has the error raised inside it), and returns what it made of that."""


class LlamaHttp:
    """The way to one server; thread-safe. ``model`` is how errors call the model."""

    def __init__(self, model: str, *, through_proxy: bool) -> None:
        try:
            import httpx
            import httpx_sse  # noqa: F401 - asked for now, so that its absence shows before the first stream
        except ImportError as error:
            raise MissingDependency(error.name or "httpx", "llama-server") from error
        self.model = model
        self._through_proxy = through_proxy
        self._client = httpx.Client(
            trust_env=through_proxy,
            follow_redirects=False,
            verify=_tls(),
            # The server closes a connection that was idle for five seconds, perhaps at the very moment of the
            # next request; one that is given up earlier cannot break that way.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=1.0),
        )

    def run(self, asking: Asking[T], where: Callable[[], Endpoint]) -> T:
        """Ask everything from this thread; ``where`` is called when there is something to ask."""
        try:
            ask = next(asking)
            endpoint = where()
            while True:
                try:
                    answer = self._answer(endpoint, ask)
                except Exception as error:  # noqa: BLE001 - the asker decides
                    ask = asking.throw(error)
                else:
                    ask = asking.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def arun(self, asking: Asking[T], where: Callable[[], Endpoint]) -> T:
        """Ask everything from this event loop; cancelling closes the connection, which frees the slot."""
        async with self._async_client() as client:
            try:
                ask = next(asking)
                # An embedded server may have to be started, which takes its time.
                endpoint = await asyncio.to_thread(where)
                while True:
                    try:
                        answer = await self._aanswer(client, endpoint, ask)
                    except Exception as error:  # noqa: BLE001 - the asker decides
                        ask = asking.throw(error)
                    else:
                        ask = asking.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def events(self, endpoint: Endpoint, ask: Ask) -> Iterator[Any]:
        """The JSON objects of a server-sent event stream; closing the iterator closes the connection."""
        from httpx_sse import EventSource, SSEError

        with self._translated(ask), self._client.stream(**_request(endpoint, ask)) as response:
            response.stream = _until(response.stream, ask.timeout)
            if not response.is_success:
                response.read()
                raise self._error(response.status_code, response.text, response.headers)
            if _in_one_piece(response):
                response.read()
                yield self._event(response.text, response.headers)
                return
            try:
                for event in EventSource(response).iter_sse():
                    if event.data == "[DONE]":
                        return
                    yield self._event(event.data, response.headers)
            except SSEError as error:
                raise BadResponse(f"{BACKEND}: {error}", backend=BACKEND, model=self.model) from error

    async def aevents(self, endpoint: Endpoint, ask: Ask) -> AsyncGenerator[Any, None]:
        """:meth:`events` for an event loop."""
        from httpx_sse import EventSource, SSEError

        ends = asyncio.get_running_loop().time() + ask.timeout
        async with self._async_client() as client:
            with self._translated(ask):
                async with _deadline(ask, ends):
                    request = client.build_request(**_request(endpoint, ask))
                    response = await client.send(request, stream=True)
                try:
                    if not response.is_success:
                        async with _deadline(ask, ends):
                            await response.aread()
                        raise self._error(response.status_code, response.text, response.headers)
                    if _in_one_piece(response):
                        async with _deadline(ask, ends):
                            await response.aread()
                        yield self._event(response.text, response.headers)
                        return
                    events = EventSource(response).aiter_sse()
                    while True:
                        # Around each wait, never around a yield: it would cancel what the consumer does meanwhile.
                        async with _deadline(ask, ends):
                            event = await anext(events, None)
                        if event is None or event.data == "[DONE]":
                            return
                        yield self._event(event.data, response.headers)
                except SSEError as error:
                    raise BadResponse(f"{BACKEND}: {error}", backend=BACKEND, model=self.model) from error
                finally:
                    await response.aclose()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _answer(self, endpoint: Endpoint, ask: Ask) -> Any:
        if ask.streamed:
            return list(self.events(endpoint, ask))
        with self._translated(ask), self._client.stream(**_request(endpoint, ask)) as response:
            response.stream = _until(response.stream, ask.timeout)
            response.read()
        return self._read(response)

    async def _aanswer(self, client: Any, endpoint: Endpoint, ask: Ask) -> Any:
        if ask.streamed:
            return [payload async for payload in self.aevents(endpoint, ask)]
        with self._translated(ask):
            async with _deadline(ask, asyncio.get_running_loop().time() + ask.timeout):
                response = await client.request(**_request(endpoint, ask))
        return self._read(response)

    def _async_client(self) -> Any:
        # A client belongs to one event loop, and a model may be asked from several: one for each call. On the
        # loopback a new connection costs a fraction of a millisecond.
        import httpx

        return httpx.AsyncClient(trust_env=self._through_proxy, follow_redirects=False, verify=_tls())

    def _translated(self, ask: Ask) -> contextlib.AbstractContextManager[None]:
        return translated(backend=BACKEND, model=self.model, timeout=ask.timeout)

    def _read(self, response: Any) -> Any:
        if not response.is_success:
            raise self._error(response.status_code, response.text, response.headers)
        return self._json(response.text)

    def _event(self, data: str, headers: Mapping[str, str]) -> Any:
        payload = self._json(data)
        if isinstance(payload, dict) and "error" in payload:
            code = payload["error"].get("code") if isinstance(payload["error"], dict) else None
            raise self._error(code if isinstance(code, int) else 500, data, headers)
        return payload

    def _error(self, status: int, body: str, headers: Mapping[str, str]) -> Exception:
        return error_from_answer(status, body, headers, backend=BACKEND, model=self.model)

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise BadResponse(f"{BACKEND}: not JSON: {text[:200]!r}", backend=BACKEND, model=self.model) from error


@functools.cache
def _tls() -> Any:
    """Reading the certificates takes longer than many an answer: once for all clients."""
    import httpx

    return httpx.create_ssl_context()


def _request(endpoint: Endpoint, ask: Ask) -> dict[str, Any]:
    import httpx

    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    if ask.streamed:
        # llama.cpp closes the connection behind a stream without saying so; the next request would find it dead.
        headers["Connection"] = "close"
    return {
        "method": "GET" if ask.body is None else "POST",
        "url": endpoint.url + ask.path,
        "json": ask.body,
        "headers": headers,
        "timeout": httpx.Timeout(ask.timeout, connect=min(ask.timeout, 10.0)),
    }


def _in_one_piece(response: Any) -> bool:
    return str(response.headers.get("content-type", "")).startswith("application/json")


@contextlib.asynccontextmanager
async def _deadline(ask: Ask, ends: float) -> AsyncIterator[None]:
    """The whole answer must be there in time: httpx's own limit holds for one read only."""
    try:
        async with asyncio.timeout_at(ends):
            yield
    except TimeoutError as error:
        raise _late(ask.timeout) from error


def _late(timeout: float) -> TimedOut:
    return TimedOut(f"{BACKEND}: no complete answer within {timeout:g} s (timeout)", backend=BACKEND)


def _until(stream: Any, timeout: float) -> Any:
    """The same bytes under the deadline of the whole answer."""
    import httpx

    deadline = time.monotonic() + timeout

    class Watched(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for chunk in stream:
                yield chunk
                if time.monotonic() > deadline:
                    raise _late(timeout)

        def close(self) -> None:
            stream.close()

    return Watched()

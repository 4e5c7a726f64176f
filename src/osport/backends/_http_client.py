"""One way to speak HTTP for all backends: JSON, server-sent events, lines of JSON; plain and for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from typing import Any, Self

from attrs import field, frozen

from osport.backends._http_deadline import awatched, limit_connection, watched, wire_until
from osport.backends._http_errors import error_from_answer, status_of_error, translated
from osport.backends._http_wakeups import wake_late
from osport.core.deadline import Deadline
from osport.core.secrets import without_key
from osport.errors import AuthFailed, BackendError, BadResponse, MissingDependency, UsageError

__all__ = ["Endpoint", "HttpClient"]

# llama.cpp closes the connection behind a stream without saying so, and a stream that is left half way must not
# leave its connection to the next call.
ONE_STREAM = {"Connection": "close"}
_closing: set[asyncio.Task[None]] = set()


@frozen
class Endpoint:
    """Where a server listens, and the key it wants. ``withheld`` says why a key that is there was not sent."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    withheld: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The key, where there is one."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def key_hidden(self) -> contextlib.AbstractContextManager[None]:
        """What is raised inside does not show the key, whatever the server wrote into its answer."""
        return without_key(self.api_key)


class HttpClient:
    """Thread-safe; certificates are verified, redirects never followed, nothing is tried twice.

    ``backend`` and ``model`` name themselves in errors; ``extra`` installs httpx and httpx-sse.
    """

    def __init__(self, backend: str, model: str, *, extra: str, through_proxy: bool = True) -> None:
        try:
            import httpx
            import httpx_sse  # noqa: F401 - asked for now, so that its absence shows before the first stream
        except ImportError as error:
            raise MissingDependency(error.name or "httpx", extra) from error
        self.backend = backend
        self.model = model
        self._closed = False
        self._common: dict[str, Any] = {"trust_env": through_proxy, "follow_redirects": False, "verify": _tls()}
        self._client = httpx.Client(
            **self._common,
            # The server closes a connection that was idle for five seconds, perhaps at the very moment of the
            # next request; one that is given up earlier cannot break that way.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=1.0),
        )
        self._of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    def get(self, endpoint: Endpoint, path: str, *, deadline: Deadline) -> Any:
        """The JSON answer to a GET."""
        return self._call("GET", endpoint, path, None, deadline)

    def post(self, endpoint: Endpoint, path: str, body: Mapping[str, Any], *, deadline: Deadline) -> Any:
        """The JSON answer to a POST."""
        return self._call("POST", endpoint, path, body, deadline)

    async def aget(self, endpoint: Endpoint, path: str, *, deadline: Deadline) -> Any:
        """:meth:`get` for asyncio."""
        return await self._acall("GET", endpoint, path, None, deadline)

    async def apost(self, endpoint: Endpoint, path: str, body: Mapping[str, Any], *, deadline: Deadline) -> Any:
        """:meth:`post` for asyncio."""
        return await self._acall("POST", endpoint, path, body, deadline)

    def events(
        self, endpoint: Endpoint, path: str, body: Mapping[str, Any], *, deadline: Deadline, at_once: bool = False
    ) -> Generator[Any]:
        """The JSON objects of a server-sent event stream; closing the iterator closes the connection.

        ``at_once``: nobody wants them before the last one is there.
        """
        from httpx_sse import EventSource

        with self._streamed("POST", endpoint, path, body, deadline, ONE_STREAM) as response:
            if not response.is_success:
                response.read()
                raise self._error(endpoint, response.status_code, response.text, response.headers)
            if at_once:
                wake_late(response)
            if _in_one_piece(response):
                response.read()
                yield self._whole(endpoint, response)
                return
            with self._well_formed():
                for event in EventSource(response).iter_sse():
                    if event.data == "[DONE]":
                        return
                    yield self._piece(endpoint, event.data, response.headers)

    async def aevents(
        self, endpoint: Endpoint, path: str, body: Mapping[str, Any], *, deadline: Deadline, at_once: bool = False
    ) -> AsyncGenerator[Any]:
        """:meth:`events` for asyncio."""
        from httpx_sse import EventSource

        async with self._astreamed("POST", endpoint, path, body, deadline, ONE_STREAM) as response:
            if not response.is_success:
                await response.aread()
                raise self._error(endpoint, response.status_code, response.text, response.headers)
            if at_once:
                wake_late(response)
            if _in_one_piece(response):
                await response.aread()
                yield self._whole(endpoint, response)
                return
            with self._well_formed():
                async with contextlib.aclosing(EventSource(response).aiter_sse()) as events:
                    async for event in events:
                        if event.data == "[DONE]":
                            return
                        yield self._piece(endpoint, event.data, response.headers)

    def lines(self, endpoint: Endpoint, path: str, body: Mapping[str, Any], *, deadline: Deadline) -> Generator[Any]:
        """The JSON objects of a stream that holds one a line; closing the iterator closes the connection."""
        with self._streamed("POST", endpoint, path, body, deadline, ONE_STREAM) as response:
            if not response.is_success:
                response.read()
                raise self._error(endpoint, response.status_code, response.text, response.headers)
            self._refuse_other_type(response.headers, ("application/x-ndjson", "application/json"))
            for line in response.iter_lines():
                if line.strip():
                    yield self._piece(endpoint, line, response.headers)

    async def alines(
        self, endpoint: Endpoint, path: str, body: Mapping[str, Any], *, deadline: Deadline
    ) -> AsyncGenerator[Any]:
        """:meth:`lines` for asyncio."""
        async with self._astreamed("POST", endpoint, path, body, deadline, ONE_STREAM) as response:
            if not response.is_success:
                await response.aread()
                raise self._error(endpoint, response.status_code, response.text, response.headers)
            self._refuse_other_type(response.headers, ("application/x-ndjson", "application/json"))
            async with contextlib.aclosing(response.aiter_lines()) as lines:
                async for line in lines:
                    if line.strip():
                        yield self._piece(endpoint, line, response.headers)

    def close(self) -> None:
        """Close all connections; a call that is under way ends with an error."""
        self._closed = True
        self._client.close()
        for loop, client in list(self._of_loops.items()):
            # A loop that has ended took its connections along.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_close_soon, loop, client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(
        self, method: str, endpoint: Endpoint, path: str, body: Mapping[str, Any] | None, deadline: Deadline
    ) -> Any:
        with self._streamed(method, endpoint, path, body, deadline, {}) as response:
            response.read()
            return self._whole(endpoint, response)

    async def _acall(
        self, method: str, endpoint: Endpoint, path: str, body: Mapping[str, Any] | None, deadline: Deadline
    ) -> Any:
        async with self._astreamed(method, endpoint, path, body, deadline, {}) as response:
            await response.aread()
            return self._whole(endpoint, response)

    @contextlib.contextmanager
    def _streamed(
        self,
        method: str,
        endpoint: Endpoint,
        path: str,
        body: Mapping[str, Any] | None,
        deadline: Deadline,
        headers: Mapping[str, str],
    ) -> Iterator[Any]:
        self._refuse_closed()
        import httpx

        with self._errors(endpoint, deadline), contextlib.ExitStack() as connection:
            asked = _request(method, endpoint, path, body, deadline, headers)
            with wire_until(deadline):
                response = connection.enter_context(
                    self._client.stream(**asked, extensions={"trace": limit_connection})
                )
            response.stream = watched(response.stream, deadline, httpx.SyncByteStream)
            yield response

    @contextlib.asynccontextmanager
    async def _astreamed(
        self,
        method: str,
        endpoint: Endpoint,
        path: str,
        body: Mapping[str, Any] | None,
        deadline: Deadline,
        headers: Mapping[str, str],
    ) -> AsyncIterator[Any]:
        self._refuse_closed()
        import httpx

        client = self._client_of_this_loop()
        with self._errors(endpoint, deadline):
            async with contextlib.AsyncExitStack() as connection:
                asked = _request(method, endpoint, path, body, deadline, headers)
                async with asyncio.timeout(deadline.left):
                    response = await connection.enter_async_context(client.stream(**asked))
                response.stream = awatched(response.stream, deadline, httpx.AsyncByteStream)
                yield response

    @contextlib.contextmanager
    def _errors(self, endpoint: Endpoint, deadline: Deadline) -> Iterator[None]:
        with endpoint.key_hidden(), translated(backend=self.backend, model=self.model, timeout=deadline.seconds):
            yield

    def _client_of_this_loop(self) -> Any:
        import httpx

        loop = asyncio.get_running_loop()
        if loop not in self._of_loops:
            # An idle connection would outlive its loop, and nobody could close it then.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            self._of_loops[loop] = httpx.AsyncClient(**self._common, limits=limits)
        return self._of_loops[loop]

    def _whole(self, endpoint: Endpoint, response: Any) -> Any:
        if not response.is_success:
            raise self._error(endpoint, response.status_code, response.text, response.headers)
        self._refuse_other_type(response.headers, ("application/json",))
        return self._piece(endpoint, response.text, response.headers)

    def _piece(self, endpoint: Endpoint, text: str, headers: Mapping[str, str]) -> Any:
        """One object; an error behind a 200 is raised as what it would have been instead of it."""
        payload = self._json(text)
        if isinstance(payload, dict) and payload.get("error"):
            raise self._error(endpoint, status_of_error(payload["error"]), text, headers)
        return payload

    def _error(self, endpoint: Endpoint, status: int, body: str, headers: Mapping[str, str]) -> BackendError:
        error = error_from_answer(status, body, headers, backend=self.backend, model=self.model)
        if isinstance(error, AuthFailed) and endpoint.withheld:
            error.args = (f"{error}. {endpoint.withheld}",)
        return error

    @contextlib.contextmanager
    def _well_formed(self) -> Iterator[None]:
        from httpx_sse import SSEError

        try:
            yield
        except SSEError as error:
            raise BadResponse(f"{self.backend}: {error}", backend=self.backend, model=self.model) from error

    def _refuse_other_type(self, headers: Mapping[str, str], wanted: tuple[str, ...]) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in wanted:
            raise BadResponse(
                f"{self.backend}: the answer is {kind or 'of no type'}, not {wanted[0]}; is this the right server?",
                backend=self.backend,
                model=self.model,
            )

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadResponse(
                f"{self.backend}: not JSON: {text[:200]!r}", backend=self.backend, model=self.model
            ) from error

    def _refuse_closed(self) -> None:
        if self._closed:
            raise UsageError(f"this {self.backend} model is closed; make a new Model")


@functools.cache
def _tls() -> Any:
    """Reading the certificates takes longer than many an answer: once for all clients."""
    import httpx

    return httpx.create_ssl_context()


def _close_soon(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    task = loop.create_task(client.aclose())
    # A loop keeps no hold of its tasks.
    _closing.add(task)
    task.add_done_callback(_closing.discard)


def _request(
    method: str,
    endpoint: Endpoint,
    path: str,
    body: Mapping[str, Any] | None,
    deadline: Deadline,
    headers: Mapping[str, str],
) -> dict[str, Any]:
    import httpx

    return {
        "method": method,
        "url": endpoint.url + path,
        "json": body,
        "headers": {**endpoint.headers, **headers},
        "timeout": httpx.Timeout(deadline.left, connect=min(deadline.left, 10.0)),
    }


def _in_one_piece(response: Any) -> bool:
    """Whether a server that was asked for a stream answers, or reports an error, in one object instead."""
    return str(response.headers.get("content-type", "")).startswith("application/json")

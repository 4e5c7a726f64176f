"""The road to a llama.cpp server: what is asked over HTTP, from a thread or from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any, TypeVar

from attrs import frozen

from osport.backends._http_client import Endpoint, HttpClient

__all__ = ["Ask", "Asking", "LlamaHttp"]

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


class LlamaHttp(HttpClient):
    """The way to one server; thread-safe. ``model`` is how errors call the model."""

    def __init__(self, model: str, *, through_proxy: bool) -> None:
        super().__init__("llama_server", model, extra="llama-server", through_proxy=through_proxy)

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
        try:
            ask = next(asking)
            # An embedded server may have to be started, which takes its time.
            endpoint = await asyncio.to_thread(where)
            while True:
                try:
                    answer = await self._aanswer(endpoint, ask)
                except Exception as error:  # noqa: BLE001 - the asker decides
                    ask = asking.throw(error)
                else:
                    ask = asking.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def pieces(self, endpoint: Endpoint, ask: Ask) -> Generator[Any]:
        """The JSON objects of a streamed answer; closing the iterator closes the connection."""
        return self.events(endpoint, ask.path, ask.body or {}, timeout=ask.timeout)

    def apieces(self, endpoint: Endpoint, ask: Ask) -> AsyncGenerator[Any]:
        """:meth:`pieces` for an event loop."""
        return self.aevents(endpoint, ask.path, ask.body or {}, timeout=ask.timeout)

    def _answer(self, endpoint: Endpoint, ask: Ask) -> Any:
        if ask.streamed:
            return list(self.pieces(endpoint, ask))
        if ask.body is None:
            return self.get(endpoint, ask.path, timeout=ask.timeout)
        return self.post(endpoint, ask.path, ask.body, timeout=ask.timeout)

    async def _aanswer(self, endpoint: Endpoint, ask: Ask) -> Any:
        if ask.streamed:
            return [payload async for payload in self.apieces(endpoint, ask)]
        if ask.body is None:
            return await self.aget(endpoint, ask.path, timeout=ask.timeout)
        return await self.apost(endpoint, ask.path, ask.body, timeout=ask.timeout)

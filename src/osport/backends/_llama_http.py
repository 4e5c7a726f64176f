"""The road to a llama.cpp server: what is asked over HTTP, from a thread or from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any, TypeVar

from attrs import frozen

from osport.backends._http_client import Endpoint, HttpClient
from osport.core.deadline import Deadline

__all__ = ["Ask", "Asking", "LlamaHttp", "Route"]

T = TypeVar("T")


@frozen
class Ask:
    """One request to the server: a POST with this body, or a GET without one.

    ``streamed``: the answer is the list of the objects that came in. While the server prepares an answer in one
    piece, it looks whether its client has gone only when for a second nothing was ready for any client; of a stream
    it notices at the next piece.
    """

    path: str
    body: Mapping[str, Any] | None
    streamed: bool = False


@frozen
class Route:
    """Where to ask, and until when all that belongs to one call may take."""

    endpoint: Endpoint
    deadline: Deadline


Asking = Generator[Ask, Any, T]
"""What asks the server and goes on with its answers, written once for both roads: it yields what to ask, is sent
the JSON that came back (or has the error raised inside it), and returns what it made of that."""


class LlamaHttp(HttpClient):
    """The way to one server; thread-safe. ``model`` is how errors call the model."""

    def __init__(self, model: str, *, through_proxy: bool) -> None:
        super().__init__("llama_server", model, extra="llama-server", through_proxy=through_proxy)

    def run(self, asking: Asking[T], where: Callable[[], Route]) -> T:
        """Ask everything from this thread; ``where`` is called when there is something to ask."""
        try:
            ask = next(asking)
            route = where()
            while True:
                try:
                    answer = self._answer(route, ask)
                except Exception as error:  # noqa: BLE001 - the asker decides
                    ask = asking.throw(error)
                else:
                    ask = asking.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def arun(self, asking: Asking[T], where: Callable[[], Route]) -> T:
        """Ask everything from this event loop; cancelling closes the connection, which frees the slot."""
        try:
            ask = next(asking)
            # An embedded server may have to be started, which takes its time.
            route = await asyncio.to_thread(where)
            while True:
                try:
                    answer = await self._aanswer(route, ask)
                except Exception as error:  # noqa: BLE001 - the asker decides
                    ask = asking.throw(error)
                else:
                    ask = asking.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def pieces(self, route: Route, ask: Ask, *, at_once: bool = False) -> Generator[Any]:
        """The JSON objects of a streamed answer; closing the iterator closes the connection."""
        return self.events(route.endpoint, ask.path, ask.body or {}, deadline=route.deadline, at_once=at_once)

    def apieces(self, route: Route, ask: Ask, *, at_once: bool = False) -> AsyncGenerator[Any]:
        """:meth:`pieces` for an event loop."""
        return self.aevents(route.endpoint, ask.path, ask.body or {}, deadline=route.deadline, at_once=at_once)

    def _answer(self, route: Route, ask: Ask) -> Any:
        if ask.streamed:
            return list(self.pieces(route, ask, at_once=True))
        if ask.body is None:
            return self.get(route.endpoint, ask.path, deadline=route.deadline)
        return self.post(route.endpoint, ask.path, ask.body, deadline=route.deadline)

    async def _aanswer(self, route: Route, ask: Ask) -> Any:
        if ask.streamed:
            return [payload async for payload in self.apieces(route, ask, at_once=True)]
        if ask.body is None:
            return await self.aget(route.endpoint, ask.path, deadline=route.deadline)
        return await self.apost(route.endpoint, ask.path, ask.body, deadline=route.deadline)

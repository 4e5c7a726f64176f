"""What backends over HTTP do alike with one request: send it, collect the answer, check it, tell what it cost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from typing import Any, ClassVar

from attrs import field, frozen

from osport.backends import _chat_checks as checks
from osport.backends._chat_wire import ChatAnswer
from osport.backends._http_client import Endpoint, HttpClient
from osport.core.deadline import Deadline
from osport.core.types import Determinism
from osport.errors import ModelNotFound
from osport.plugin import Backend, Completion, Delta, Enforcement, Request

__all__ = ["Call", "HttpChatBackend"]


@frozen
class Call:
    """One request on its way. ``first`` holds the moments at which text came in."""

    request: Request
    path: str
    body: Mapping[str, Any]
    effective: Mapping[str, Any]
    answer: ChatAnswer
    started: float = field(factory=time.perf_counter)
    first: list[float] = field(factory=list)


class HttpChatBackend(Backend):
    """A subclass writes the request (``_asked``), reads an answer (``_take``) and names the kind of its streams."""

    name: ClassVar[str]
    reports_usage: bool = True
    determinism: Determinism = "best_effort"
    _http: HttpClient
    _endpoint: Endpoint
    _timeout: float

    def generate(self, request: Request) -> Completion:
        """Answer one request."""
        with self._endpoint.key_hidden(), self._deadline(request).applied() as deadline:
            call = self._asked(request, stream=False)
            with self._explained(deadline):
                payload = self._http.post(self._endpoint, call.path, call.body, deadline=deadline)
            self._take(call.answer, payload)
            return self._completion(call, self._prompt_size(call))

    async def agenerate(self, request: Request) -> Completion:
        """:meth:`generate`, waiting without a thread."""
        with self._endpoint.key_hidden(), self._deadline(request).applied() as deadline:
            call = await asyncio.to_thread(self._asked, request, stream=False)
            async with self._aexplained(deadline):
                payload = await self._http.apost(self._endpoint, call.path, call.body, deadline=deadline)
            self._take(call.answer, payload)
            return self._completion(call, await asyncio.to_thread(self._prompt_size, call))

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer piece by piece; closing the iterator closes the connection, which ends the answer."""
        deadline = self._deadline(request)
        with self._endpoint.key_hidden():
            with deadline.applied():
                call = self._asked(request, stream=True)
            with self._explained(deadline), contextlib.closing(self._pieces(call, deadline)) as pieces:
                for payload in pieces:
                    if text := self._take(call.answer, payload):
                        call.first.append(time.perf_counter())
                        yield Delta(text)
            with deadline.applied():
                completion = self._completion(call, self._prompt_size(call))
            yield Delta("", completion)

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """:meth:`stream`, waiting without a thread."""
        deadline = self._deadline(request)
        with self._endpoint.key_hidden():
            with deadline.applied():
                call = await asyncio.to_thread(self._asked, request, stream=True)
            async with self._aexplained(deadline), contextlib.aclosing(self._apieces(call, deadline)) as pieces:
                async for payload in pieces:
                    if text := self._take(call.answer, payload):
                        call.first.append(time.perf_counter())
                        yield Delta(text)
            with deadline.applied():
                completion = self._completion(call, await asyncio.to_thread(self._prompt_size, call))
            yield Delta("", completion)

    def load(self) -> None:
        """Ask whether the server is there and has the model."""
        self.facts()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _asked(self, request: Request, *, stream: bool) -> Call:
        raise NotImplementedError

    def _take(self, answer: ChatAnswer, payload: Any) -> str:
        """Read one JSON object; returns the new text in it."""
        return answer.take(payload)

    def _pieces(self, call: Call, deadline: Deadline) -> Generator[Any]:
        return self._http.events(self._endpoint, call.path, call.body, deadline=deadline)

    def _apieces(self, call: Call, deadline: Deadline) -> AsyncGenerator[Any]:
        return self._http.aevents(self._endpoint, call.path, call.body, deadline=deadline)

    def _deadline(self, request: Request) -> Deadline:
        return Deadline.after(request.timeout or self._timeout)

    def _explain(self, error: ModelNotFound) -> None:
        """Say more about it, where the server tells what it has."""

    @contextlib.contextmanager
    def _explained(self, deadline: Deadline) -> Iterator[None]:
        try:
            yield
        except ModelNotFound as error:
            with deadline.applied():
                self._explain(error)
            raise

    @contextlib.asynccontextmanager
    async def _aexplained(self, deadline: Deadline) -> AsyncIterator[None]:
        try:
            yield
        except ModelNotFound as error:
            with deadline.applied():
                await asyncio.to_thread(self._explain, error)
            raise

    def _prompt_size(self, call: Call) -> int | None:
        """Tokens that the prompt has, or at least has, where that can be found out and is worth a request."""
        return None

    def _same_models(self) -> tuple[str, ...]:
        """Other names under which the server may answer for this model."""
        return ()

    def _enforced_by(self) -> str:
        """The engine that a constrained answer names."""
        raise NotImplementedError

    def _completion(self, call: Call, expected: int | None) -> Completion:
        ended = time.perf_counter()
        request, answer = call.request, call.answer
        checks.whole(answer, self.name, self.model, usage=self.reports_usage)
        checks.same_model(answer, self.name, self.model, aliases=self._same_models())
        checks.whole_prompt(answer, request, self.name, self.model, expected)
        checks.logprobs_there(request, answer.text, answer.logprobs, self.name, self.model)
        checks.thinking_heeded(answer, request, self.name)
        assert answer.finish is not None  # noqa: S101 - an answer without an end is not whole
        with_logprobs = request.logprobs is not None
        completion = Completion(
            text=answer.text,
            finish_reason=answer.finish,
            model=answer.model or self.model,
            backend=self.name,
            usage=answer.usage,
            reasoning=answer.reasoning,
            enforcement=Enforcement("server", self._enforced_by()) if request.constraint else Enforcement(),
            effective=call.effective,
            latency=ended - call.started,
            ttft=call.first[0] - call.started if call.first else None,
            request_id=answer.request_id,
            logprobs=tuple(answer.logprobs) if with_logprobs else None,
            logprobs_from="model" if with_logprobs else None,
            determinism=self.determinism,
        )
        return checks.with_calls(answer, request, completion)

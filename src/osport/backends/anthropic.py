"""Claude, through Anthropic's own SDK: the incumbent that a port is compared with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

from osport.backends._answer_checks import check_model, check_prompt_tokens
from osport.backends._anthropic_errors import MessagesErrors
from osport.backends._anthropic_transport import watched_async_transport, watched_transport
from osport.backends._chat_checks import fewest_tokens
from osport.backends._http_client import ONE_STREAM
from osport.backends._options import check_seconds, refuse_unknown
from osport.backends._servers import endpoint_of, server_url, split_reference
from osport.core.deadline import Deadline
from osport.core.types import FinishReason
from osport.errors import (
    AuthFailed,
    BadResponse,
    MissingDependency,
    UnsupportedFeature,
    UsageError,
)
from osport.plugin import Backend, Capabilities, Completion, Delta, Message, ModelFacts, Request, Usage

__all__ = ["AnthropicBackend"]

NAME = "anthropic"
KEY_VARIABLE = "ANTHROPIC_API_KEY"
URL_VARIABLE = "ANTHROPIC_BASE_URL"
VENDOR = "https://api.anthropic.com"

FINISH: dict[str | None, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}


class AnthropicBackend(Backend):
    """The Anthropic Messages API.

    ``model``: a Claude model id, with ``@https://host`` behind it (or the option ``base_url``) for
    another server that speaks this API. ``api_key``: a callable that returns the key; without one the key
    in ``ANTHROPIC_API_KEY`` goes to Anthropic and to the server in ``ANTHROPIC_BASE_URL``, and nowhere else.
    ``timeout`` of one call (600 s).

    The API takes no temperature, no seed and none of the other sampling parameters, so no answer can be
    asked for twice; osport refuses them instead of leaving them out. Nothing is retried here.

    Raises :class:`~osport.errors.AuthFailed` without a key, :class:`~osport.errors.MissingDependency`.
    """

    features: ClassVar[frozenset[str]] = frozenset({"chat", "prefill", "stream", "count_tokens", "max_tokens", "stop"})

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: Callable[[], str] | None = None,
        timeout: float = 600.0,
        **unknown: object,
    ) -> None:
        name, inside = split_reference(model)
        if inside and base_url:
            raise UsageError(f"{NAME}: the server stands in the reference and in base_url; give one")
        if not name:
            raise UsageError(f"{NAME}: name a model, e.g. anthropic:claude-haiku-4-5")
        super().__init__(name)
        refuse_unknown(NAME, unknown, ("base_url", "api_key", "timeout"))
        self._timeout = check_seconds(NAME, "timeout", timeout)
        try:
            import anthropic
        except ImportError as error:
            raise MissingDependency("anthropic", "anthropic") from error
        self._sdk = anthropic
        named = os.environ.get(URL_VARIABLE) or None
        url = inside or base_url or named or VENDOR
        self._endpoint = endpoint_of(
            NAME,
            server_url(NAME, url, said_by=URL_VARIABLE if url is named else ""),
            api_key=api_key,
            key_variable=KEY_VARIABLE,
            url_variable=URL_VARIABLE,
            named=named,
            vendor=VENDOR,
        )
        if not self._endpoint.api_key:
            how = self._endpoint.withheld or f"set {KEY_VARIABLE} or give api_key, a callable that returns it"
            raise AuthFailed(f"{NAME}: no API key; {how}", backend=NAME)
        self._errors = MessagesErrors(NAME, self.model, self._endpoint)
        # The SDK would follow a redirect to another host, and take the key along.
        direct = anthropic.DefaultHttpxClient(follow_redirects=False, transport=watched_transport(NAME))
        self._client = anthropic.Anthropic(**self._settings(), http_client=direct)
        self._closed = False

    def capabilities(self) -> Capabilities:
        """Chat; of the sampling parameters only ``max_tokens`` and ``stop`` exist.

        A prefill is taken by Anthropic's own service alone: llama.cpp's route repeats it in the answer, and vLLM's
        begins a new turn behind it.
        """
        return Capabilities(
            chat=True,
            prefill=self._endpoint.url == VENDOR,
            stream=True,
            count_tokens=True,
            sampling=frozenset({"max_tokens", "stop"}),
        )

    def facts(self) -> ModelFacts:
        """The name and where it is served; the API says nothing about the weights."""
        return ModelFacts.of(
            str(self._client.base_url),
            name=self.model,
            engine=f"Anthropic Messages API, SDK {version('anthropic')}",
        )

    def generate(self, request: Request) -> Completion:
        """Answer one request."""
        body = self._body(request)
        started = time.perf_counter()
        with self._errors.translated(seconds := self._seconds(request)):
            message = self._client.messages.create(**body, timeout=seconds)
            return self._completion(request, message, body, time.perf_counter() - started)

    async def agenerate(self, request: Request) -> Completion:
        """Answer one request on the event loop; cancelling closes the connection."""
        body = self._body(request)
        started = time.perf_counter()
        with self._errors.translated(seconds := self._seconds(request)):
            async with asyncio.timeout(Deadline.after(seconds).left), self._async_client() as client:
                message = await client.messages.create(**body, timeout=seconds)
            return self._completion(request, message, body, time.perf_counter() - started)

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer piece by piece; closing the iterator closes the connection."""
        body = self._body(request)
        started = time.perf_counter()
        first: float | None = None
        with (
            self._errors.translated(seconds := self._seconds(request)),
            # A stream that is left half way must not leave its connection to the next call.
            self._client.messages.stream(**body, timeout=seconds, extra_headers=ONE_STREAM) as events,
        ):
            for text in events.text_stream:
                if text:
                    first = first or time.perf_counter() - started
                    yield Delta(text)
            message = events.get_final_message()
            completion = self._completion(request, message, body, time.perf_counter() - started, first)
        yield Delta("", completion)

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """:meth:`stream` on the event loop; leaving it, or cancelling, closes the connection."""
        body = self._body(request)
        started = time.perf_counter()
        first: float | None = None
        deadline = Deadline.after(seconds := self._seconds(request))
        with self._errors.translated(seconds):
            async with contextlib.AsyncExitStack() as connection:
                async with asyncio.timeout(deadline.left):
                    client = await connection.enter_async_context(self._async_client())
                    events = await connection.enter_async_context(client.messages.stream(**body, timeout=seconds))
                texts = aiter(events.text_stream)
                while True:
                    # Around each wait, never around a yield: it would cancel what the consumer does meanwhile.
                    async with asyncio.timeout(deadline.left):
                        text = await anext(texts, None)
                    if text is None:
                        break
                    if text:
                        first = first or time.perf_counter() - started
                        yield Delta(text)
                message = await events.get_final_message()
            completion = self._completion(request, message, body, time.perf_counter() - started, first)
        yield Delta("", completion)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens as the API counts them: one call, free of charge."""
        body = self._conversation(messages)
        with self._errors.translated(self._timeout):
            return int(self._client.messages.count_tokens(**body, timeout=self._timeout).input_tokens)

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        self._client.close()

    def _seconds(self, request: Request) -> float:
        return request.timeout or self._timeout

    def _settings(self) -> dict[str, Any]:
        """The SDK's, made anew each time: a key that is kept is a key that is printed."""
        return {
            "api_key": self._endpoint.api_key,
            "base_url": self._endpoint.url,
            "max_retries": 0,
            "timeout": self._timeout,
        }

    def _async_client(self) -> Any:
        """The SDK's client for one call: a connection that is kept would belong to the event loop that opened it."""
        sdk = self._sdk
        direct = sdk.DefaultAsyncHttpxClient(follow_redirects=False, transport=watched_async_transport(NAME))
        return sdk.AsyncAnthropic(**self._settings(), http_client=direct)

    def _body(self, request: Request) -> dict[str, Any]:
        if request.constraint is not None:
            raise UnsupportedFeature(f"constrained output of kind {request.constraint.kind}", NAME)
        sampling = request.sampling.filled()
        stops = {"stop_sequences": list(sampling.stop)} if sampling.stop else {}
        return {**self._conversation(request.messages), "max_tokens": sampling.max_tokens, **stops}

    def _conversation(self, messages: Sequence[Message]) -> dict[str, Any]:
        """Leading system messages go into a field of their own; the API has no others."""
        if self._closed:
            raise UsageError("this anthropic model is closed; make a new Model")
        turns = list(messages)
        system: list[str] = []
        while turns and turns[0].role == "system":
            system.append(turns.pop(0).content)
        other = next((turn.role for turn in turns if turn.role not in ("user", "assistant")), None)
        if other is not None or not turns:
            raise UnsupportedFeature(f"a {other} message in this place" if other else "a request without a turn", NAME)
        instructions = {"system": [{"type": "text", "text": text} for text in system]} if system else {}
        return {
            "model": self.model,
            **instructions,
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
        }

    def _completion(
        self, request: Request, message: Any, body: dict[str, Any], latency: float, ttft: float | None = None
    ) -> Completion:
        if getattr(message, "type", None) == "error":
            raise self._errors.after_200(message)
        check_model(self.model, _undated(message.model, self.model), backend=NAME)
        if message.stop_reason is None:
            raise BadResponse(f"{NAME}: the answer ended without a stop reason", backend=NAME, model=self.model)
        if message.usage is None:
            what = "the answer came without usage, so nobody can see whether the prompt was cut"
            raise BadResponse(f"{NAME}: {what}", backend=NAME, model=self.model)
        try:
            usage = message.usage
            read = usage.cache_read_input_tokens or 0
            prompt = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + read
            check_prompt_tokens(fewest_tokens(request), prompt, backend=NAME, model=self.model)
            reasoning = "".join(block.thinking for block in message.content if block.type == "thinking")
            return Completion(
                text="".join(block.text for block in message.content if block.type == "text"),
                finish_reason=FINISH.get(message.stop_reason, "unknown"),
                model=message.model,
                backend=NAME,
                usage=Usage(prompt_tokens=prompt, completion_tokens=usage.output_tokens, cached_tokens=read),
                reasoning=reasoning or None,
                effective={
                    "model": self.model,
                    "max_tokens": body["max_tokens"],
                    "stop": body.get("stop_sequences", []),
                },
                latency=latency,
                ttft=ttft,
                request_id=getattr(message, "_request_id", None) or message.id,
            )
        except (AttributeError, TypeError) as error:
            raise BadResponse(f"{NAME}: not a message: {str(message)[:200]}", backend=NAME, model=self.model) from error


def _undated(answered: str | None, asked: str) -> str | None:
    """The name asked for, where the answer's is the same with a date behind it."""
    dated = answered is not None and re.fullmatch(re.escape(asked) + r"-\d{8}", answered)
    return asked if dated else answered

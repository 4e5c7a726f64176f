"""llama.cpp's HTTP dialect: our request as its JSON, its JSON as our completion."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from attrs import define, field

from osport.backends._embedded_server import Endpoint
from osport.backends._http_errors import error_from_answer, translated
from osport.core.types import FinishReason, Message, Request, Usage
from osport.errors import BadResponse, MissingDependency, TimedOut

__all__ = ["Answer", "LlamaHttp", "sampling_fields", "wire_messages"]

BACKEND = "llama_server"

# Samplers and habits of the engine that osport has no parameter for, each switched off or pinned,
# so that nothing depends on how a server was started. penalties look back this many tokens.
PINNED: dict[str, Any] = {
    "samplers": ["penalties", "top_k", "top_p", "min_p", "temperature"],
    "repeat_last_n": 64,
    "typical_p": 1.0,
    "top_n_sigma": -1.0,
    "dynatemp_range": 0.0,
    "xtc_probability": 0.0,
    "dry_multiplier": 0.0,
    "mirostat": 0,
    "min_keep": 0,
    "n_keep": 0,
    "n_probs": 0,
    "logit_bias": [],
    "ignore_eos": False,
    "reasoning_format": "deepseek",
}

FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


def sampling_fields(request: Request, *, prompt_cache: bool) -> dict[str, Any]:
    """Every sampling parameter by the server's own name, none left to its default."""
    sampling = request.sampling.filled()
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop or ()),
        **PINNED,
        "cache_prompt": prompt_cache,
    }


def wire_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as the chat routes take them."""
    return [{"role": message.role, "content": message.content} for message in messages]


@define
class Answer:
    """An answer as it comes in, whole or in pieces."""

    texts: list[str] = field(factory=list)
    reasonings: list[str] = field(factory=list)
    finish: FinishReason | None = None
    usage: Usage = field(factory=Usage)
    model: str = ""
    request_id: str | None = None

    def take(self, payload: Any) -> str:
        """Read one JSON object of a chat or text completion; returns the new text in it."""
        try:
            self.model = payload.get("model") or self.model
            self.request_id = payload.get("id") or self.request_id
            if payload.get("usage"):
                self.usage = _usage(payload["usage"])
            if not payload["choices"]:
                return ""
            choice = payload["choices"][0]
            if choice.get("finish_reason"):
                self.finish = FINISH.get(choice["finish_reason"], "unknown")
            part = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
            text = "" + (part.get("content") or "")
            self.texts.append(text)
            self.reasonings.append("" + (part.get("reasoning_content") or ""))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise BadResponse(f"{BACKEND}: not an answer ({error!r}): {str(payload)[:200]}", backend=BACKEND) from error
        return text

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.texts)

    @property
    def reasoning(self) -> str | None:
        """The thinking that the server told apart from the answer."""
        return "".join(self.reasonings) or None


def _usage(usage: Mapping[str, Any]) -> Usage:
    return Usage(
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
    )


class LlamaHttp:
    """One httpx client; thread-safe. ``model`` is how errors call the model."""

    def __init__(self, model: str, *, through_proxy: bool) -> None:
        try:
            import httpx
            import httpx_sse  # noqa: F401 - asked for now, so that its absence shows before the first stream
        except ImportError as error:
            raise MissingDependency(error.name or "httpx", "llama-server") from error
        self.model = model
        self._client = httpx.Client(
            trust_env=through_proxy,
            follow_redirects=False,
            # The server closes a connection that was idle for five seconds, perhaps at the very moment of the
            # next request; one that is given up earlier cannot break that way.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=1.0),
        )

    def get(self, endpoint: Endpoint, path: str, *, timeout: float) -> Any:
        """The JSON answer to a GET."""
        return self._call("GET", endpoint, path, None, timeout)

    def post(self, endpoint: Endpoint, path: str, body: Mapping[str, Any], *, timeout: float) -> Any:
        """The JSON answer to a POST."""
        return self._call("POST", endpoint, path, body, timeout)

    def events(self, endpoint: Endpoint, path: str, body: Mapping[str, Any], *, timeout: float) -> Iterator[Any]:
        """The JSON objects of a server-sent event stream; closing the iterator closes the connection."""
        from httpx_sse import EventSource, SSEError

        # llama.cpp closes the connection behind a stream without saying so; the next request would find it dead.
        headers = {**_headers(endpoint), "Connection": "close"}
        with (
            translated(backend=BACKEND, model=self.model, timeout=timeout),
            self._client.stream(
                "POST", endpoint.url + path, json=body, headers=headers, timeout=_timeouts(timeout)
            ) as response,
        ):
            response.stream = _until(response.stream, timeout)
            if not response.is_success:
                response.read()
                raise self._error(response.status_code, response.text, response.headers)
            try:
                for event in EventSource(response).iter_sse():
                    if event.data == "[DONE]":
                        return
                    payload = self._json(event.data)
                    if isinstance(payload, dict) and "error" in payload:
                        code = payload["error"].get("code") if isinstance(payload["error"], dict) else None
                        raise self._error(code if isinstance(code, int) else 500, event.data, response.headers)
                    yield payload
            except SSEError as error:
                raise BadResponse(f"{BACKEND}: {error}", backend=BACKEND, model=self.model) from error

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(self, method: str, endpoint: Endpoint, path: str, body: Mapping[str, Any] | None, timeout: float) -> Any:
        with (
            translated(backend=BACKEND, model=self.model, timeout=timeout),
            self._client.stream(
                method, endpoint.url + path, json=body, headers=_headers(endpoint), timeout=_timeouts(timeout)
            ) as response,
        ):
            response.stream = _until(response.stream, timeout)
            response.read()
        if not response.is_success:
            raise self._error(response.status_code, response.text, response.headers)
        return self._json(response.text)

    def _error(self, status: int, body: str, headers: Mapping[str, str]) -> Exception:
        return error_from_answer(status, body, headers, backend=BACKEND, model=self.model)

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise BadResponse(f"{BACKEND}: not JSON: {text[:200]!r}", backend=BACKEND, model=self.model) from error


def _headers(endpoint: Endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}


def _timeouts(timeout: float) -> Any:
    import httpx

    return httpx.Timeout(timeout, connect=min(timeout, 10.0))


def _until(stream: Any, timeout: float) -> Any:
    """The same bytes, but the whole answer must be there in time: httpx's own limit holds for one read only."""
    import httpx

    deadline = time.monotonic() + timeout

    class Watched(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for chunk in stream:
                yield chunk
                if time.monotonic() > deadline:
                    raise TimedOut(f"{BACKEND}: no complete answer within {timeout:g} s (timeout)", backend=BACKEND)

        def close(self) -> None:
            stream.close()

    return Watched()

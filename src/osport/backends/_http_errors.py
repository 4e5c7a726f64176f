"""From what an HTTP server or httpx reports to the error tree."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from osport.errors import (
    AuthFailed,
    BackendError,
    BadRequest,
    BadResponse,
    ContextOverflow,
    ModelNotFound,
    RateLimited,
    ServerFault,
    TimedOut,
    Unreachable,
)

__all__ = ["error_from_answer", "translated"]

EXCERPT = 400

# llama.cpp and OpenAI have a name for a prompt that is too long; Claude, vLLM and Ollama have only a sentence.
OVERFLOW_KINDS = ("exceed_context_size_error", "context_length_exceeded")
OVERFLOW_WORDS = re.compile(
    r"prompt is too long|maximum context length|longer than the maximum model length"
    r"|exceeds? the (?:available |model's )?(?:context|maximum context)|exceeds the context length",
    re.IGNORECASE,
)


def error_from_answer(status: int, body: str, headers: Mapping[str, str], *, backend: str, model: str) -> BackendError:
    """The error for an answer that is not a success; ``status`` may also come from an error event after a 200."""
    message, kind = _message(body)
    names: dict[str, Any] = {
        "backend": backend,
        "model": model,
        "status": status,
        "request_id": headers.get("x-request-id"),
    }
    text = f"{backend}: HTTP {status}: {message}"
    if kind in OVERFLOW_KINDS or (status in (400, 413, 422, 500) and OVERFLOW_WORDS.search(message)):
        return ContextOverflow(f"{text}. osport never trims a prompt: shorten it or give a larger context", **names)
    if status in (401, 403):
        return AuthFailed(f"{text}. Check the API key", **names)
    if status == 404:
        return ModelNotFound(text, **names)
    if status == 429:
        return RateLimited(text, retry_after=_seconds(headers.get("retry-after")), **names)
    if status >= 500:
        return ServerFault(text, retry_after=_seconds(headers.get("retry-after")), **names)
    if 300 <= status < 400:
        return BadResponse(f"{text}. A redirect is not followed: give the final URL", **names)
    return BadRequest(text, **names)


@contextlib.contextmanager
def translated(*, backend: str, model: str, timeout: float) -> Iterator[None]:
    """Turn what httpx raises into errors of the tree."""
    import httpx

    names: dict[str, Any] = {"backend": backend, "model": model}
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise Unreachable(f"{backend}: no connection to {model} in time", **names) from error
    except httpx.TimeoutException as error:
        raise TimedOut(f"{backend}: no answer within {timeout:g} s (timeout)", **names) from error
    except httpx.ConnectError as error:
        raise Unreachable(f"{backend}: cannot connect to {model}: {error}; is the server running?", **names) from error
    except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
        raise ServerFault(f"{backend}: the connection broke during the answer: {error}", **names) from error
    except httpx.DecodingError as error:
        raise BadResponse(f"{backend}: the answer cannot be decoded: {error}", **names) from error
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.ProxyError) as error:
        raise Unreachable(f"{backend}: cannot connect to {model}: {error}", **names) from error


def _message(body: str) -> tuple[str, str]:
    """Text and kind of an error body, whatever its shape; OpenAI's kind is its ``code``, a word."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body.strip()[:EXCERPT] or "(empty answer)", ""
    if isinstance(error, Mapping):
        code = error.get("code")
        kind = code if isinstance(code, str) else error.get("type", "")
        return str(error.get("message", error))[:EXCERPT], str(kind)
    return str(error)[:EXCERPT], ""


def _seconds(value: str | None) -> float | None:
    # Retry-After may also be a date; then nothing is promised.
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None

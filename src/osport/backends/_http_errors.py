"""From what an HTTP server or httpx reports to the error tree."""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
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
    UsageError,
)

__all__ = ["error_from_answer", "status_of_error", "translated"]

EXCERPT = 400

# Request Timeout and Too Early: the same request is welcome later.
PASSING = (408, 425)

# llama.cpp and OpenAI have a name for a prompt that is too long; Claude, vLLM and Ollama have only a sentence.
OVERFLOW_KINDS = ("exceed_context_size_error", "context_length_exceeded")
OVERFLOW_WORDS = re.compile(
    r"prompt is too long|maximum context length|longer than the maximum model length"
    r"|exceeds? the (?:available |model's )?(?:context|maximum context)|exceeds the context length",
    re.IGNORECASE,
)


# What the status would have been of an error that came behind a 200, by the words of Anthropic and of OpenAI.
STATUS_OF_KIND = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded_error": 529,
}


def status_of_error(error: Any) -> int:
    """The HTTP status for an ``error`` object inside an answer; 500 where neither its code nor its type says more."""
    if isinstance(error, Mapping):
        for said in (error.get("code"), error.get("type")):
            if isinstance(said, str) and said in STATUS_OF_KIND:
                return STATUS_OF_KIND[said]
            if isinstance(said, int) and 400 <= said < 600:
                return said
    return 500


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
    if status >= 500 or status in PASSING:
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
    except (httpx.TimeoutException, TimeoutError) as error:
        raise TimedOut(f"{backend}: no complete answer within {timeout:g} s (timeout)", **names) from error
    except httpx.ConnectError as error:
        raise Unreachable(f"{backend}: cannot connect to {model}: {error}; is the server running?", **names) from error
    except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
        raise ServerFault(f"{backend}: the connection broke during the answer: {error}", **names) from error
    except UnicodeEncodeError as error:
        what = "the request holds half of a surrogate pair, which is no text; decode the input with errors='replace'"
        raise UsageError(f"{backend}: {what}") from error
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
    """From ``Retry-After``: a number, or a date; None for what is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None

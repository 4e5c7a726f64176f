"""What goes wrong at the Messages API, as errors of osport's tree."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from osport.backends._http_client import Endpoint
from osport.backends._http_errors import error_from_answer, status_of_error
from osport.errors import BackendError, BadResponse, ServerFault, TimedOut, Unreachable

__all__ = ["MessagesErrors"]


@frozen
class MessagesErrors:
    """For one model: ``backend`` and ``model`` name themselves in errors; the key never stands in one."""

    backend: str
    model: str
    endpoint: Endpoint

    @contextlib.contextmanager
    def translated(self, seconds: float) -> Iterator[None]:
        """The SDK's errors as errors of the tree; ``seconds`` was the limit of the call."""
        with self.endpoint.key_hidden(), self._of_the_tree(seconds):
            yield

    def after_200(self, message: Any) -> BackendError:
        """An error that came in the place of a message."""
        error = message.model_dump().get("error") or {}
        text = json.dumps({"error": error})
        return error_from_answer(status_of_error(error), text, {}, backend=self.backend, model=self.model)

    @contextlib.contextmanager
    def _of_the_tree(self, seconds: float) -> Iterator[None]:
        import anthropic as sdk
        import httpx2

        names: dict[str, Any] = {"backend": self.backend, "model": self.model}
        late = TimedOut(f"{self.backend}: no complete answer within {seconds:g} s (timeout)", **names)
        try:
            yield
        except (sdk.APITimeoutError, httpx2.TimeoutException, TimeoutError) as error:
            raise late from error
        except sdk.APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, TimeoutError):
                raise late from error
            if isinstance(cause, BackendError):
                raise cause from error
            if isinstance(cause, httpx2.RemoteProtocolError | httpx2.ReadError):
                what = f"the connection broke during the answer: {cause}"
                raise ServerFault(f"{self.backend}: {what}", **names) from error
            raise Unreachable(f"{self.backend}: cannot reach {self.endpoint.url}: {cause}", **names) from error
        except sdk.APIStatusError as error:
            raise self._of_status(error) from error
        except sdk.APIResponseValidationError as error:
            raise BadResponse(f"{self.backend}: {error}", **names) from error
        except json.JSONDecodeError as error:
            raise BadResponse(f"{self.backend}: not JSON: {error}", **names) from error
        except (AssertionError, AttributeError, TypeError, IndexError) as error:
            # The SDK believes what it reads, and stumbles over what lacks something or is something else.
            raise BadResponse(f"{self.backend}: not a message, or not a whole one: {error}", **names) from error
        except httpx2.HTTPError as error:
            raise ServerFault(f"{self.backend}: the connection broke during the answer: {error}", **names) from error
        except sdk.AnthropicError as error:
            raise BackendError(f"{self.backend}: {error}", **names) from error

    def _of_status(self, error: Any) -> BackendError:
        status = error.status_code if error.status_code != 200 else status_of_error({"type": error.type})
        headers = {**error.response.headers, "x-request-id": error.request_id}
        body = json.dumps(error.body) if isinstance(error.body, dict) else str(error.body or error.message)
        return error_from_answer(status, body, headers, backend=self.backend, model=self.model)

"""One call of a backend: its clock, its retries, its checks, and the names in its errors."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

from attrs import evolve

from osport.core.deadline import Deadline
from osport.core.retries import Retries
from osport.core.types import Completion, Delta, Request
from osport.errors import BackendError, ContractViolation, OsportError, UnsupportedFeature
from osport.plugin.hookspecs import CallRecord, ModelRef
from osport.plugin.registry import registry

__all__ = ["Call", "errors_named", "observed"]


class Call:
    """What is measured and decided while one request is being answered; ``took``: seconds that went before."""

    def __init__(self, ref: ModelRef, request: Request, retries: Retries, *, took: float = 0.0) -> None:
        self.ref = ref
        self._request = request
        self.completion: Completion | None = None
        self._retries = retries
        self._attempt = 1
        self._deadline = None if request.timeout is None else Deadline.after(max(0.0, request.timeout - took))
        self._began = self._started = time.perf_counter() - took
        self._first_piece: float | None = None

    @property
    def request(self) -> Request:
        """What to send now: a later attempt has the time that the earlier ones left."""
        if self._attempt == 1 or self._deadline is None:
            return self._request
        return evolve(self._request, timeout=self._deadline.timeout)

    def pause(self, error: BackendError) -> float:
        """Seconds to wait before the backend is asked again; raises the error when it is not to be."""
        left = math.inf if self._deadline is None else self._deadline.left
        pause = None if self._first_piece is not None else self._retries.pause(self._attempt, error, left)
        if pause is None:
            raise error
        self._attempt += 1
        self._started = time.perf_counter() + pause
        return pause

    def checked(self, completion: object) -> Completion:
        """What the backend returned, if that is a completion, with what it left out."""
        if not isinstance(completion, Completion):
            raise ContractViolation(f"backend {self.ref.backend!r} returned {completion!r}, not a Completion")
        return evolve(
            completion,
            backend=completion.backend or self.ref.backend,
            model=completion.model or self.ref.model,
            # A backend that replays recorded answers knows better than the clock here.
            latency=completion.latency or time.perf_counter() - self._started,
            ttft=completion.ttft if completion.ttft is not None else self._first_piece,
        )

    def streamed(self, delta: object) -> Delta:
        """What the backend streamed, if that is a delta; the last one with its completion checked."""
        if not isinstance(delta, Delta):
            raise ContractViolation(f"backend {self.ref.backend!r} streamed {delta!r}, not a Delta")
        if delta.completion is not None:
            return evolve(delta, completion=self.checked(delta.completion))
        if self._first_piece is None and delta.text:
            self._first_piece = time.perf_counter() - self._started
        return delta

    def ended(self) -> None:
        """Refuse a stream that brought no completion."""
        if self.completion is None:
            raise ContractViolation(f"the stream of backend {self.ref.backend!r} ended without a completion")

    @property
    def seconds(self) -> float:
        """Since the call began, failed attempts included."""
        return time.perf_counter() - self._began


@contextlib.contextmanager
def observed(ref: ModelRef, request: Request, retries: Retries, *, took: float = 0.0) -> Iterator[Call]:
    """One call, told to the plugins that observe calls when it has ended, however it did."""
    call = Call(ref, request, retries, took=took)
    error: OsportError | None = None
    left = False
    try:
        yield call
    except OsportError as raised:
        error = raised
        raise
    except BaseException:
        left = True
        raise
    finally:
        plugins = registry()
        if plugins.observed and (left or call.completion is not None or error is not None):
            plugins.call_finished(CallRecord(ref, request, call.completion, error, call.seconds))


@contextlib.contextmanager
def errors_named(ref: ModelRef) -> Iterator[None]:
    """Name backend and model in what is raised, and let nothing leave that is not of the tree."""
    try:
        yield
    except UnsupportedFeature as error:
        error.backend = ref.backend
        error.alternatives = error.alternatives or tuple(registry().offering(error.feature, besides=ref.backend))
        raise
    except BackendError as error:
        error.backend = error.backend or ref.backend
        error.model = error.model or ref.model
        raise
    except OsportError:
        raise
    except Exception as error:
        raise ContractViolation(
            f"backend {ref.backend!r} raised {type(error).__name__}: {error}; "
            "a backend raises errors of osport.errors only"
        ) from error

"""The base class of every engine's adapter, and what a package says about the backends it offers."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence, Set
from types import TracebackType
from typing import ClassVar, Self

from attrs import frozen

from osport.core.capabilities import Capabilities
from osport.core.facts import ModelFacts
from osport.core.types import Completion, ContinuationScore, Delta, Message, Request
from osport.errors import OsportError, UnsupportedFeature, UsageError

__all__ = ["Backend", "BackendSpec"]


class Backend:
    """One engine with one model. ``generate`` is the only obligatory method.

    ``model`` is the part of the reference behind the first colon; the rest are the backend's own
    options, and an option that it does not know is a :class:`~osport.errors.UsageError`.
    The constructor checks what is cheap to check and loads nothing: gates come first. The engine is
    loaded at the first call that needs it.
    A request that reaches ``generate`` through ``Model`` holds only what ``capabilities`` promises,
    with every sampling parameter set. Errors are those of the error tree.
    """

    features: ClassVar[frozenset[str]] = frozenset()
    """What this backend can do for at least one model, so that errors can name alternatives: of
    ``chat``, ``raw_prompt``, ``prefill``, ``tools``, ``thinking``, ``images``, ``stream``, ``count_tokens``,
    ``logprobs``, ``score``, the constraint kinds (``json_schema``, ``choice``, ``regex``, ``grammar``) and the
    sampling parameters."""

    def __init__(self, model: str, **options: object) -> None:
        self.model = model

    def generate(self, request: Request) -> Completion:
        """Answer one request."""
        raise NotImplementedError(f"{type(self).__name__} must implement generate()")

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer piece by piece; the last delta carries the whole completion."""
        raise UnsupportedFeature("streaming", type(self).__name__)

    async def agenerate(self, request: Request) -> Completion:
        """Like :meth:`generate`; here on a worker thread."""
        return await asyncio.to_thread(self.generate, request)

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """Like :meth:`stream`; here on a worker thread that stops when the consumer does."""
        async for delta in iterate_in_thread(lambda: self.stream(request)):
            yield delta

    def load(self) -> None:
        """Load the engine now, if it is not loaded; otherwise the first call that needs it does."""

    def capabilities(self) -> Capabilities:
        """What this backend does exactly; everything else is refused before it gets here."""
        return Capabilities()

    def facts(self) -> ModelFacts:
        """What the engine, or the model's file, says about the model. Must not load the model."""
        return ModelFacts()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of these messages after the chat template."""
        raise UnsupportedFeature("counting tokens", type(self).__name__)

    def score(self, request: Request, continuations: Sequence[str]) -> tuple[ContinuationScore, ...]:
        """The log-probability of each continuation after the prompt of ``request``, every token of it counted.

        They are those of the model itself: no temperature, no filter, no constraint. ``Model`` hands on no request
        with ``tools``, a ``constraint`` or ``logprobs``.
        """
        raise UnsupportedFeature("score", type(self).__name__)

    def batch(self, requests: Sequence[Request]) -> list[Completion | OsportError]:
        """Answer all requests in the engine's own batch; one completion or one error for each, in order.

        Called only where ``capabilities`` declares ``batch``.
        """
        raise UnsupportedFeature("batch", type(self).__name__)

    def close(self) -> None:
        """Release the engine. Closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@frozen
class BackendSpec:
    """A backend under a name: what ``osport.plugin.register`` and the ``osport_backends`` hook take.

    ``package``: who offers it; for an installed package its own name, whatever stands here. Raises
    :class:`~osport.errors.UsageError` for a name that no reference can hold, a factory that cannot be called, and
    features that are no names.
    """

    name: str
    factory: Callable[..., Backend]
    features: frozenset[str] = frozenset()
    package: str = ""

    def __attrs_post_init__(self) -> None:
        if not (isinstance(self.name, str) and re.fullmatch(r"[a-z][a-z0-9_]+", self.name)):
            raise UsageError(f"backend name {self.name!r}: small letters, digits and _, two or more, a letter first")
        if not callable(self.factory):
            raise UsageError(f"backend {self.name!r}: the factory {self.factory!r} cannot be called")
        if not (isinstance(self.features, Set) and all(isinstance(one, str) for one in self.features)):
            raise UsageError(f"backend {self.name!r}: features={self.features!r}: must be a frozenset of strings")


async def iterate_in_thread(start: Callable[[], Iterator[Delta]]) -> AsyncIterator[Delta]:
    """Run a blocking iterator on a thread of its own and hand its items to the event loop.

    The thread stops at the next item once the consumer is gone, and closes the iterator.
    """
    # One slot: the producer is never more than one item ahead of a consumer that may leave.
    handover: queue.Queue[tuple[Delta | None, BaseException | None]] = queue.Queue(maxsize=1)
    gone = threading.Event()

    def offer(item: Delta | None, error: BaseException | None) -> None:
        while not gone.is_set():
            with contextlib.suppress(queue.Full):
                handover.put((item, error), timeout=0.1)
                return

    def produce() -> None:
        items: Iterator[Delta] | None = None
        try:
            items = start()
            for item in items:
                offer(item, None)
                if gone.is_set():
                    return
            offer(None, None)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
            offer(None, error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=produce, name="osport-astream", daemon=True)
    thread.start()
    try:
        while True:
            item, error = await asyncio.to_thread(handover.get)
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        gone.set()
        # Cancelled while it waited, the event loop leaves a thread behind that still does.
        with contextlib.suppress(queue.Full):
            handover.put_nowait((None, None))

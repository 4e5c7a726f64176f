"""What may be asked, as a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from attrs import evolve, fields

from osport.core.types import Message, Request, Sampling
from osport.errors import UsageError

__all__ = ["AsRequest", "Prompt", "to_request"]


@runtime_checkable
class AsRequest(Protocol):
    """What knows how to become a request, such as a ``Conversation``."""

    def request(self) -> Request:
        """Itself as a request."""
        ...


Prompt = str | Message | Sequence[Message] | Request | AsRequest
"""A user's text, a message, a conversation, or a whole request."""


def to_request(prompt: Prompt, timeout: float | None = None, sampling: Mapping[str, Any] | None = None) -> Request:
    """The request, with the call's sampling laid over the request's own.

    Raises :class:`~osport.errors.UsageError` for what is neither, and for an unknown parameter by name.
    """
    if isinstance(prompt, str):
        prompt = [Message.user(prompt)]
    elif isinstance(prompt, Message):
        prompt = [prompt]
    if isinstance(prompt, AsRequest):
        prompt = prompt.request()
    if isinstance(prompt, Request):
        request = prompt
    else:
        messages = tuple(prompt)
        wrong = [item for item in messages if not isinstance(item, Message)]
        if wrong:
            raise UsageError(f"a conversation holds osport.Message objects, not {wrong[0]!r}")
        request = Request(messages)
    names = [f.name for f in fields(Sampling)]
    unknown = sorted(set(sampling or ()) - set(names))
    if unknown:
        raise UsageError(f"unknown sampling parameter {unknown[0]!r}; there are: {', '.join(names)}")
    if sampling:
        request = evolve(request, sampling=evolve(request.sampling, **sampling))
    return evolve(request, timeout=timeout) if timeout is not None else request

"""What may be asked, as a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict, runtime_checkable

from attrs import evolve, fields

from osport.core.types import Message, Request, Sampling, Thinking, Tool
from osport.errors import UsageError

__all__ = ["AsRequest", "CallOptions", "Prompt", "to_request"]


@runtime_checkable
class AsRequest(Protocol):
    """What knows how to become a request, such as a ``Conversation``."""

    def request(self) -> Request:
        """Itself as a request."""
        ...


Prompt = str | Message | Sequence[Message] | Request | AsRequest
"""A user's text, a message, a conversation, or a whole request."""


class CallOptions(TypedDict, total=False):
    """What a call may say beside its prompt: the fields of :class:`~osport.Sampling`, and of
    :class:`~osport.Request` those that are no part of the conversation. They win over a request's own."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    stop: Sequence[str]
    timeout: float | None
    tools: Sequence[Tool]
    tool_choice: str
    parallel_tools: bool
    thinking: Thinking
    logprobs: int | None


SAMPLING = tuple(f.name for f in fields(Sampling))
BESIDE_SAMPLING = ("timeout", "tools", "tool_choice", "parallel_tools", "thinking", "logprobs")


def to_request(prompt: Prompt, options: CallOptions | None = None) -> Request:
    """The request, with the call's options laid over the request's own.

    Raises :class:`~osport.errors.UsageError` for what is neither, and for an unknown option by name.
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
    given: Mapping[str, Any] = options or {}
    unknown = sorted(set(given) - {*SAMPLING, *BESIDE_SAMPLING})
    if unknown:
        raise UsageError(f"unknown parameter {unknown[0]!r}; there are: {', '.join((*SAMPLING, *BESIDE_SAMPLING))}")
    if sampling := {name: given[name] for name in SAMPLING if name in given}:
        request = evolve(request, sampling=evolve(request.sampling, **sampling))
    beside = {name: given[name] for name in BESIDE_SAMPLING if given.get(name) is not None}
    return evolve(request, **beside) if beside else request

"""Requests that the engine tests share."""

from __future__ import annotations

from osport.plugin import Constraint, Message, Request, Sampling

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["pos", "neg"]}, "note": {"type": "string", "maxLength": 4}},
    "required": ["label", "note"],
    "additionalProperties": False,
}


def ask(
    text: str = "Say hi",
    *,
    constraint: Constraint | None = None,
    timeout: float | None = None,
    logprobs: int | None = None,
    **sampling: object,
) -> Request:
    """One question; eight tokens of answer unless ``max_tokens`` is given."""
    return Request(
        (Message.user(text),),
        sampling=Sampling(**{"max_tokens": 8, **sampling}),
        constraint=constraint,
        timeout=timeout,
        logprobs=logprobs,
    )

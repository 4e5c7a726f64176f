"""What an HTTP engine is asked after every answer: was it this model, and did it read the whole prompt?

A server answers 200 with another model, or with half of a prompt cut away; only these numbers show it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from osport.core.types import Message
from osport.errors import BadResponse, ContextOverflow

__all__ = [
    "MOST_BYTES_A_TOKEN",
    "check_model",
    "check_prompt_tokens",
    "could_be_cut",
    "count_in",
    "object_in",
    "prompt_bytes",
]

MOST_BYTES_A_TOKEN = 16
"""Prose takes three to five; a prompt of more, on the average, would be one long run of spaces."""


def check_model(asked: str, answered: str | None, *, backend: str, aliases: Collection[str] = ()) -> None:
    """Raise :class:`~osport.errors.BadResponse` when another model answered than the one asked for.

    ``aliases``: other names that the server gives to the same model. A server that names no model passes.
    """
    if answered and answered != asked and answered not in aliases:
        raise BadResponse(
            f"{backend}: asked for the model {asked!r}, answered by {answered!r}; "
            "name the model as the server does, or serve the one asked for",
            backend=backend,
            model=asked,
        )


def could_be_cut(length: int, reported: int | None, *, context: int | None = None) -> bool:
    """Whether a prompt of ``length`` bytes is worth counting exactly, once the engine ``reported`` its tokens.

    A token holds at least one byte, so a prompt with fewer bytes than the ``context`` has tokens lost nothing to
    it (None: unknown). A count far below what any tokenizer makes of so many bytes is suspicious in any context.
    """
    if reported is None:
        return False
    return reported * MOST_BYTES_A_TOKEN < length or context is None or length >= context


def check_prompt_tokens(expected: int, reported: int | None, *, backend: str, model: str) -> None:
    """Raise :class:`~osport.errors.ContextOverflow` when the engine read fewer tokens than the prompt has.

    ``expected`` must be exact, or a lower bound. None for ``reported`` (the engine does not say) passes.
    """
    if reported is not None and reported < expected:
        raise ContextOverflow(
            f"{backend}: the prompt has {expected} tokens and the engine read {reported}: it cut the rest away in "
            "silence. Shorten the prompt or give the engine a larger context",
            backend=backend,
            model=model,
        )


def prompt_bytes(messages: Iterable[Message]) -> int:
    """Bytes of the text in a conversation: no more than its prompt has."""
    return sum(len(message.content.encode()) for message in messages)


def object_in(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under this name; an empty one where the server has something else there."""
    value = payload.get(name)
    return value if isinstance(value, Mapping) else {}


def count_in(payload: Mapping[str, Any], name: str) -> int | None:
    """The number of tokens under this name, None where there is none. Raises TypeError for what is no count."""
    value = payload.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise TypeError(f"{name}={value!r} is no number of tokens")
    return value

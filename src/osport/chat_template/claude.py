"""An Anthropic Messages request as one of ours, with nothing lost on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osport.core.types import Message, Request, Sampling
from osport.errors import UnsupportedFeature, UsageError

__all__ = ["request_from_anthropic"]

HERE = "request_from_anthropic"

SAMPLING_FIELDS = {
    "max_tokens": "max_tokens",
    "stop_sequences": "stop",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
}

# About the call, not about the question: the model is named by whoever sends the request on, and
# metadata (an id for abuse detection) never reaches the model. ``stream`` chooses a method of Model.
ABOUT_THE_CALL = frozenset({"model", "metadata", "stream"})

SYSTEM_SEPARATOR = "\n\n"
BLOCK_SEPARATOR = "\n"


def request_from_anthropic(payload: Mapping[str, Any]) -> Request:
    """Translate the body of a Claude Messages call.

    Taken over: ``system`` (string or text blocks, joined by a blank line), ``messages`` with strings or
    text blocks (joined by a newline; neighbouring turns of one role become one turn, as the Claude API
    does), a trailing assistant turn (kept as a prefill), ``max_tokens``, ``stop_sequences``,
    ``temperature``, ``top_p``, ``top_k``. ``model``, ``metadata`` and ``stream`` are about the call and
    not part of the question; they are left to whoever makes the new call.

    Every other field or block raises :class:`~osport.errors.UnsupportedFeature` by name; a payload that
    is not a Messages request raises :class:`~osport.errors.UsageError`.
    """
    if not isinstance(payload, Mapping):
        raise UsageError(f"expected the body of a Messages request (a mapping), got {type(payload).__name__}")
    for name in payload:
        if name not in SAMPLING_FIELDS and name not in ABOUT_THE_CALL and name not in {"system", "messages"}:
            raise UnsupportedFeature(f"the field {name!r} of a Claude request", HERE)
    messages = _messages(payload.get("messages"))
    system = payload.get("system")
    if system:
        messages.insert(0, Message.system(_text(system, "system", SYSTEM_SEPARATOR)))
    given = {ours: payload[theirs] for theirs, ours in SAMPLING_FIELDS.items() if payload.get(theirs) is not None}
    return Request(messages=tuple(messages), sampling=Sampling(**given))


def _messages(turns: object) -> list[Message]:
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise UsageError("messages: expected a list of at least one turn")
    merged: list[tuple[str, str]] = []
    for index, turn in enumerate(turns):
        where = f"messages[{index}]"
        if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
            raise UsageError(f"{where}: expected an object with role and content")
        if surplus := sorted(set(turn) - {"role", "content"}):
            raise UnsupportedFeature(f"{surplus[0]!r} at {where}", HERE)
        role = turn["role"]
        if role not in ("user", "assistant"):
            raise UnsupportedFeature(f"the role {role!r} at {where}", HERE, reason="expected user or assistant")
        text = _text(turn["content"], f"{where}.content", BLOCK_SEPARATOR)
        if merged and merged[-1][0] == role:
            merged[-1] = (role, merged[-1][1] + BLOCK_SEPARATOR + text)
        else:
            merged.append((role, text))
    return [Message.user(text) if role == "user" else Message.assistant(text) for role, text in merged]


def _text(content: object, where: str, separator: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise UsageError(f"{where}: expected a string or a list of blocks, got {type(content).__name__}")
    texts = []
    for index, block in enumerate(content):
        here = f"{where}[{index}]"
        if not isinstance(block, Mapping) or "type" not in block:
            raise UsageError(f"{here}: expected a block with a type")
        if block["type"] != "text":
            raise UnsupportedFeature(f"the block type {block['type']!r} at {here}", HERE)
        if surplus := sorted(set(block) - {"type", "text"}):
            raise UnsupportedFeature(f"{surplus[0]!r} at {here}", HERE)
        if not isinstance(block.get("text"), str):
            raise UsageError(f"{here}: a text block needs a text")
        texts.append(block["text"])
    return separator.join(texts)

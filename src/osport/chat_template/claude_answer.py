"""A completion as an Anthropic Message, so that code written for Claude reads the answer unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from osport.core.types import Completion

__all__ = ["to_anthropic"]

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "refusal": "refusal",
    "error": None,
    "unknown": None,
}


def to_anthropic(completion: Completion, *, ids: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The body of a Messages answer. ``ids`` (``Plan.ids``) gives calls of the history their old ids back.

    A thinking block has an empty signature: only the Claude API can write one. A stop at one of the caller's
    stop strings is reported as ``stop_sequence`` when the backend says which one it was. Token counts that the
    engine does not give are None, where Claude always has numbers: an unknown number is not 0.
    """
    content: list[dict[str, Any]] = []
    if completion.reasoning:
        content.append({"type": "thinking", "thinking": completion.reasoning, "signature": ""})
    if completion.text or not completion.tool_calls:
        content.append({"type": "text", "text": completion.text})
    for call in completion.tool_calls:
        content.append(
            {
                "type": "tool_use",
                "id": (ids or {}).get(call.id, call.id),
                "name": call.name,
                "input": dict(call.arguments),
            }
        )
    stopped_at = completion.effective.get("stopping_word")
    usage = completion.usage
    return {
        "id": completion.request_id or "msg_osport",
        "type": "message",
        "role": "assistant",
        "model": completion.model,
        "content": content,
        "stop_reason": "tool_use"
        if completion.tool_calls
        else "stop_sequence"
        if stopped_at
        else STOP_REASONS[completion.finish_reason],
        "stop_sequence": stopped_at or None,
        "usage": {
            "input_tokens": None if usage.prompt_tokens is None else usage.prompt_tokens - (usage.cached_tokens or 0),
            "output_tokens": usage.completion_tokens,
            "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation_input_tokens": None,
        },
    }

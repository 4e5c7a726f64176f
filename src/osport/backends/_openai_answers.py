"""What OpenAI-like servers answer, whole or in pieces, as osport's own types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import define, field

from osport.backends._answer_checks import count_in
from osport.core.types import FinishReason, TokenLogprob, ToolCall, Usage
from osport.errors import OutputError

__all__ = ["FINISH", "ToolCallPieces", "logprobs_of", "reasoning_of", "usage_of"]

FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "refusal",
}
"""By the servers' own names; any other is ``unknown``."""

REASONING = ("reasoning_content", "reasoning", "thinking")
"""One field under three names: llama.cpp and older vLLM, newer vLLM, Ollama."""


def reasoning_of(part: Mapping[str, Any]) -> str:
    """The thinking in a message or a delta that its server told apart from the answer; empty without any."""
    return next((value for name in REASONING if isinstance(value := part.get(name), str) and value), "")


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Token counts from a ``usage`` object. Raises TypeError or AttributeError for what is none."""
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        prompt_tokens=count_in(usage, "prompt_tokens"),
        completion_tokens=count_in(usage, "completion_tokens"),
        cached_tokens=count_in(prompt or {}, "cached_tokens"),
        reasoning_tokens=count_in(completion or {}, "reasoning_tokens"),
    )


def logprobs_of(choice: Mapping[str, Any], alternatives: int) -> list[TokenLogprob]:
    """The tokens in the ``logprobs`` of a choice, each with at most this many ``alternatives``."""
    content = (choice.get("logprobs") or {}).get("content") or ()
    return [
        TokenLogprob(
            entry["token"],
            float(entry["logprob"]),
            {top["token"]: float(top["logprob"]) for top in (entry.get("top_logprobs") or ())[:alternatives]},
        )
        for entry in content
    ]


@define
class _Pieces:
    id: str = ""
    name: str = ""
    arguments: str = ""


@define
class ToolCallPieces:
    """Tool calls as they come in: whole in a message, or spread over the deltas of a stream."""

    _by_place: dict[int, _Pieces] = field(factory=dict)

    def take(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Read the ``tool_calls`` of one message or delta."""
        for place, entry in enumerate(entries):
            pieces = self._by_place.setdefault(int(entry.get("index", place)), _Pieces())
            function = entry.get("function") or {}
            pieces.id = str(entry.get("id") or pieces.id)
            pieces.name += function.get("name") or ""
            arguments = function.get("arguments") or ""
            # OpenAI sends JSON as a string, some servers the object itself.
            pieces.arguments += arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls, those without an id numbered ``call_0``, ``call_1``, ...

        Raises :class:`~osport.errors.OutputError` for arguments that are no JSON object.
        """
        return tuple(self._call(place, pieces) for place, pieces in sorted(self._by_place.items()))

    def _call(self, place: int, pieces: _Pieces) -> ToolCall:
        try:
            arguments = json.loads(pieces.arguments or "{}")
        except ValueError as error:
            raise OutputError(f"the arguments of {pieces.name!r} are not JSON: {pieces.arguments!r}") from error
        if not isinstance(arguments, dict):
            raise OutputError(f"the arguments of {pieces.name!r} are no JSON object: {pieces.arguments!r}")
        return ToolCall(pieces.id or f"call_{place}", pieces.name, arguments)

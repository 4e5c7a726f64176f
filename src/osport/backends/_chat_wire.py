"""Our conversation as OpenAI's JSON, and OpenAI-like JSON as the parts of our completion."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from osport.backends._openai_answers import FINISH, ToolCallPieces, logprobs_of, reasoning_of, usage_of
from osport.core.types import FinishReason, Message, Request, TokenLogprob, Tool, Usage
from osport.errors import BadResponse, UnsupportedFeature

__all__ = ["ChatAnswer", "tool_fields", "wire_messages", "wire_tools"]

CHOICES = ("auto", "required", "none")


def wire_messages(backend: str, messages: Sequence[Message], *, reasoning_as: str = "") -> list[dict[str, Any]]:
    """The conversation as the chat route takes it.

    ``reasoning_as``: the field for the reasoning of earlier turns; without one such a turn is refused.
    """
    return [_wire_message(backend, message, reasoning_as) for message in messages]


def _wire_message(backend: str, message: Message, reasoning_as: str) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        images = [{"type": "image_url", "image_url": {"url": url}} for url in message.images]
        turn["content"] = [*images, {"type": "text", "text": message.content}] if message.content else images
    if message.tool_calls:
        turn["content"] = message.content or None
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        if not reasoning_as:
            raise UnsupportedFeature(
                "the reasoning of an earlier turn", backend, reason="the server has no field for it; leave it out"
            )
        turn[reasoning_as] = message.reasoning
    return turn


def wire_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools as the chat route takes them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]


def tool_fields(request: Request) -> dict[str, Any]:
    """Tools, which of them to call, and whether several at once; nothing without tools."""
    if not request.tools:
        return {}
    choice: Any = request.tool_choice
    if choice not in CHOICES:
        choice = {"type": "function", "function": {"name": choice}}
    return {
        "tools": wire_tools(request.tools),
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tools,
    }


@define
class ChatAnswer:
    """An answer as it comes in, whole or in pieces. ``alternatives``: how many likely tokens were asked for."""

    backend: str
    alternatives: int = 0
    texts: list[str] = field(factory=list)
    reasonings: list[str] = field(factory=list)
    logprobs: list[TokenLogprob] = field(factory=list)
    tool_calls: ToolCallPieces = field(factory=ToolCallPieces)
    calls_begun: int = 0
    finish: FinishReason | None = None
    usage: Usage = field(factory=Usage)
    model: str = ""
    request_id: str | None = None

    def take(self, payload: Any) -> str:
        """Read one JSON object of a chat or text completion; returns the new text in it."""
        try:
            self.model = "" + (payload.get("model") or self.model)
            self.request_id = str(payload["id"]) if payload.get("id") else self.request_id
            if payload.get("usage"):
                self.usage = usage_of(payload["usage"])
            if not payload["choices"]:
                return ""
            return self._take_choice(payload["choices"][0])
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise BadResponse(
                f"{self.backend}: not an answer ({error!r}): {str(payload)[:200]}", backend=self.backend
            ) from error

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.texts)

    @property
    def reasoning(self) -> str | None:
        """The thinking that the server told apart from the answer."""
        return "".join(self.reasonings) or None

    def _take_choice(self, choice: Any) -> str:
        if choice.get("finish_reason"):
            self.finish = FINISH.get(choice["finish_reason"], "unknown")
        part = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
        text, reasoning = _text_and_thinking(part.get("content"))
        if part.get("refusal"):
            text += part["refusal"]
            self.finish = "refusal"
        self.tool_calls.take(part.get("tool_calls") or ())
        self.texts.append(text)
        self.reasonings.append(reasoning or reasoning_of(part))
        self.logprobs += _logprobs(choice, self.alternatives)
        return text


def _text_and_thinking(content: Any) -> tuple[str, str]:
    """Content is a string, or blocks: some servers put the thinking into a block of its own."""
    if not isinstance(content, list):
        return "" + (content or ""), ""
    text = "".join(block["text"] for block in content if block["type"] == "text")
    thinking = "".join(_inner_text(block["thinking"]) for block in content if block["type"] == "thinking")
    return text, thinking


def _inner_text(thinking: Any) -> str:
    return thinking if isinstance(thinking, str) else "".join(block.get("text", "") for block in thinking)


def _logprobs(choice: Mapping[str, Any], alternatives: int) -> list[TokenLogprob]:
    """Of the chat route, or in the older shape of the text route: lists beside one another."""
    given = choice.get("logprobs") or {}
    if given.get("content") or not given.get("tokens"):
        return logprobs_of(choice, alternatives)
    tops = given.get("top_logprobs") or [None] * len(given["tokens"])
    return [
        TokenLogprob(token, float(logprob), dict(sorted((top or {}).items(), key=lambda pair: -pair[1])[:alternatives]))
        for token, logprob, top in zip(given["tokens"], given["token_logprobs"], tops, strict=True)
    ]

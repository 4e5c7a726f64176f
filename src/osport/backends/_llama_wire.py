"""llama.cpp's HTTP dialect: our request as its JSON, its JSON as our completion."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from osport.backends._openai_answers import FINISH, ToolCallPieces, logprobs_of, reasoning_of, usage_of
from osport.core.types import FinishReason, Message, Request, Sampling, TokenLogprob, Tool, Usage
from osport.errors import BadResponse, UsageError

__all__ = ["Answer", "request_fields", "sampling_fields", "tool_fields", "wire_messages"]

BACKEND = "llama_server"

# Samplers and habits of the engine that osport has no parameter for, each switched off or pinned,
# so that nothing depends on how a server was started. penalties look back this many tokens.
PINNED: dict[str, Any] = {
    "samplers": ["penalties", "top_k", "top_p", "min_p", "temperature"],
    "repeat_last_n": 64,
    "typical_p": 1.0,
    "top_n_sigma": -1.0,
    "dynatemp_range": 0.0,
    "xtc_probability": 0.0,
    "dry_multiplier": 0.0,
    "mirostat": 0,
    "min_keep": 0,
    "n_keep": 0,
    "n_probs": 0,
    "post_sampling_probs": False,
    "logit_bias": [],
    "ignore_eos": False,
    "reasoning_format": "deepseek",
}


def request_fields(request: Request, *, prompt_cache: bool) -> dict[str, Any]:
    """What the body says beside the prompt, the form and the tools."""
    fields = sampling_fields(request.sampling, prompt_cache=prompt_cache)
    if request.logprobs is not None:
        # 0 would switch them off; the chosen token alone comes with its likeliest rival, which is dropped again.
        fields["n_probs"] = max(1, request.logprobs)
    return fields


def sampling_fields(sampling: Sampling, *, prompt_cache: bool) -> dict[str, Any]:
    """Every sampling parameter by the server's own name, none left to its default."""
    full = sampling.filled()
    return {
        "max_tokens": full.max_tokens,
        "temperature": full.temperature,
        "top_p": full.top_p,
        "top_k": full.top_k,
        "min_p": full.min_p,
        "repeat_penalty": full.repeat_penalty,
        "presence_penalty": full.presence_penalty,
        "frequency_penalty": full.frequency_penalty,
        "seed": full.seed,
        "stop": list(full.stop or ()),
        **PINNED,
        "cache_prompt": prompt_cache,
    }


def tool_fields(request: Request) -> dict[str, Any]:
    """Tools by the server's own names.

    The server does not enforce a tool chosen by name: it is offered alone, and a call of it required.
    Raises :class:`~osport.errors.UsageError` for a name that no tool has.
    """
    if not request.tools or request.tool_choice == "none":
        return {}
    choice, tools = request.tool_choice, request.tools
    if choice not in ("auto", "required"):
        tools = tuple(tool for tool in tools if tool.name == choice)
        if not tools:
            raise UsageError(f"tool_choice={choice!r}: there is no such tool")
        choice = "required"
    return {
        "tools": [_wire_tool(tool) for tool in tools],
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tools,
    }


def _wire_tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def wire_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as the chat routes take them."""
    return [_wire_message(message) for message in messages]


def _wire_message(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    return turn


@define
class Answer:
    """An answer as it comes in, whole or in pieces. ``alternatives``: how many likeliest tokens were asked for."""

    alternatives: int = 0
    texts: list[str] = field(factory=list)
    reasonings: list[str] = field(factory=list)
    tool_calls: ToolCallPieces = field(factory=ToolCallPieces)
    logprobs: list[TokenLogprob] = field(factory=list)
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
            choice: Mapping[str, Any] = payload["choices"][0]
            if choice.get("finish_reason"):
                self.finish = FINISH.get(choice["finish_reason"], "unknown")
            part = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
            text = "" + (part.get("content") or "")
            self.texts.append(text)
            self.reasonings.append(reasoning_of(part))
            self.tool_calls.take(part.get("tool_calls") or ())
            self.logprobs += logprobs_of(choice, self.alternatives)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise BadResponse(f"{BACKEND}: not an answer ({error!r}): {str(payload)[:200]}", backend=BACKEND) from error
        return text

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.texts)

    @property
    def reasoning(self) -> str | None:
        """The thinking that the server told apart from the answer."""
        return "".join(self.reasonings) or None

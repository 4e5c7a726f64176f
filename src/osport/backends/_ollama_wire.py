"""Ollama's own JSON: our conversation and tools as it takes them, its answers as the parts of our completion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from osport.backends._answer_checks import count_in
from osport.backends._chat_wire import ChatAnswer, wire_tools
from osport.backends._openai_answers import FINISH, logprobs_of
from osport.core.types import Message, Request, Thinking, Tool, Usage
from osport.errors import BadResponse, UnsupportedFeature, UsageError

__all__ = ["dropped_keywords", "sampling_options", "take", "thinking_field", "tool_fields", "wire_messages"]

NAME = "ollama"
LEVELS = ("low", "medium", "high", "max")
DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,(.+)", re.DOTALL)

# Samplers and habits of the engine that osport has no parameter for, switched off or pinned, so that nothing
# depends on a Modelfile.
PINNED: dict[str, Any] = {"typical_p": 1.0, "repeat_last_n": 64, "num_keep": 0}

# The server reads a tool's parameters into a structure that has no place for other keywords.
TOOL_KEYWORDS = frozenset({"type", "description", "enum", "items", "properties", "required", "anyOf", "$defs"})


def sampling_options(request: Request, *, context: int) -> dict[str, Any]:
    """Every sampling parameter by the server's own name, and the context, none left to a default."""
    sampling = request.sampling.filled()
    return {
        "num_ctx": context,
        "num_predict": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop or ()),
        **PINNED,
    }


def wire_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The conversation as ``/api/chat`` takes it; an image must be a data URL, for the server fetches none."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    return [_wire_message(message, names) for message in messages]


def _wire_message(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        turn["thinking"] = message.reasoning
    if message.images:
        found = [DATA_URL.fullmatch(url) for url in message.images]
        if not all(found):
            raise UnsupportedFeature("an image by URL", NAME, reason="it takes image data; give a data: URL")
        turn["images"] = [match[1] for match in found if match]
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "function": {"index": place, "name": call.name, "arguments": dict(call.arguments)}}
            for place, call in enumerate(message.tool_calls)
        ]
    if message.role == "tool":
        name = names.get(message.tool_call_id or "")
        if name is None:
            raise UsageError(f"the tool result {message.tool_call_id!r} answers no call of this conversation")
        turn |= {"tool_call_id": message.tool_call_id, "tool_name": name}
    return turn


def tool_fields(request: Request) -> dict[str, Any]:
    """The tools; the API has no way to demand a call, and none to forbid one but to offer no tools."""
    if not request.tools or request.tool_choice == "none":
        return {}
    if request.tool_choice != "auto":
        raise UnsupportedFeature(f"tool_choice={request.tool_choice!r}", NAME, reason="the model alone chooses")
    return {"tools": wire_tools(request.tools)}


def dropped_keywords(tools: Sequence[Tool]) -> tuple[str, ...]:
    """Keywords in the parameters of tools that the server leaves out of what the model reads, with their places."""
    return tuple(f"{tool.name}: {path}" for tool in tools for path in _dropped(tool.parameters, "$"))


def _dropped(schema: Any, path: str) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    for keyword, value in schema.items():
        if keyword not in TOOL_KEYWORDS:
            yield f"{path}.{keyword}"
        elif keyword in ("properties", "$defs") and isinstance(value, Mapping):
            for name, inner in value.items():
                yield from _dropped(inner, f"{path}.{keyword}.{name}")
        elif keyword == "anyOf" and isinstance(value, list):
            for place, inner in enumerate(value):
                yield from _dropped(inner, f"{path}.anyOf[{place}]")


def thinking_field(thinking: Thinking, family: str) -> dict[str, Any]:
    """``think``: on, off or a level. gpt-oss takes levels only and cannot be switched off."""
    if thinking is None:
        return {}
    if isinstance(thinking, str):
        if thinking not in LEVELS:
            raise UnsupportedFeature(f"the thinking level {thinking!r}", NAME, reason=f"it knows {', '.join(LEVELS)}")
        return {"think": thinking}
    if not isinstance(thinking, bool) and thinking:
        what = f"a thinking budget of {thinking} tokens"
        raise UnsupportedFeature(what, NAME, reason="it has levels only, such as 'low'")
    if family == "gptoss":
        if not thinking:
            raise UnsupportedFeature("thinking switched off", NAME, reason="gpt-oss always thinks; ask for 'low'")
        return {"think": "medium"}
    return {"think": bool(thinking)}


def take(answer: ChatAnswer, payload: Any) -> str:
    """Read one JSON object of ``/api/chat`` or ``/api/generate`` into the answer; returns the new text in it."""
    try:
        answer.model = "" + (payload.get("model") or answer.model)
        part = payload.get("message") or {"content": payload.get("response"), "thinking": payload.get("thinking")}
        text = "" + (part.get("content") or "")
        answer.texts.append(text)
        answer.reasonings.append("" + (part.get("thinking") or ""))
        for call in part.get("tool_calls") or ():
            answer.tool_calls.take([{**call, "index": answer.calls_begun}])
            answer.calls_begun += 1
        answer.logprobs += logprobs_of({"logprobs": {"content": payload.get("logprobs")}}, answer.alternatives)
        if payload["done"]:
            answer.finish = FINISH.get(payload.get("done_reason") or "", "unknown")
            answer.usage = Usage(count_in(payload, "prompt_eval_count"), count_in(payload, "eval_count"))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadResponse(f"{NAME}: not an answer ({error!r}): {str(payload)[:200]}", backend=NAME) from error
    return text

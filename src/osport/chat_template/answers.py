"""What a model wrote, taken apart: reasoning, content, tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from osport.chat_template.child import parse_in_child
from osport.chat_template.conversation import wire_tools
from osport.chat_template.families import Family
from osport.chat_template.tool_call_forms import Malformed, entries
from osport.chat_template.tool_calls import parse_tool_calls
from osport.core.types import Tool, ToolCall
from osport.errors import OutputError, TemplateError

__all__ = ["Answer", "read_answer", "split_reasoning"]


@frozen
class Answer:
    """``content`` is what is meant for the reader. ``complete`` is False when the text stops inside the reasoning."""

    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = field(default=())
    complete: bool = True


def read_answer(
    text: str,
    writing: Family,
    *,
    prompt: str = "",
    prefill: str = "",
    tools: Sequence[Tool] = (),
    response: Mapping[str, Any] | None = None,
    with_calls: bool = True,
) -> Answer:
    """Take an answer apart by the marks of its family, or by the response template that the model ships.

    ``prompt`` and ``prefill`` tell whether it begins inside the reasoning. Raises
    :class:`~osport.errors.OutputError` for a tool call that is begun and not well formed.
    """
    if response is not None:
        return _by_response_template(text, response, prompt, tools)
    reasoning, content, complete = split_reasoning(text, writing, prompt, prefill)
    calls: tuple[ToolCall, ...] = ()
    for stop in writing.stop:
        content = content.removesuffix(stop)
    if with_calls and writing.calls and complete:
        content, calls = parse_tool_calls(content, writing.calls, tools)
    return Answer(content, reasoning, calls, complete)


def _by_response_template(text: str, response: Mapping[str, Any], prompt: str, tools: Sequence[Tool]) -> Answer:
    """By transformers' parser, in the child: the patterns come from a stranger, and may run on."""
    try:
        message = parse_in_child(text, response, prompt, wire_tools(tools))
        calls = tuple(
            ToolCall(call_id or f"call_{index}", name, json.loads(given) if isinstance(given, str) else given)
            for index, (name, given, call_id) in enumerate(entries(message.get("tool_calls") or []))
        )
    except (TemplateError, Malformed, ValueError) as error:
        raise OutputError(
            f"the model's response template cannot read the answer: {error}; the text: {text!r}"
        ) from error
    content = message.get("content")
    reasoning = next((message[key] for key in ("reasoning_content", "thinking", "reasoning") if message.get(key)), None)
    return Answer(content if isinstance(content, str) else "", reasoning, calls, bool(content or calls))


def split_reasoning(text: str, family: Family, prompt: str = "", prefill: str = "") -> tuple[str | None, str, bool]:
    """(reasoning, content, complete) by the family's pair of marks."""
    if not family.reasoning:
        return None, text, True
    if family.calls == "harmony":
        return _channels(text)
    opens, closes = (mark.strip() for mark in family.reasoning)
    inside = prompt.rstrip().endswith(opens) or prefill.rfind(opens) > prefill.rfind(closes)
    body = text.lstrip()
    if body.startswith(opens):
        body, inside = body[len(opens) :], True
    if closes in body and (inside or opens not in body.partition(closes)[0]):
        reasoning, _, content = body.partition(closes)
        return reasoning.strip(), content.lstrip(), True
    if inside:
        return body.strip(), "", False
    return None, text, True


def _channels(text: str) -> tuple[str | None, str, bool]:
    """gpt-oss writes messages on channels: analysis for itself, commentary for tools, final for the reader."""
    pattern = (
        r"(?:<\|start\|>assistant)?(?P<to> to=\S+?)?<\|channel\|>(?P<channel>\w+)(?P<more>[^<]*)<\|message\|>"
        r"(?P<body>.*?)(?=<\|start\|>|<\|end\|>|<\|return\|>|<\|call\|>|$)"
    )
    found = list(re.finditer(pattern, text, re.DOTALL))
    if not found:
        return None, text, True
    reasoning = "\n".join(m["body"].strip() for m in found if m["channel"] == "analysis" and "to=" not in m["more"])
    rest = [m for m in found if m["channel"] != "analysis" or "to=" in m["more"]]
    tools = "".join(m.group() for m in rest if "to=" in m["more"] or m["to"])
    content = "\n".join(m["body"].strip() for m in rest if "to=" not in m["more"] and not m["to"])
    return reasoning or None, content + tools, bool(rest)

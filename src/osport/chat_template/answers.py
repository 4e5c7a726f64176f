"""What a model wrote, taken apart: reasoning, content, tool calls."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import field, frozen

from osport.chat_template.families import Family
from osport.chat_template.tool_calls import parse_tool_calls
from osport.core.types import Tool, ToolCall

__all__ = ["Answer", "parse_answer", "split_reasoning"]


@frozen
class Answer:
    """``content`` is what is meant for the reader. ``complete`` is False when the text stops inside the reasoning."""

    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = field(default=())
    complete: bool = True


def parse_answer(text: str, family: Family | None, *, prompt: str = "", tools: Sequence[Tool] = ()) -> Answer:
    """Take an answer apart by the marks of its family; ``prompt`` tells whether it begins inside the reasoning.

    Raises :class:`~osport.errors.OutputError` for a tool call that is begun and not well formed.
    """
    if family is None:
        return Answer(text)
    reasoning, content, complete = split_reasoning(text, family, prompt)
    calls: tuple[ToolCall, ...] = ()
    if family.calls and complete:
        content, calls = parse_tool_calls(content, family.calls, tools)
    for stop in family.stop:
        content = content.removesuffix(stop)
    return Answer(content, reasoning, calls, complete)


def split_reasoning(text: str, family: Family, prompt: str = "") -> tuple[str | None, str, bool]:
    """(reasoning, content, complete) by the family's pair of marks."""
    if not family.reasoning:
        return None, text, True
    if family.calls == "harmony":
        return _channels(text)
    opens, closes = (mark.strip() for mark in family.reasoning)
    inside = bool(prompt) and prompt.rfind(opens) > prompt.rfind(closes) and prompt.rstrip().endswith(opens)
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

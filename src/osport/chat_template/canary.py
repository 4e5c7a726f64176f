"""A unique string in every part of a request: each must come out of the template once, in order, unescaped.

The canary finds what a template drops, repeats, escapes or moves without knowing the family.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from osport.chat_template.alterations import THOUGHT, WHAT, changed_names, changed_texts
from osport.chat_template.conversation import REASONING
from osport.chat_template.planting import Part, plant
from osport.chat_template.renderer import stopped
from osport.chat_template.report import Finding
from osport.errors import TemplateError

__all__ = ["check", "compare", "refusal"]


Render = Callable[[list[dict[str, Any]], list[dict[str, Any]] | None], str]


def check(
    render: Render,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
) -> list[Finding]:
    """Plant, render, and report every part that did not come out as it went in."""
    planted, planted_tools, parts = plant(messages, tools)
    try:
        text = render(planted, planted_tools)
    except TemplateError as error:
        return [refusal(error)]
    return [*compare(parts, text, planted, planted_tools), *_blocks(render, text, planted, planted_tools)]


def refusal(error: TemplateError) -> Finding:
    """A template that renders nothing: because it refuses the conversation, or because it was stopped."""
    if stopped(error):
        return Finding("error", "stopped", "template", str(error))
    return Finding("error", "refused", "messages", str(error))


def _blocks(
    render: Render, text: str, planted: list[dict[str, Any]], planted_tools: list[dict[str, Any]] | None
) -> Iterator[Finding]:
    """Images, and whatever else is no text: each must change the prompt, or it does not come out."""
    for index, message in enumerate(planted):
        if not isinstance(content := message.get("content"), list):
            continue
        for at, block in enumerate(content):
            kind = block.get("type") if isinstance(block, Mapping) else None
            if not isinstance(kind, str) or "text" in block or kind in REASONING:
                continue
            fewer = [*planted[:index], {**message, "content": content[:at] + content[at + 1 :]}, *planted[index + 1 :]]
            try:
                lost = render(fewer, planted_tools) == text
            except TemplateError:
                continue
            if lost:
                kind = "image" if kind.startswith("image") else kind
                yield Finding("error", "dropped", f"messages[{index}].content[{at}]", f"the template drops the {kind}")


def compare(
    parts: list[Part],
    text: str,
    planted: Sequence[Mapping[str, Any]],
    planted_tools: Sequence[Mapping[str, Any]] | None,
) -> list[Finding]:
    """Every part of a planted request that is not in the rendered text as it should be."""
    last_user = max((i for i, m in enumerate(planted) if m.get("role") == "user"), default=-1)
    return [
        *_missing(parts, text, last_user),
        *changed_texts(parts, text),
        *changed_names(parts, text),
        *_order(parts, text),
        *_whole(text, planted, planted_tools),
    ]


def _missing(parts: list[Part], text: str, last_user: int) -> Iterator[Finding]:
    beside = {part.turn for part in parts if part.kind == "call_name"}
    for part in parts:
        found = text.count(part.first)
        ends = text.count(part.last) if part.last else found
        if found and ends:
            continue
        what = WHAT[part.kind]
        if part.kind == "assistant" and part.turn in beside:
            what = "the text beside a tool call"
        if part.kind == "reasoning":
            if part.turn < last_user:
                yield Finding(
                    "note", "reasoning-dropped", part.path, "the template drops the reasoning of earlier turns"
                )
            else:
                yield Finding(
                    "warning", "reasoning-dropped", part.path, "the template drops the reasoning of the running turn"
                )
        elif part.kind == "assistant" and not found and ends and THOUGHT.search(part.text):
            yield Finding("note", "reasoning-dropped", part.path, "the template drops the reasoning inside the text")
        elif part.kind == "tool_text" and ".parameters" in part.path:
            yield Finding("warning", "description-dropped", part.path, "the template does not print this description")
        elif part.kind in ("property", "enum") and not _plain_place(part):
            yield Finding("warning", "schema-dropped", part.path, f"the template does not print {what}")
        elif (found and not ends) or (ends and not found):
            yield Finding("error", "truncated", part.path, f"only a piece of {what} comes out of the template")
        else:
            yield Finding("error", "dropped", part.path, f"the template drops {what}")


def _plain_place(part: Part) -> bool:
    """Whether every template that offers tools writes this: published ones drop the rest here and there.

    gpt-oss and Gemma 4 write numbers of an enum, enums of list items, and references as bare types.
    """
    place = PLAIN_PROPERTY if part.kind == "property" else PLAIN_ENUM
    return place.fullmatch(part.path) is not None and not part.first.isdigit()


PLAIN_PROPERTY = re.compile(r"tools\[\d+\]\.parameters(\.items|\.properties\.[^.]+)+")
PLAIN_ENUM = re.compile(r"tools\[\d+\]\.parameters\.properties\.[^.]+\.enum\[\d+\]")


def _order(parts: list[Part], text: str) -> Iterator[Finding]:
    places = [
        (text.find(part.first), part)
        for part in parts
        if part.kind in ("system", "user", "assistant", "tool_result") and part.first in text
    ]
    reach, farthest = -1, None
    for place, part in places:
        if part.kind == "system":
            continue
        if place < reach:
            # Some templates print the text beside a tool call behind the result, inside one turn of the model.
            inside = part.kind == "tool_result" and farthest is not None and farthest.kind == "assistant"
            yield Finding(
                "warning" if inside else "error",
                "reordered",
                part.path,
                f"{WHAT[part.kind]} comes out before an earlier one",
            )
        else:
            reach, farthest = place, part
    calls = _calls(parts, text)
    for place, part in places:
        if part.kind == "tool_result" and any(turn < part.turn and at > place for (turn, _), at in calls.items()):
            yield Finding("error", "reordered", part.path, "a tool result comes out before an earlier call")
    for ((turn, number), at), ((following_turn, _), behind) in pairwise(calls.items()):
        if turn == following_turn and behind < at:
            yield Finding(
                "error", "reordered", f"messages[{turn}].{number}", "a tool call comes out behind a later one"
            )
    for (place, part), (following, _) in pairwise(places):
        if part.kind == "system" and place > following:
            yield Finding("warning", "moved", part.path, "the system prompt comes out behind a later turn")


def _calls(parts: list[Part], text: str) -> dict[tuple[int, str], int]:
    """Where each call begins to come out, told by its arguments; without any, by its name if all results follow it.

    Kimi writes the name of a tool in front of its results.
    """
    results = [text.find(part.first) for part in parts if part.kind == "tool_result" and part.first in text]
    calls: dict[tuple[int, str], tuple[bool, int]] = {}
    for part in parts:
        call, at = (part.turn, part.path.split(".")[1]), text.find(part.first)
        by_name = part.kind == "call_name" and at < min(results, default=len(text))
        if at >= 0 and (by_name or part.kind in ("argument_key", "argument")):
            # Where there are arguments, the name does not count.
            calls[call] = min((by_name, at), calls.get(call, (True, len(text))))
    return {call: at for call, (_, at) in calls.items()}


def _whole(text: str, planted: Sequence[Mapping[str, Any]], tools: object) -> Iterator[Finding]:
    given = json.dumps([planted, tools], ensure_ascii=False, default=str)
    if re.search(r"\[\{'type': ?'", text) and "[{'type':" not in given:
        yield Finding("error", "python-repr", "messages", "a list of content parts is printed as Python prints it")
    if (escape := re.search(r"&#3[49];", text)) and escape.group() not in given:
        yield Finding("error", "html-escaped", "messages", "quotes around tool calls come out with HTML escapes")
    if re.search(r'\{\{"[^"{}]*": ?"?kq\d+a', text) and '{{"' not in given:
        yield Finding("error", "doubled-braces", "messages", "the braces around tool arguments are doubled")

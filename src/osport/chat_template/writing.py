"""How a model writes its answers, read off the template that writes old answers back into the prompt.

A family that is known by name says it itself. For all others, one answer with reasoning and one with a tool
call are rendered, and what stands around them tells the marks.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from attrs import evolve

from osport.chat_template import renderer
from osport.chat_template.capabilities import CLAUDE_ID, TOOL, TemplateCapabilities
from osport.chat_template.control_tokens import find_tokens
from osport.chat_template.conversation import written
from osport.chat_template.families import Family
from osport.chat_template.tool_call_forms import FORMS
from osport.chat_template.tool_calls import parse_tool_calls
from osport.core.types import Message, Tool, ToolCall
from osport.errors import OutputError, TemplateError

__all__ = ["read_writing"]

Render = Callable[..., str]
ASKED, ANSWERED, THOUGHT, CITY = "kqasked", "kqanswered", "kqthought", "kqcity"
WEATHER = Tool("weather", "", TOOL["function"]["parameters"])  # type: ignore[index]
TAG = re.compile(r"[<\[][^<>\[\]\s]{2,30}[>\]]")
OPENING_MARK = re.compile(r"[<\[][^<>\[\]/\s]{2,24}[>\]]\s*$")


def read_writing(source: str, render: Render, capabilities: TemplateCapabilities, family: Family) -> Family:
    """What is known of a family, completed by what the renders of one template show."""
    ask = functools.partial(_ask, render, capabilities)
    answer = ask(Message.assistant(ANSWERED)) or ask(Message.assistant(ANSWERED), tools=[TOOL])  # some insist on tools
    if answer is None:
        return family
    before, _, after = answer.partition(ANSWERED)
    if not family.calls:
        family = evolve(family, calls=_calls(ask, capabilities, before))
    # gpt-oss writes channels, which are no pair of marks. Elsewhere the template is nearer than its family.
    if family.calls != "harmony" and (marks := _reasoning(source, ask, capabilities.opening, before)):
        family = evolve(family, reasoning=marks)
    if not family.stop and (tokens := [token for _, token in find_tokens(after)]):
        family = evolve(family, stop=tokens[:1])
    return family


def _ask(
    render: Render, capabilities: TemplateCapabilities, answer: Message, call_id: str = CLAUDE_ID, **given: Any
) -> str | None:
    turns = [written(message, capabilities.form, {}) for message in (Message.user(ASKED), answer)]
    try:
        return render(turns, add_generation_prompt=False, **given)
    except TemplateError:
        return None


def _calls(ask: Callable[..., str | None], capabilities: TemplateCapabilities, before: str) -> str:
    if capabilities.tool_calls != "kept":
        return ""
    call_id = {"9 alphanumerics": "a1B2c3D4e"}.get(
        capabilities.ids, "functions.weather:0" if "." in capabilities.ids else CLAUDE_ID
    )
    text = ask(Message.assistant("", tool_calls=[ToolCall(call_id, WEATHER.name, {"city": CITY})]), tools=[TOOL])
    if text is None:
        return ""
    start = text.rfind(ASKED) + len(ASKED)
    tail = before[before.rfind(ASKED) + len(ASKED) :]
    written_call = text[start:][_shared(text[start:], tail) :]
    return next((form for form in FORMS if _reads(form, written_call)), "")


def _reads(form: str, text: str) -> bool:
    try:
        _, calls = parse_tool_calls(text, form, [WEATHER])
    except OutputError:
        return False
    return [(call.name, dict(call.arguments)) for call in calls] == [(WEATHER.name, {"city": CITY})]


def _reasoning(source: str, ask: Callable[..., str | None], opening: str, before: str) -> tuple[str, ...]:
    text = ask(evolve(Message.assistant(ANSWERED), reasoning=THOUGHT))
    if text is not None and THOUGHT in text and ANSWERED in text.partition(THOUGHT)[2]:
        first, _, rest = text.partition(THOUGHT)
        opens = first[_shared(first, before) :].strip()
        closes = rest.partition(ANSWERED)[0].strip()
        if TAG.fullmatch(opens) and TAG.fullmatch(closes) and opens != closes:
            return opens, closes
    if found := OPENING_MARK.search(opening):  # a template that opens the reasoning itself, and drops it later
        mark = found.group().strip()
        closing = f"{mark[0]}/{mark[1:]}"
        if closing in renderer.literals(source):
            return mark, closing
    return ()


def _shared(first: str, second: str) -> int:
    """How many characters two texts begin with in common, no mark cut in two."""
    at = next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    mark = max(first.rfind("<", 0, at), first.rfind("[", 0, at))
    return mark if mark >= 0 and not re.search(r"[>\]]", first[mark:at]) else at

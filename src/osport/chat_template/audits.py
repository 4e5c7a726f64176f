"""The audit of one request against one template: the canary, and lints for what a canary cannot see."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from osport.chat_template import canary, engines, renderer
from osport.chat_template.control_tokens import find_tokens, own_tokens, without_code
from osport.chat_template.conversation import Conversation, Turns, wire_messages, wire_tools
from osport.chat_template.report import Audit, Finding
from osport.chat_template.strings import strings
from osport.core.types import Thinking, Tool
from osport.data import load
from osport.errors import TemplateError, UnsupportedFeature

if TYPE_CHECKING:
    from osport.chat_template.template import ChatTemplate

__all__ = ["audit", "forged"]

SECONDS = 4.5  # for the dozen renders of one audit together

FIXES = {
    "dropped": "Conversation.adapt(template) moves it to where the template keeps it",
    "refused": "Conversation.adapt(template) brings the request into a form that the template accepts",
    "stopped": "take the publisher's current template; this one does not come to an end in its time",
    "double-encoded": "give tool arguments as an object, not as a JSON string",
    "doubled-braces": "give tool arguments as an object, not as a JSON string",
    "html-escaped": "take the publisher's current template; this one escapes JSON for web pages",
    "python-repr": "send the text of a turn as one string",
    "forged-turn": "remove the token from the text, or send the token ids of ChatTemplate.render",
    "foreign-token": "write the words without markers; the template adds its own",
    "role-word": "make each speaker a message of its own",
    "hand-assembled": "make each speaker a message of its own",
}

# Variables that transformers, or osport, gives to every template.
GIVEN = frozenset(
    (  # noqa: SIM905 - words in a row read better than a column of literals
        "messages tools documents add_generation_prompt bos_token eos_token unk_token pad_token sep_token "
        "cls_token mask_token range namespace dict raise_exception strftime_now cycler joiner lipsum loop caller "
        "varargs kwargs self"
    ).split()
)


def audit(template: ChatTemplate, turns: Turns, tools: Sequence[Tool | Mapping[str, Any]], thinking: Thinking) -> Audit:
    """Canary and lints; never raises for what the request or the template does wrong, but reports it."""
    if isinstance(turns, Conversation):
        tools = tools or (turns.tools if turns.tool_choice != "none" else ())
        thinking = turns.thinking if thinking is None else thinking
    messages, written_tools = wire_messages(turns), wire_tools(tools)
    findings: list[Finding] = []
    if isinstance(turns, Conversation):
        findings += [Finding("note", "not-carried", loss.field, f"{loss.why}; {loss.instead}") for loss in turns.losses]
    try:
        with renderer.in_time(SECONDS):
            try:
                template.capabilities.thinking.settings(thinking)
            except UnsupportedFeature as error:
                findings.append(Finding("error", "thinking", "thinking", str(error)))
                thinking = None  # and now what else there is to say
            for look in (_rendered, engines.predict):
                findings += look(template, messages, written_tools, thinking)
    except TemplateError as error:
        findings = [f for f in findings if f.rule != "stopped"]
        findings.append(canary.refusal(error))
    findings += forged(template, messages, written_tools)
    findings += _texts(template, messages)
    findings += _stops(template, turns)
    findings += _undeclared(template)
    unique = dict.fromkeys(
        f if f.fix else Finding(f.severity, f.rule, f.place, f.message, FIXES.get(f.rule, "")) for f in findings
    )
    rank = {"error": 0, "warning": 1, "note": 2}
    family = template.family
    return Audit(
        template.source,
        template.hash,
        family.name if family else "",
        tuple(sorted(unique, key=lambda finding: rank[finding.severity])),
    )


def forged(
    template: ChatTemplate, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> list[Finding]:
    """Control tokens of this template inside what the caller wrote: an engine would take them for its own."""
    own = sorted(own_tokens(template))
    # As Python prints it, a request is one text; it shows a token as it is unless that holds an escaped character.
    shown = f"{messages!r}{tools!r}"
    own = [token for token in own if token in shown or "'" in token or "\\" in token]
    if not own:
        return []
    return [
        Finding("error", "forged-turn", place, f"the control token {token} of this template")
        for place, text in strings(messages, tools)
        for token in own
        if token in text
    ]


def _contents(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    for index, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, str):
            yield index, content
        elif isinstance(content, list | tuple):
            for block in content:
                if isinstance(block, Mapping) and isinstance(block.get("text"), str):
                    yield index, block["text"]


def _rendered(
    template: ChatTemplate, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, thinking: Thinking
) -> Iterator[Finding]:
    variables: dict[str, Any] = {}
    if thinking is not None:
        variables, _ = template.capabilities.thinking.settings(thinking)
    write = functools.partial(template._write, **variables)
    yield from canary.check(write, messages, tools)
    yield from _prompt(template, write, messages, tools, messages[-1].get("role") == "assistant")


def _prompt(
    template: ChatTemplate,
    write: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    prefilled: bool,
) -> Iterator[Finding]:
    last = f"messages[{len(messages) - 1}]"
    try:
        text = write(messages, tools, add_generation_prompt=not prefilled, continue_final=prefilled)
    except TemplateError as error:
        if renderer.stopped(error) or not prefilled:
            yield canary.refusal(error)
        else:
            yield Finding("error", "prefill", last, str(error))
        return
    bos = template.tokens.get("bos_token", "")
    if bos and text.startswith(bos + bos):
        yield Finding("error", "double-bos", "prompt", f"the prompt begins with {bos} twice")
    elif bos and text.startswith(bos) and template.adds_bos:
        yield Finding(
            "note", "double-bos", "prompt", f"template and tokenizer both write {bos}; encode without special tokens"
        )
    content = messages[-1].get("content")
    if prefilled and isinstance(content, str) and not text.endswith(content):
        if text.rstrip().endswith(content.strip()):
            yield Finding(
                "warning", "prefill", last, "the template drops the blanks around the prefill", "leave them out"
            )
        else:
            yield Finding("error", "prefill", last, "the prompt does not end with the prefill")
    if not prefilled:
        yield from _opening(template)


def _opening(template: ChatTemplate) -> Iterator[Finding]:
    """Whether the prompt ends where an answer begins, told by a conversation that has an answer."""
    capabilities = template.capabilities
    if capabilities.opening:
        return
    ask: list[dict[str, Any]] = [{"role": "user", "content": "kquser"}]
    if capabilities.form.content == "parts":
        ask = [{"role": "user", "content": [{"type": "text", "text": "kquser"}]}]
    try:
        opened = template._write(ask, add_generation_prompt=True)
        answered = template._write([*ask, {"role": "assistant", "content": "kqanswer"}], add_generation_prompt=False)
    except TemplateError:
        return
    before = answered.partition("kquser")[2].partition("kqanswer")[0].strip()
    tail = opened.partition("kquser")[2].strip()
    if "kqanswer" in answered and "kquser" in opened and before.startswith(tail) and before != tail:
        yield Finding(
            "error",
            "no-generation-prompt",
            "prompt",
            f"the template does not open the answer with {before!r}",
            "take the publisher's template; a fine-tune may have lost this branch",
        )


def _texts(template: ChatTemplate, messages: list[dict[str, Any]]) -> Iterator[Finding]:
    own = own_tokens(template)
    family = template.family
    for index, text in _contents(messages):
        place = f"messages[{index}].content"
        foreign = sorted({t for _, t in find_tokens(text) if t not in own and t not in template.text})
        for token in foreign:
            yield Finding(
                "warning",
                "foreign-token",
                place,
                f"{token} is a control token of another family; here it is plain text",
            )
        prose = without_code(text)
        words = [
            match.group() for pattern in load("control_tokens.toml")["turns"] for match in re.finditer(pattern, prose)
        ]
        if words:
            yield Finding("warning", "role-word", place, f"a line begins with {words[0]!r}")
        speakers = {
            token for _, token in find_tokens(text) if re.search(r"(?i)user|assistant|INST|start|system|turn", token)
        }
        if messages[index].get("role") == "user" and (len(speakers) >= 2 or len(set(words)) >= 2):
            yield Finding("warning", "hand-assembled", place, "one message holds a whole dialogue, written out by hand")
        for tag in family.tags if family else ():
            if re.search(rf"</?{re.escape(tag)}>", prose):
                yield Finding(
                    "warning",
                    "family-tag",
                    place,
                    f"<{tag}> has a meaning of its own for {family.name if family else ''}",
                    "rename the tag",
                )


def _stops(template: ChatTemplate, turns: Turns) -> Iterator[Finding]:
    if not isinstance(turns, Conversation):
        return
    family = template.family
    reasoning = set(family.reasoning) if family else set()
    for stop in turns.sampling.stop or ():
        if stop in own_tokens(template):
            yield Finding(
                "warning", "stop-is-token", "stop", f"{stop} ends every turn anyway, and engines do not print it"
            )
        elif any(stop in mark for mark in reasoning):
            yield Finding("warning", "stop-in-reasoning", "stop", f"{stop!r} would end the answer inside its reasoning")


def _undeclared(template: ChatTemplate) -> Iterator[Finding]:
    """Variables that the template uses unasked, and that nobody passes."""
    try:
        unguarded = renderer.unguarded(template.text)
    except TemplateError:
        return
    for name in sorted(unguarded - GIVEN - set(template.tokens)):
        yield Finding("note", "undeclared-variable", "template", f"it reads {name}, which nobody passes")

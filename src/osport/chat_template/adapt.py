"""A conversation in the form that one template keeps, and a record of every step on the way there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen

from osport.chat_template.conversation import Conversation, replaced
from osport.core.types import Completion, Message, Tool, ToolCall
from osport.errors import OsportError, TemplateError, UnsupportedFeature

if TYPE_CHECKING:
    from osport.chat_template.report import Finding
    from osport.chat_template.template import ChatTemplate

__all__ = ["Change", "Plan", "adapt"]

CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
SHORT_ID_CHARACTERS = 9


@frozen
class Change:
    """One step. ``reversible``: what the model answers can be brought back into the caller's terms."""

    what: str
    place: str
    why: str
    reversible: bool

    def __str__(self) -> str:
        return f"{self.place}: {self.what} ({self.why})"


@frozen
class Plan:
    """The adapted ``conversation``, the ``changes`` made, and the way back.

    ``ids`` maps call ids as the model sees them to those of the caller. ``tools_as_text``: the template has no
    place for tools, so they stand in the text, and calls must be parsed in the form ``hermes``.
    ``findings``: what an audit of the adapted conversation still says.
    """

    conversation: Conversation
    changes: tuple[Change, ...] = field(converter=tuple)
    ids: Mapping[str, str] = field(factory=dict)
    tools_as_text: bool = False
    findings: tuple[Finding, ...] = field(default=(), converter=tuple)

    def restore(self, completion: Completion) -> Completion:
        """The answer in the caller's terms: call ids are mapped back, calls written as text are parsed.

        Raises :class:`~osport.errors.OutputError` for a call that cannot be parsed.
        """
        if self.tools_as_text and not completion.tool_calls:
            from osport.chat_template.tool_calls import parse_tool_calls

            text, calls = parse_tool_calls(completion.text, "hermes")
            completion = evolve(completion, text=text, tool_calls=calls)
        calls = tuple(evolve(call, id=self.ids.get(call.id, call.id)) for call in completion.tool_calls)
        return evolve(completion, tool_calls=calls)


def adapt(conversation: Conversation, template: ChatTemplate) -> Plan:
    """See :meth:`Conversation.adapt`."""
    work = _Work(conversation, template)
    for step in (
        _thinking,
        _images,
        _tools,
        _results,
        _text_beside_calls,
        _parallel_calls,
        _ids,
        _later_system,
        _leading_system,
        _neighbours,
        _prefill,
    ):
        step(work)
    for rescue in (_text_out_of_call_turns, _reasoning_out_of_call_turns, _tools_out):
        if work.keeps(work.conversation):
            break
        rescue(work)
    capabilities = template.capabilities
    adapted = evolve(work.conversation, form=capabilities.form)
    if capabilities.form != conversation.form:
        work.changed(
            f"written with arguments as {capabilities.form.arguments}, content as {capabilities.form.content}, "
            f"empty content as {capabilities.form.empty}",
            "form",
            "the template loses the usual form",
            reversible=True,
        )
    audit = template.audit(adapted)
    hard = [f for f in audit.errors if f.rule not in ("forged-turn",)]
    if hard:
        raise UnsupportedFeature(
            f"this conversation ({hard[0].message} at {hard[0].place})",
            f"the chat template of {audit.family or template.source}",
            reason="no way of writing it was found that keeps everything",
        )
    return Plan(adapted, work.changes, work.ids, work.tools_as_text, audit.findings)


@define
class _Work:
    conversation: Conversation
    template: ChatTemplate
    changes: list[Change] = field(factory=list)
    ids: dict[str, str] = field(factory=dict)
    tools_as_text: bool = False

    def changed(self, what: str, place: str, why: str, *, reversible: bool) -> None:
        self.changes.append(Change(what, place, why, reversible))

    def messages(self, new: list[Message]) -> None:
        self.conversation = evolve(self.conversation, messages=new)

    def keeps(self, conversation: Conversation) -> bool:
        """Whether the canary finds the conversation whole."""
        from osport.chat_template import canary
        from osport.chat_template.conversation import wire_messages, wire_tools

        formed = evolve(conversation, form=self.template.capabilities.form)
        try:
            found = canary.check(self.template._write, wire_messages(formed), wire_tools(formed.tools))
        except OsportError:
            return False
        return not any(finding.severity == "error" for finding in found)


def _thinking(work: _Work) -> None:
    conversation, switch = work.conversation, work.template.capabilities.thinking
    wanted = conversation.thinking
    if wanted is None:
        if switch.default == "on" or switch.kind == "word":
            work.conversation = evolve(conversation, thinking=False)
            work.changed(
                "thinking switched off",
                "thinking",
                "nobody asked for it, and this model thinks by default",
                reversible=True,
            )
        return
    try:
        switch.settings(wanted)
        return
    except UnsupportedFeature as error:
        reason = str(error)
    for other in _nearest(wanted):
        try:
            switch.settings(other)
        except UnsupportedFeature:
            continue
        work.conversation = evolve(conversation, thinking=other)
        work.changed(f"thinking {wanted!r} became {other!r}", "thinking", reason, reversible=False)
        return
    raise UnsupportedFeature(f"thinking={wanted!r}", "this chat template", reason=reason)


def _nearest(wanted: object) -> list[Any]:
    """What comes closest, best first. Off has no neighbour but the least effort, and then nothing said at all."""
    if wanted is False or wanted == 0:
        return ["minimal", "low", None]
    if isinstance(wanted, str):
        return [{"minimal": "low", "xhigh": "high", "max": "high"}.get(wanted, wanted), True, None]
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        return ["low" if wanted <= 2048 else "medium" if wanted <= 8192 else "high", True, None]
    return [None]


def _images(work: _Work) -> None:
    places = [index for index, message in enumerate(work.conversation.messages) if message.images]
    if places and work.template.capabilities.images != "kept":
        raise UnsupportedFeature(
            f"the image at messages[{places[0]}]",
            "this chat template",
            reason="it writes nothing for an image; choose a vision model",
        )


def _tools(work: _Work) -> None:
    conversation, capabilities = work.conversation, work.template.capabilities
    calls = any(message.tool_calls or message.role == "tool" for message in conversation.messages)
    offered = bool(conversation.tools) and conversation.tool_choice != "none"
    if calls and capabilities.tool_calls != "kept":
        _as_text(work)
        calls = False
        work.tools_as_text = True
    if offered and (capabilities.tools != "kept" or work.tools_as_text):
        _offer_in_text(work, conversation.tools)
    if offered and conversation.tool_choice not in ("auto", "none"):
        work.changed(
            f"tool_choice {conversation.tool_choice!r} left to a constraint",
            "tool_choice",
            "templates have no place for it; constrain the answer to enforce it",
            reversible=True,
        )


def _offer_in_text(work: _Work, tools: tuple[Tool, ...]) -> None:
    listed = "\n".join(
        json.dumps(
            {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
            ensure_ascii=False,
        )
        for tool in tools
    )
    text = (
        f"You may call these functions, each described by a JSON object:\n{listed}\n\n"
        f'To call one, answer with {CALL_OPEN}{{"name": ..., "arguments": {{...}}}}{CALL_CLOSE} and nothing behind it.'
    )
    messages = list(work.conversation.messages)
    if messages[0].role == "system":
        messages[0] = evolve(messages[0], content=f"{messages[0].content}\n\n{text}")
    else:
        messages.insert(0, Message.system(text))
    work.conversation = evolve(work.conversation, messages=messages, tools=())
    work.tools_as_text = True
    work.changed("tools described in the system prompt", "tools", "the template never prints them", reversible=True)


def _as_text(work: _Work) -> None:
    """Calls as text of the assistant and results as text of the user, for templates that keep neither."""
    messages = []
    for message in work.conversation.messages:
        if message.tool_calls:
            calls = "\n".join(
                f"{CALL_OPEN}{json.dumps({'name': c.name, 'arguments': dict(c.arguments)}, ensure_ascii=False)}{CALL_CLOSE}"
                for c in message.tool_calls
            )
            text = f"{message.content}\n{calls}" if message.content else calls
            messages.append(evolve(message, content=text, tool_calls=()))
        elif message.role == "tool":
            messages.append(Message.user(f"<tool_response>{message.content}</tool_response>"))
        else:
            messages.append(message)
    work.messages(messages)
    work.changed(
        "tool calls and results written as text", "messages", "the template keeps no tool calls", reversible=True
    )


def _results(work: _Work) -> None:
    if work.template.capabilities.tool_results == "kept":
        return
    messages = [
        Message.user(f"<tool_response>{m.content}</tool_response>") if m.role == "tool" else m
        for m in work.conversation.messages
    ]
    if messages != list(work.conversation.messages):
        work.messages(messages)
        work.changed(
            "tool results written as user turns", "messages", "the template keeps no tool results", reversible=True
        )


def _text_beside_calls(work: _Work) -> None:
    if work.template.capabilities.text_with_calls == "kept":
        return
    for index in reversed(range(len(work.conversation.messages))):
        message = work.conversation.messages[index]
        if not (message.tool_calls and message.content):
            continue
        apart = replaced(work.conversation, index, Message.assistant(message.content), evolve(message, content=""))
        if work.keeps(apart) or not work.template.capabilities.parallel_calls == "kept":
            work.conversation = apart
            work.changed(
                "the text beside a tool call became a turn of its own",
                f"messages[{index}]",
                "the template drops it",
                reversible=True,
            )
        else:
            # No second assistant turn is allowed: the reason for the call goes with the answer to it.
            following = work.conversation.messages[index + 1]
            moved = evolve(following, content=f"{following.content}\n(before the call: {message.content})")
            work.conversation = replaced(
                replaced(work.conversation, index + 1, moved), index, evolve(message, content="")
            )
            work.changed(
                "the text beside a tool call was added to its result",
                f"messages[{index}]",
                "the template drops it and allows no turn between",
                reversible=False,
            )


def _parallel_calls(work: _Work) -> None:
    if work.template.capabilities.parallel_calls == "kept":
        return
    messages: list[Message] = []
    rest = list(work.conversation.messages)
    split = False
    while rest:
        message = rest.pop(0)
        if len(message.tool_calls) < 2:
            messages.append(message)
            continue
        split = True
        results = {}
        while rest and rest[0].role == "tool":
            results[rest[0].tool_call_id] = rest.pop(0)
        for at, call in enumerate(message.tool_calls):
            text, reasoning = (message.content, message.reasoning) if at == 0 else ("", None)
            messages.append(Message("assistant", text, (call,), reasoning=reasoning))
            if call.id in results:
                messages.append(results[call.id])
    if split:
        work.messages(messages)
        work.changed(
            "parallel calls became one after the other",
            "messages",
            "the template keeps only one call in a turn",
            reversible=True,
        )


def _ids(work: _Work) -> None:
    shape = work.template.capabilities.ids
    if shape == "any":
        return
    new: dict[str, str] = {}

    def rename(call: ToolCall) -> ToolCall:
        if shape.startswith("functions."):
            new[call.id] = f"functions.{call.name}:{len(new)}"
        else:
            new[call.id] = f"{len(new):0{SHORT_ID_CHARACTERS}d}"
        return evolve(call, id=new[call.id])

    messages = []
    for message in work.conversation.messages:
        calls = tuple(rename(call) for call in message.tool_calls)
        call_id = new.get(message.tool_call_id or "", message.tool_call_id)
        messages.append(evolve(message, tool_calls=calls, tool_call_id=call_id))
    if new:
        work.messages(messages)
        work.ids.update({ours: theirs for theirs, ours in new.items()})
        work.changed(f"call ids rewritten as {shape}", "messages", "the template takes no others", reversible=True)


def _later_system(work: _Work) -> None:
    """System turns inside the conversation: where they stand, else in front, else as words of the user."""
    places = [i for i, m in enumerate(work.conversation.messages) if m.role == "system" and i > 0]
    if not places or work.keeps(work.conversation):
        return
    texts = [work.conversation.messages[i].content for i in places]
    rest = [m for i, m in enumerate(work.conversation.messages) if i not in places]
    if rest[0].role == "system":
        rest[0] = evolve(rest[0], content="\n\n".join([rest[0].content, *texts]))
    else:
        rest.insert(0, Message.system("\n\n".join(texts)))
    work.messages(rest)
    work.changed(
        "later system turns joined to the first",
        f"messages[{places[0]}]",
        "the template keeps only a leading one",
        reversible=False,
    )


def _leading_system(work: _Work) -> None:
    messages = list(work.conversation.messages)
    if messages[0].role != "system" or work.template.capabilities.system == "kept":
        return
    at = next((i for i, m in enumerate(messages) if m.role == "user"), None)
    if at is None:
        raise UnsupportedFeature("a system prompt without a user turn", "this chat template")
    messages[at] = evolve(messages[at], content=f"{messages[0].content}\n\n{messages[at].content}")
    work.messages(messages[1:])
    work.changed(
        "the system prompt put in front of the first user turn",
        "messages[0]",
        "the template keeps no system prompt",
        reversible=True,
    )


def _neighbours(work: _Work) -> None:
    """Turns of one role in a row, where the template demands that they alternate."""
    if work.template.capabilities.alternation == "kept":
        return
    merged: list[Message] = []
    for message in work.conversation.messages:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.role == message.role in ("user", "assistant")
            and not last.tool_calls
            and not message.tool_calls
        ):
            merged[-1] = evolve(
                last, content=f"{last.content}\n\n{message.content}", images=(*last.images, *message.images)
            )
        else:
            merged.append(message)
    if len(merged) < len(work.conversation.messages):
        work.messages(merged)
        work.changed(
            "turns of one role in a row merged",
            "messages",
            "the template demands that roles alternate",
            reversible=True,
        )


def _text_out_of_call_turns(work: _Work) -> None:
    """For templates that refuse a turn with text, reasoning and calls, though they keep any two of them."""
    messages: list[Message] = []
    for message in work.conversation.messages:
        if message.tool_calls and message.content and message.reasoning:
            messages.append(Message.assistant(message.content))
            message = evolve(message, content="")
        messages.append(message)
    _if_better(work, messages, "the text beside a tool call became a turn of its own", reversible=True)


def _reasoning_out_of_call_turns(work: _Work) -> None:
    messages = [evolve(m, reasoning=None) if m.tool_calls else m for m in work.conversation.messages]
    _if_better(work, messages, "the reasoning beside tool calls left out", reversible=False)


def _if_better(work: _Work, messages: list[Message], what: str, *, reversible: bool) -> None:
    tried = evolve(work.conversation, messages=messages)
    if messages != list(work.conversation.messages) and work.keeps(tried):
        work.conversation = tried
        work.changed(what, "messages", "the template refuses the turn as it was", reversible=reversible)


def _tools_out(work: _Work) -> None:
    """The last resort: everything about tools as text, and turns that alternate."""
    conversation = work.conversation
    if any(message.tool_calls or message.role == "tool" for message in conversation.messages):
        _as_text(work)
        work.tools_as_text = True
    if conversation.tools and conversation.tool_choice != "none":
        _offer_in_text(work, conversation.tools)
    _later_system(work)
    _leading_system(work)
    _neighbours(work)


def _prefill(work: _Work) -> None:
    """A prefill that the template cannot leave open becomes an instruction."""
    conversation = work.conversation
    if not conversation.prefilled:
        return
    formed = evolve(conversation, form=work.template.capabilities.form)
    last = conversation.messages[-1]
    try:
        if work.template.render(formed, continue_final=True).text.rstrip().endswith(last.content.rstrip()):
            return
    except TemplateError:
        pass
    if len(conversation.messages) < 2 or conversation.messages[-2].role != "user":
        raise UnsupportedFeature("a prefill", "this chat template", reason="it cannot leave the last turn open")
    asked = conversation.messages[-2]
    instructed = evolve(asked, content=f"{asked.content}\n\nBegin your answer with exactly: {last.content}")
    work.messages([*conversation.messages[:-2], instructed])
    work.changed(
        "the prefill became an instruction",
        f"messages[{len(conversation.messages) - 1}]",
        "the template cannot leave a turn open",
        reversible=False,
    )

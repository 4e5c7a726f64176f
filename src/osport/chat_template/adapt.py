"""A conversation in the form that one template keeps, with a record of every step on the way there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from attrs import evolve

from osport.chat_template import adapt_tools, renderer
from osport.chat_template.conversation import Conversation
from osport.chat_template.plan import Plan, Work
from osport.core.types import Message
from osport.errors import TemplateError, UnsupportedFeature

if TYPE_CHECKING:
    from osport.chat_template.template import ChatTemplate

__all__ = ["adapt"]


SECONDS = 15.0  # for all the renders together by which one conversation is adapted


def adapt(conversation: Conversation, template: ChatTemplate) -> Plan:
    """See :meth:`Conversation.adapt`."""
    with renderer.in_time(SECONDS):
        return _adapted(conversation, template)


def _adapted(conversation: Conversation, template: ChatTemplate) -> Plan:
    work = Work(conversation, template)
    for step in (
        _thinking,
        _images,
        adapt_tools.offer_tools,
        adapt_tools.results,
        adapt_tools.text_beside_calls,
        adapt_tools.parallel_calls,
        adapt_tools.call_ids,
        _later_system,
        _leading_system,
        _neighbours,
        _prefill,
    ):
        step(work)
    for rescue in (adapt_tools.text_out_of_call_turns, adapt_tools.reasoning_out_of_call_turns, _tools_out):
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
    written = "\n".join(message.content for message in adapted.messages)
    for index, message in enumerate(conversation.messages):
        if message.content.strip() not in written:  # the audit sees only what is left of the conversation
            raise UnsupportedFeature(
                f"the text of messages[{index}]", "this chat template", reason="adapting would lose it"
            )
    audit = template.audit(adapted)
    hard = [f for f in audit.errors if f.rule not in ("forged-turn",)]
    if hard:
        raise UnsupportedFeature(
            f"this conversation ({hard[0].message} at {hard[0].place})",
            f"the chat template of {audit.family or template.source}",
            reason="no way of writing it was found that keeps everything",
        )
    return Plan(adapted, tuple(work.changes), work.ids, work.tools_as_text, audit.findings)


def _thinking(work: Work) -> None:
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


def _images(work: Work) -> None:
    places = [index for index, message in enumerate(work.conversation.messages) if message.images]
    if places and work.template.capabilities.images != "kept":
        raise UnsupportedFeature(
            f"the image at messages[{places[0]}]",
            "this chat template",
            reason="it writes nothing for an image; choose a vision model",
        )


def _later_system(work: Work) -> None:
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


def _leading_system(work: Work) -> None:
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


def _neighbours(work: Work) -> None:
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


def _tools_out(work: Work) -> None:
    """The last resort: everything about tools as text, and turns that alternate."""
    conversation = work.conversation
    if any(message.tool_calls or message.role == "tool" for message in conversation.messages):
        adapt_tools.as_text(work)
        work.tools_as_text = True
    if conversation.tools and conversation.tool_choice != "none":
        adapt_tools.offer_in_text(work, conversation.tools)
    _later_system(work)
    _leading_system(work)
    _neighbours(work)


def _prefill(work: Work) -> None:
    """A prefill that the template cannot leave open becomes an instruction."""
    conversation = work.conversation
    if not conversation.prefilled:
        return
    formed = evolve(conversation, form=work.template.capabilities.form)
    last = conversation.messages[-1]
    with contextlib.suppress(TemplateError):
        text = work.template.render(formed, continue_final=True).text
        if text.endswith(last.content):
            return
        if text.rstrip().endswith(bare := last.content.strip()):
            work.messages([*conversation.messages[:-1], evolve(last, content=bare)])
            work.changed(
                "the prefill without the blanks around it",
                f"messages[{len(conversation.messages) - 1}]",
                "the template drops them",
                reversible=True,
            )
            return
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

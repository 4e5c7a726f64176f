"""The steps that bring tools, calls and results into the form that a template keeps."""

from __future__ import annotations

import json

from attrs import evolve

from osport.chat_template.conversation import replaced
from osport.chat_template.plan import Work
from osport.core.types import Message, Tool, ToolCall

__all__ = [
    "as_text",
    "call_ids",
    "offer_in_text",
    "offer_tools",
    "parallel_calls",
    "reasoning_out_of_call_turns",
    "results",
    "text_beside_calls",
    "text_out_of_call_turns",
]

CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
SHORT_ID_CHARACTERS = 9


def offer_tools(work: Work) -> None:
    """Tools where the template prints them, else in the system prompt; calls too where it keeps none."""
    conversation, capabilities = work.conversation, work.template.capabilities
    calls = any(message.tool_calls or message.role == "tool" for message in conversation.messages)
    offered = bool(conversation.tools) and conversation.tool_choice != "none"
    if calls and capabilities.tool_calls != "kept":
        as_text(work)
        calls = False
        work.tools_as_text = True
    if offered and (capabilities.tools != "kept" or work.tools_as_text):
        offer_in_text(work, conversation.tools)
    if offered and conversation.tool_choice not in ("auto", "none"):
        work.changed(
            f"tool_choice {conversation.tool_choice!r} left to a constraint",
            "tool_choice",
            "templates have no place for it; constrain the answer to enforce it",
            reversible=True,
        )


def offer_in_text(work: Work, tools: tuple[Tool, ...]) -> None:
    """Describe the tools in the system prompt."""
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
    work.conversation = evolve(work.conversation, messages=tuple(messages), tools=())
    work.tools_as_text = True
    work.changed("tools described in the system prompt", "tools", "the template never prints them", reversible=True)


def as_text(work: Work) -> None:
    """Calls as text of the assistant and results as text of the user, for templates that keep neither."""
    messages = []
    for message in work.conversation.messages:
        if message.tool_calls:
            calls = "\n".join(_call_as_text(call) for call in message.tool_calls)
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


def _call_as_text(call: ToolCall) -> str:
    written = json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)
    return f"{CALL_OPEN}{written}{CALL_CLOSE}"


def results(work: Work) -> None:
    """Tool results as user turns, for templates that keep no tool turns."""
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


def text_beside_calls(work: Work) -> None:
    """Text beside a call as a turn of its own, or with the result of the call."""
    if work.template.capabilities.text_with_calls == "kept":
        return
    for index in reversed(range(len(work.conversation.messages))):
        message = work.conversation.messages[index]
        if not (message.tool_calls and message.content):
            continue
        apart = replaced(work.conversation, index, Message.assistant(message.content), evolve(message, content=""))
        if work.keeps(apart) or work.template.capabilities.parallel_calls != "kept":
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


def parallel_calls(work: Work) -> None:
    """Several calls in one turn, one after the other."""
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
            answered = rest.pop(0)
            results[answered.tool_call_id] = answered
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


def call_ids(work: Work) -> None:
    """Call ids in the only shape that the template understands."""
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


def text_out_of_call_turns(work: Work) -> None:
    """For templates that refuse a turn with text, reasoning and calls, though they keep any two of them."""
    messages: list[Message] = []
    for message in work.conversation.messages:
        if message.tool_calls and message.content and message.reasoning:
            messages.append(Message.assistant(message.content))
            message = evolve(message, content="")
        messages.append(message)
    _if_better(work, messages, "the text beside a tool call became a turn of its own", reversible=True)


def reasoning_out_of_call_turns(work: Work) -> None:
    """Reasoning beside calls left out, for templates that refuse it there."""
    messages = [evolve(m, reasoning=None) if m.tool_calls else m for m in work.conversation.messages]
    _if_better(work, messages, "the reasoning beside tool calls left out", reversible=False)


def _if_better(work: Work, messages: list[Message], what: str, *, reversible: bool) -> None:
    tried = evolve(work.conversation, messages=tuple(messages))
    if messages != list(work.conversation.messages) and work.keeps(tried):
        work.conversation = tried
        work.changed(what, "messages", "the template refuses the turn as it was", reversible=reversible)

"""What a template does between the caller and an engine: prompts on the way down, answers on the way up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from osport.chat_template import audits, canary
from osport.chat_template.answers import read_answer, split_reasoning
from osport.chat_template.conversation import Conversation, wire_messages, wire_tools
from osport.chat_template.report import Finding
from osport.chat_template.thinking import asked_of_template, place_of_word
from osport.core.capabilities import Capabilities
from osport.core.types import Completion, Request
from osport.errors import OutputError, TemplateError, Truncated, UnsupportedFeature

if TYPE_CHECKING:
    from osport.chat_template.template import ChatTemplate

__all__ = ["finish", "prepare"]

KEPT_SHAPES = 1024


def prepare(template: ChatTemplate, request: Request, capabilities: Capabilities) -> Request:
    """See :meth:`ChatTemplate.prepare`."""
    if not request.messages:
        return request
    prefilled = request.messages[-1].role == "assistant"
    tools = request.tools if request.tool_choice != "none" else ()
    # Arguments as text or object, content as text or parts: written in the way that this template keeps.
    turns = Conversation(request.messages, form=template.capabilities.form)
    written, written_tools = wire_messages(turns), wire_tools(tools)
    in_tools = _must_come_out_whole(template, request, written, written_tools)
    if not capabilities.raw_prompt:
        return _with_word(template, request)
    if request.tool_choice not in ("auto", "none"):
        raise UnsupportedFeature(
            f"tool_choice={request.tool_choice!r}",
            "a raw prompt",
            reason="a template only offers tools; ConstrainedOutput.tools forces a call",
        )
    if tools and not template.writing.calls:
        raise UnsupportedFeature(
            "tools", "a raw prompt", reason="osport cannot read the calls of this template's models"
        )
    if any(message.images for message in request.messages):
        raise UnsupportedFeature("images", "a raw prompt")
    if forged := in_tools or audits.forged(template, written, None):
        raise TemplateError(
            f"{forged[0].place} holds {forged[0].message}; the engine would read it as the end of a turn. "
            "Remove it, or send the token ids of ChatTemplate.render"
        )
    thinking = asked_of_template(template.capabilities.thinking, request)
    text = template.render(turns, tools=tools, thinking=thinking, continue_final=prefilled).text
    thought = template.thought(text, request.thinking) if not prefilled else None
    if prefilled and not text.endswith(prefill := request.messages[-1].content):
        blanks = prefill[len(prefill.rstrip()) :]  # that the template drops
        text = text.rstrip() + blanks if text.rstrip().endswith(prefill.strip()) else text
    bos = template.tokens.get("bos_token")
    if bos and template.adds_bos:  # an engine that puts BOS before every prompt would double it
        text = text.removeprefix(bos)
    return evolve(request, messages=(), prompt=text, tools=(), tool_choice="auto", thinking=None, thought=thought)


def _with_word(template: ChatTemplate, request: Request) -> Request:
    """For a server that templates itself: thinking is its field, unless the switch is a word in the text."""
    _, word = template.capabilities.thinking.settings(request.thinking)
    if not word:
        return request
    messages = list(request.messages)
    at = place_of_word([{"role": m.role, "content": m.content} for m in messages], word)
    messages[at] = evolve(messages[at], content=f"{messages[at].content} {word}")
    return evolve(request, messages=messages, thinking=None)


def finish(template: ChatTemplate, completion: Completion, request: Request, sent: Request) -> Completion:
    """See :meth:`ChatTemplate.finish`."""
    if not request.messages:
        return completion
    if sent.prompt is None or sent.constraint is not None:
        # The server takes its answers apart, and an enforced form is the whole text: what is left over is
        # reasoning that both ends are there of.
        if completion.reasoning is not None:
            return completion
        reasoning, content, whole = split_reasoning(completion.text, template.writing)
        return evolve(completion, text=content, reasoning=reasoning) if reasoning is not None and whole else completion
    last = request.messages[-1]
    tools = request.tools if request.tool_choice != "none" and not completion.tool_calls else ()
    try:
        answer = read_answer(
            completion.text,
            template.writing,
            # A backend that has parted the reasoning has taken notice of the prompt.
            prompt=sent.prompt if completion.reasoning is None else "",
            prefill=last.content if last.role == "assistant" else "",
            tools=tools,
            response=template.response,
            with_calls=bool(tools),
        )
    except OutputError as error:
        kind = Truncated if completion.finish_reason == "length" else OutputError
        raise kind(str(error), completion) from error
    return evolve(
        completion,
        text=answer.content,
        reasoning=answer.reasoning if completion.reasoning is None else completion.reasoning,
        tool_calls=answer.tool_calls or completion.tool_calls,
        finish_reason="tool_calls" if answer.tool_calls else completion.finish_reason,
    )


def _must_come_out_whole(
    template: ChatTemplate,
    request: Request,
    written: list[dict[str, Any]],
    written_tools: list[dict[str, Any]] | None,
) -> list[Finding]:
    """The canary, once for each shape of conversation: a batch of one shape pays for it once.

    Gives the control tokens in the tools, which are the same in every request of one shape.
    """
    shape = (
        template.text,
        tuple(template.tokens.items()),
        tuple(
            (
                message.role,
                bool(message.content),
                message.reasoning is not None,
                len(message.images),
                tuple(_structure(call.arguments) for call in message.tool_calls),
            )
            for message in request.messages
        ),
        # A template may cut what is long: a text twice as long is another shape.
        max(len(message.content) for message in request.messages).bit_length(),
        repr(written_tools),
    )
    if shape in _whole:
        _whole.move_to_end(shape)
        return _whole[shape]
    lost = [f for f in canary.check(template._write, written, written_tools) if f.severity == "error"]
    if lost:
        advice = "" if lost[0].rule == "stopped" else "; Conversation.adapt brings a request into a form that it keeps"
        raise TemplateError(f"{lost[0].message} ({lost[0].place}){advice}")
    _whole[shape] = in_tools = audits.forged(template, [], written_tools)
    while len(_whole) > KEPT_SHAPES:
        _whole.popitem(last=False)
    return in_tools


def _structure(value: Any) -> Any:
    """The keys and types of arguments, without the values; what is false or empty is a value of its own."""
    if isinstance(value, Mapping):
        return tuple((key, _structure(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return ("list", *map(_structure, value))
    return type(value) if value else repr(value)


_whole: OrderedDict[object, list[Finding]] = OrderedDict()

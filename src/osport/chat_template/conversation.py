"""A conversation with everything a caller can put into it, and the plain form that templates read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from attrs import evolve, field, frozen

from osport.core.types import Constraint, Message, Request, Sampling, Thinking, Tool, ToolCall, check_text
from osport.errors import UsageError

if TYPE_CHECKING:
    from osport.chat_template.plan import Plan
    from osport.chat_template.template import ChatTemplate

__all__ = ["Conversation", "Form", "Loss", "Turns", "wire_messages", "wire_tools"]


@frozen
class Loss:
    """Something of a foreign request that does not exist here: where, why, and what was done instead."""

    field: str
    why: str
    instead: str

    def __str__(self) -> str:
        return f"{self.field}: {self.why}; {self.instead}"


@frozen
class Form:
    """How a conversation is written for a template.

    ``arguments``: tool arguments as an ``object`` or as a ``json`` string. ``content``: the text of a
    turn as ``text``, or as a list of ``parts``. ``empty``: what stands for the missing text beside a
    tool call.
    """

    arguments: Literal["object", "json"] = "object"
    content: Literal["text", "parts"] = "text"
    empty: Literal["text", "absent", "null"] = "text"


def _messages(values: Iterable[Message]) -> tuple[Message, ...]:
    return tuple(values)


def _tools(values: Iterable[Tool]) -> tuple[Tool, ...]:
    return tuple(values)


@frozen
class Conversation:
    """Messages, the tools that the model may call, and how it should answer.

    ``losses`` says what a foreign request held that this one does not (see :meth:`from_anthropic`).
    ``form`` is set by :meth:`adapt`, for the template that it adapts to.

    >>> Conversation([Message.system("Be brief."), Message.user("Hello")]).messages[1].content
    'Hello'
    """

    messages: tuple[Message, ...] = field(converter=_messages)
    tools: tuple[Tool, ...] = field(default=(), converter=_tools)
    tool_choice: str = "auto"
    parallel_tools: bool = True
    thinking: Thinking = None
    sampling: Sampling = field(factory=Sampling)
    constraint: Constraint | None = None
    losses: tuple[Loss, ...] = ()
    form: Form = field(factory=Form)

    @classmethod
    def from_anthropic(cls, request: Mapping[str, Any]) -> Conversation:
        """Translate a Claude Messages request (a dict, or the parameters of the anthropic SDK).

        Every field is kept, adapted with an entry in ``losses``, or refused:
        :class:`~osport.errors.UnsupportedFeature` names what no open model has,
        :class:`~osport.errors.UsageError` what is not a Messages request.
        """
        from osport.chat_template.claude import conversation_from_anthropic

        return conversation_from_anthropic(request)

    def adapt(self, template: ChatTemplate) -> Plan:
        """Bring the conversation into the form that this template keeps.

        Raises :class:`~osport.errors.UnsupportedFeature` for what the template cannot carry in any form.
        """
        from osport.chat_template.adapt import adapt

        return adapt(self, template)

    def request(self) -> Request:
        """The request to hand to ``Model.generate``."""
        return Request(
            messages=self.messages,
            sampling=self.sampling,
            constraint=self.constraint,
            tools=self.tools,
            tool_choice=self.tool_choice,
            parallel_tools=self.parallel_tools,
            thinking=self.thinking,
        )

    @property
    def prefilled(self) -> bool:
        """Whether the last message is the beginning of the answer."""
        return bool(self.messages) and self.messages[-1].role == "assistant"


Turns = Conversation | Sequence[Message | Mapping[str, Any]]
"""What can be rendered: a conversation, messages, or plain dictionaries as transformers takes them."""

REASONING = frozenset({"reasoning_content", "thinking", "reasoning"})


def wire_messages(turns: Turns) -> list[dict[str, Any]]:
    """Messages as chat templates read them; keys without a value are left out, as transformers does.

    Raises :class:`~osport.errors.UsageError` for what is no message, and for text that is no Unicode.
    """
    if isinstance(turns, Message | Mapping | str) or not isinstance(turns, Conversation | Sequence):
        raise UsageError(f"expected a Conversation or a list of messages, got {type(turns).__name__}")
    messages = turns.messages if isinstance(turns, Conversation) else turns
    if not messages:
        raise UsageError("there is nothing to render: the conversation has no messages")
    form = turns.form if isinstance(turns, Conversation) else Form()
    names: dict[str, str] = {}
    turns_written: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if isinstance(message, Message):
            turns_written.append(written(message, form, names))
        elif isinstance(message, Mapping):
            _check_shape(message, f"messages[{index}]")
            turns_written.append({key: value for key, value in message.items() if value is not None})
        else:
            raise UsageError(f"messages[{index}]: expected a Message, got {type(message).__name__}")
        check_text(f"messages[{index}].content", turns_written[-1].get("content"))
    return turns_written


def is_plain(turns: Turns) -> bool:
    """Whether these turns consist of nothing but strings, and of no reasoning: transformers adds nothing to them."""
    messages = turns.messages if isinstance(turns, Conversation) else turns
    return all(
        type(m.content) is str and not (m.tool_calls or m.images or m.reasoning)
        if isinstance(m, Message)
        else type(m) is dict and all(type(v) is str for v in m.values()) and not m.keys() & REASONING
        for m in messages
    )


def wire_tools(tools: Sequence[Tool | Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Tools as chat templates read them; None when there are none.

    Raises :class:`~osport.errors.UsageError` for a tool that is not an object, or has no schema for parameters.
    """
    written: list[dict[str, Any]] = []
    if isinstance(tools, Mapping | str) or not isinstance(tools, Sequence):
        raise UsageError(f"tools: expected a list, got {type(tools).__name__}")
    for index, tool in enumerate(tools):
        if isinstance(tool, Tool):
            function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
            written.append({"type": "function", "function": function})
        elif isinstance(tool, Mapping):
            function = tool.get("function", tool)
            if not isinstance(function, Mapping):
                raise UsageError(f"tools[{index}].function: expected an object, got {type(function).__name__}")
            if not isinstance(parameters := function.get("parameters", {}), Mapping | None):
                raise UsageError(
                    f"tools[{index}].parameters: expected a JSON Schema object, got {type(parameters).__name__}"
                )
            written.append(dict(tool))
        else:
            raise UsageError(f"tools[{index}]: expected a Tool or a JSON object, got {type(tool).__name__}")
    return written or None


def written(message: Message, form: Form, names: dict[str, str]) -> dict[str, Any]:
    """One message as templates read it; ``names`` remembers which call had which tool."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images or form.content == "parts":
        parts: list[dict[str, Any]] = [
            {"type": "image", "image": url, "image_url": {"url": url}} for url in message.images
        ]
        if message.content:
            parts.append({"type": "text", "text": message.content})
        turn["content"] = parts
    if message.tool_calls:
        if not turn["content"] and form.empty != "text":
            del turn["content"]
            if form.empty == "null":
                turn["content"] = None
        turn["tool_calls"] = [_call(call, form, names) for call in message.tool_calls]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
        if message.tool_call_id in names:
            turn["name"] = names[message.tool_call_id]
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    return turn


def _call(call: ToolCall, form: Form, names: dict[str, str]) -> dict[str, Any]:
    names[call.id] = call.name
    arguments: Any = dict(call.arguments)
    if form.arguments == "json":
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": arguments}}


def _check_shape(message: Mapping[str, Any], where: str) -> None:
    """What a message given as a dictionary must be, for everything here that looks into it."""
    for key in ("role", "tool_call_id"):
        if not isinstance(message.get(key, ""), str | None):
            raise UsageError(f"{where}.{key}: expected a string, got {type(message[key]).__name__}")
    if not (calls := message.get("tool_calls")):
        return
    if isinstance(calls, str) or not isinstance(calls, Sequence):
        raise UsageError(f"{where}.tool_calls: expected a list, got {type(calls).__name__}")
    for index, call in enumerate(calls):
        function = call.get("function", call) if isinstance(call, Mapping) else call
        if not isinstance(function, Mapping):
            raise UsageError(
                f"{where}.tool_calls[{index}]: expected an object with a function, got {type(function).__name__}"
            )


def replaced(conversation: Conversation, index: int, *new: Message) -> Conversation:
    """The conversation with the message at ``index`` replaced by ``new``."""
    messages = conversation.messages
    return evolve(conversation, messages=(*messages[:index], *new, *messages[index + 1 :]))

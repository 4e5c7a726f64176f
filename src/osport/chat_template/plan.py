"""What adapting a conversation gives, and the workbench on which it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import define, evolve, field, frozen

from osport.chat_template import canary
from osport.chat_template.conversation import Conversation, wire_messages, wire_tools
from osport.chat_template.report import Finding
from osport.chat_template.tool_calls import parse_tool_calls
from osport.core.types import Completion, Message
from osport.errors import OsportError

if TYPE_CHECKING:
    from osport.chat_template.template import ChatTemplate

__all__ = ["Change", "Plan", "Work"]


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
    changes: tuple[Change, ...]
    ids: Mapping[str, str] = field(factory=dict)
    tools_as_text: bool = False
    findings: tuple[Finding, ...] = ()

    def restore(self, completion: Completion) -> Completion:
        """The answer in the caller's terms: call ids are mapped back, calls written as text are parsed.

        Raises :class:`~osport.errors.OutputError` for a call that cannot be parsed.
        """
        if self.tools_as_text and not completion.tool_calls:
            text, calls = parse_tool_calls(completion.text, "hermes")
            completion = evolve(completion, text=text, tool_calls=calls)
        calls = tuple(evolve(call, id=self.ids.get(call.id, call.id)) for call in completion.tool_calls)
        return evolve(completion, tool_calls=calls)


@define
class Work:
    """The conversation while steps change it, and what they did."""

    conversation: Conversation
    template: ChatTemplate
    changes: list[Change] = field(factory=list)
    ids: dict[str, str] = field(factory=dict)
    tools_as_text: bool = False

    def changed(self, what: str, place: str, why: str, *, reversible: bool) -> None:
        """Write down a step."""
        self.changes.append(Change(what, place, why, reversible))

    def messages(self, new: list[Message]) -> None:
        """Put other messages in place of those of the conversation."""
        self.conversation = evolve(self.conversation, messages=tuple(new))

    def keeps(self, conversation: Conversation) -> bool:
        """Whether the canary finds the conversation whole."""
        formed = evolve(conversation, form=self.template.capabilities.form)
        try:
            found = canary.check(self.template._write, wire_messages(formed), wire_tools(formed.tools))
        except OsportError:
            return False
        return not any(finding.severity == "error" for finding in found)

"""What of a streamed answer is meant for the reader, for engines that leave reasoning and tool calls in the text."""

from __future__ import annotations

from osport.chat_template import ChatTemplate

__all__ = ["VisibleText"]


class VisibleText:
    """Takes the pieces of one answer; ``push`` returns what is certain to be content.

    Reasoning is held back until it is over; with tools, or in a form that mixes both, everything is held back to
    the end. ``shown`` is all that was returned so far.
    """

    def __init__(self, template: ChatTemplate | None, *, prompt: str, tools: bool) -> None:
        family = template.family if template is not None else None
        marks = [mark.strip() for mark in family.reasoning] if family is not None else []
        self._hold_all = family is not None and (family.calls == "harmony" or (tools and bool(family.calls)))
        self._opens, self._closes = marks if marks else ("", "")
        self._inside = bool(marks) and prompt.rstrip().endswith(self._opens)
        self._plain = not marks and not self._hold_all
        self._held = ""
        self.shown = ""

    def push(self, piece: str) -> str:
        """Take the next piece of the raw text."""
        if not self._plain:
            self._held += piece
            piece = "" if self._hold_all else self._released()
        self.shown += piece
        return piece

    def _released(self) -> str:
        begun = self._held.lstrip()
        if self._inside or begun.startswith(self._opens):
            _, closed, content = begun.partition(self._closes)
            content = content.lstrip()
            if not (closed and content):
                return ""
        elif self._opens.startswith(begun):
            return ""
        else:
            content = self._held
        self._plain = True
        return content

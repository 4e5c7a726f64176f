"""The form of an answer behind a thought, told apart while the answer is written."""

from __future__ import annotations

from osport.core.thought import Thought

__all__ = ["ThoughtText"]

MOST_LINE_BREAKS = 2


class ThoughtText:
    """Takes the pieces of one answer; ``push`` returns what belongs to the form. Without a thought that is all.

    ``raw`` is all that was taken, ``shown`` all that was returned.
    """

    def __init__(self, thought: Thought | None) -> None:
        self._thought = thought
        self._begun = thought is None
        self._breaks = MOST_LINE_BREAKS
        self.raw = ""
        self.shown = ""

    @property
    def over(self) -> bool:
        """Whether the closing mark has come; True without a thought."""
        return self._thought is None or self._thought.closing in self.raw

    @property
    def reasoning(self) -> str | None:
        """What was thought so far, without its marks and the space around it; None where there is no thought."""
        if self._thought is None:
            return None
        begun = self.raw.removeprefix(self._thought.opening or "")
        return begun.partition(self._thought.closing)[0].strip()

    def push(self, piece: str) -> str:
        """Take the next piece of the raw text."""
        self.raw += piece
        if self._thought is not None and not self._begun:
            _, closed, piece = self.raw.partition(self._thought.closing)
            if not closed:
                return ""
            self._begun = True
        while self._thought is not None and self._breaks and piece.startswith("\n"):
            piece, self._breaks = piece[1:], self._breaks - 1
        if piece:
            self._breaks = 0
        self.shown += piece
        return piece

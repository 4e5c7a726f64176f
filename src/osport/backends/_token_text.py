"""From pieces of bytes to text that may be shown: whole characters, and nothing that may become a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

__all__ = ["TokenText"]


class TokenText:
    """Collects the bytes of tokens. ``push`` returns what is certain to belong to the answer."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stopped = False
        self._stops = tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def push(self, piece: bytes) -> str:
        """Take the bytes of one token; after this ``stopped`` says whether a stop string came."""
        return self._release(self._held + self._decoder.decode(piece), final=False)

    def finish(self) -> str:
        """What was held back and is now certain; an incomplete character becomes U+FFFD."""
        if self.stopped:
            return ""
        return self._release(self._held + self._decoder.decode(b"", final=True), final=True)

    def _release(self, text: str, *, final: bool) -> str:
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            text = text[: min(found)]
            final = True
        keep = 0 if final else self._beginning_of_a_stop(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _beginning_of_a_stop(self, text: str) -> int:
        """Length of the longest end of the text with which some stop string begins."""
        lengths = (
            length
            for stop in self._stops
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        return max(lengths, default=0)

"""One finding: what, where, and what to do."""

from __future__ import annotations

from typing import Literal, get_args

from attrs import field, frozen, validators

__all__ = ["Finding", "Level"]

Level = Literal["ok", "note", "problem"]
"""``note``: worth knowing, nothing is broken. ``problem``: something does not work, or not as it seems to."""


@frozen
class Finding:
    """``what`` is so at ``where``; ``remedy`` says what to do, empty where nothing is to be done."""

    level: Level = field(validator=validators.in_(get_args(Level)))
    area: str
    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.level:<8} {self.area:<10} {self.where}: {self.what}"
        return f"{text}\n{'':<20}-> {self.remedy}" if self.remedy else text

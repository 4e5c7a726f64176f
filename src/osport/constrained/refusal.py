"""The errors for a keyword that an engine would not enforce, with its place kept for those who repair it."""

from __future__ import annotations

from osport.constrained.schema import NodePath, json_path
from osport.errors import UnsupportedFeature

__all__ = ["KeywordRefused", "Misread"]


class Misread(Exception):
    """A schema that llguidance would read wrongly, whatever the words; never leaves this package."""

    def __init__(self, keyword: str, why: str) -> None:
        super().__init__(f"{keyword} would be misread: {why}")


class KeywordRefused(UnsupportedFeature):
    """A keyword of a schema that an engine would ignore. ``path`` leads to the keyword, from the root."""

    def __init__(
        self, keyword: str, path: NodePath, engine: str, *, reason: str = "", alternatives: tuple[str, ...] = ()
    ) -> None:
        what = f"the keyword {keyword}" if keyword else "the schema"
        super().__init__(f"{what} at {json_path(path)}", engine, reason=reason, alternatives=alternatives)
        self.keyword = keyword
        self.path = path

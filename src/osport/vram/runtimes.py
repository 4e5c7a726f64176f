"""Runtimes as profiles: what each keeps in memory, by version."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from osport.data import load
from osport.errors import UsageError

__all__ = ["Runtime"]


@frozen
class Runtime:
    """One runtime at one version; ``rules`` are the row of ``data/runtimes.toml`` with the version's changes."""

    name: str
    version: str
    rules: Mapping[str, Any]

    @classmethod
    def named(cls, text: str) -> Runtime:
        """``llama.cpp``, ``vllm@0.20``, ``llama-server@2025``: a name and, after ``@``, a version.

        Raises UsageError for an unknown runtime, naming the nearest.
        """
        name, _, asked = text.partition("@")
        known = {key: row for key, row in load("runtimes.toml").items() if isinstance(row, dict) and "versions" in row}
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.4) or sorted(known)
            raise UsageError(f"unknown runtime {name!r}; nearest known: {', '.join(near)}")
        versions = known[name]["versions"]
        chosen = versions[0]
        if asked:
            wanted = _numbers(asked)
            named = [row for row in versions if row["name"] == asked]
            older = [row for row in versions if wanted and row["since"] <= wanted]
            if not named and not older:
                raise UsageError(
                    f"{name} has no version {asked!r}; known: {', '.join(row['name'] for row in versions)}"
                )
            chosen = (named or older)[0]
        rules = {**known[name], **{key: value for key, value in chosen.items() if key not in {"name", "since"}}}
        return cls(name, asked or chosen["name"], rules)

    def __getitem__(self, key: str) -> Any:
        return self.rules[key]

    @property
    def is_vllm(self) -> bool:
        """Whether the runtime manages a paged pool."""
        return bool(self.rules["family"] == "vllm")

    @property
    def label(self) -> str:
        """Name and version, for messages."""
        return f"{self.name} {self.version}"

    @property
    def source(self) -> str:
        """Where the rules were read."""
        return str(self.rules["source"])


def _numbers(text: str) -> list[int]:
    match = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return [int(part) for part in match.group(1).split(".")] if match else []

r"""Schemas that llguidance (seen in 1.9.1) reads wrongly, written so that it reads them rightly.

* ``additionalItems`` is dropped where an applicator stands between it and ``items``; its newer spelling is safe.
* In a pattern for a JSON string, a class with all control characters (the line break may be missing) lets ``\"`` and
  ``\\`` in, though it excludes the quotation mark or the backslash: ``[^"]``, ``[^\\]``. Without NUL it is right.
"""

from __future__ import annotations

import json
import re
from typing import Any

from osport.constrained.patterns import parts_of
from osport.constrained.refusal import KeywordRefused
from osport.constrained.schema import walk

__all__ = ["needs_newer_words", "with_safe_classes"]

WHY = "it would let a quotation mark or a backslash through"


def needs_newer_words(text: str) -> bool:
    """Whether the schema's text must not be handed over in the words of an older draft."""
    return '"additionalItems"' in text


def with_safe_classes(text: str) -> str:
    """The schema's text with NUL taken out of the classes that are misread: strings with one are not offered then.

    Raises :class:`KeywordRefused` for a class that cannot be mended so.
    """
    if "[" not in text or ("pattern" not in text):
        return text
    if "[^" not in text and "x00" not in text and "u0000" not in text:
        return text
    schema = json.loads(text)
    changed = False
    for path, node in walk(schema):
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("pattern"), str):
            safe = safe_pattern(node["pattern"])
            if safe is None:
                raise KeywordRefused("pattern", (*path, "pattern"), "llguidance", reason=WHY)
            changed = changed or safe != node["pattern"]
            node["pattern"] = safe
        rules: Any = node.get("patternProperties")
        for pattern in rules if isinstance(rules, dict) else ():
            # What such a pattern does not match is ruled by additionalProperties, so it cannot be narrowed.
            if safe_pattern(pattern) != pattern:
                raise KeywordRefused("patternProperties", (*path, "patternProperties"), "llguidance", reason=WHY)
    return json.dumps(schema) if changed else text


def safe_pattern(pattern: str) -> str | None:
    """The pattern without NUL in its classes that exclude a quotation mark or a backslash; None where that fails."""
    parts = parts_of(pattern)
    for at, part in enumerate(parts):
        if len(part) < 2 or part[0] != "[":
            continue
        shape = re.compile(part)
        if shape.match("\0") and not (shape.match('"') and shape.match("\\")):
            if part[1] != "^" or part[2] == "]":
                return None
            parts[at] = rf"[^\x00{part[2:]}"
    return "".join(parts)

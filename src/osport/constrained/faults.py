r"""Schemas that llguidance (seen in 1.9.1) reads wrongly, written so that it reads them rightly.

* ``additionalItems`` is dropped where an applicator stands between it and ``items``; its newer spelling is safe.
* In a pattern for a JSON string, a class with all control characters (the line break may be missing) lets ``\"`` and
  ``\\`` in, though it excludes the quotation mark or the backslash: ``[^"]``, ``[^\\]``. Without NUL it is right.
* What stands beside a ``$ref`` is heeded in all drafts; before 2019-09 it says nothing.
* ``$recursiveRef`` is dropped outside draft 2019-09.
* ``patternProperties`` and ``additionalProperties`` do not know of each other with an applicator between them.
* Of some formats it takes too much: a 29th of February in any year, names that are too long, hosts of future kinds.
* ``format: uri`` does not compile in the llguidance inside some servers, which then answer unconstrained.

Those of numbers: :mod:`osport.constrained.safe_numbers`.
"""

from __future__ import annotations

import json
from typing import Any

from osport.constrained.formats import BRACKETED, PATTERNS
from osport.constrained.keywords import EVER_CONSTRAINING
from osport.constrained.patterns import safe_pattern
from osport.constrained.refusal import Misread
from osport.constrained.schema import ref_overrides, walk

__all__ = ["needs_newer_words", "with_exact_formats", "with_names_together", "with_safe_classes", "with_uri_spelt_out"]

APPLICATORS = ("$ref", "allOf", "anyOf", "const", "enum", "oneOf", "not", "if")


def needs_newer_words(text: str) -> bool:
    """Whether the schema's text must not be handed over in the words of an older draft."""
    if not any(word in text for word in ('"additionalItems"', '"$recursiveRef"', '"$ref"')):
        return False
    schema = json.loads(text)
    nodes = [node for _, node in walk(schema) if isinstance(node, dict)]
    if any(
        "$recursiveRef" in node or ("additionalItems" in node and not node.keys().isdisjoint(APPLICATORS))
        for node in nodes
    ):
        return True
    return any("$ref" in node and len(node.keys() & EVER_CONSTRAINING) > 1 for node in nodes) and ref_overrides(schema)


def with_names_together(text: str) -> str:
    """The schema's text with patterns for names beside what rules the other names.

    Raises :class:`Misread` for a ``$recursiveRef``, which the newest draft does not know.
    """
    if '"$recursiveRef"' not in text and ('"patternProperties"' not in text or '"additionalProperties"' not in text):
        return text
    schema = json.loads(text)
    changed = False
    for _, node in walk(schema):
        if not isinstance(node, dict):
            continue
        if "$recursiveRef" in node:
            raise Misread("$recursiveRef", "it would be dropped")
        if {"patternProperties", "additionalProperties"} <= node.keys() and not node.keys().isdisjoint(APPLICATORS):
            changed = True
            words = [(word, node.pop(word)) for word in list(node)]
            patterns = next(value for word, value in words if word == "patternProperties")
            for word, value in words:
                if word == "additionalProperties":
                    node["patternProperties"] = patterns
                if word != "patternProperties":
                    node[word] = value
    return json.dumps(schema) if changed else text


def with_safe_classes(text: str) -> str:
    """The schema's text with NUL taken out of the classes that are misread: strings with one are not offered then.

    Raises :class:`Misread` for a class that cannot be mended so.
    """
    if "[" not in text or ("pattern" not in text):
        return text
    if "[^" not in text and "x00" not in text and "u0000" not in text:
        return text
    schema = json.loads(text)
    changed = False
    for _, node in walk(schema):
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("pattern"), str):
            safe = safe_pattern(node["pattern"])
            if safe is None:
                raise Misread("pattern", "it would let a quotation mark or a backslash through")
            changed = changed or safe != node["pattern"]
            node["pattern"] = safe
        rules: Any = node.get("patternProperties")
        for pattern in rules if isinstance(rules, dict) else ():
            # What such a pattern does not match is ruled by additionalProperties, so it cannot be narrowed.
            if safe_pattern(pattern) != pattern:
                raise Misread("patternProperties", "it would let a quotation mark or a backslash through")
    return json.dumps(schema) if changed else text


# What says of a format what llguidance does not: instead of the format, or beside it.
INSTEAD = {name: {"pattern": f"^(?:{PATTERNS[name]})$"} for name in ("date", "date-time", "email")}
BESIDE: dict[str, dict[str, Any]] = {"hostname": {"maxLength": 253}, "uri": {"pattern": r"^(?:[^\[]|\[[^v])*$"}}


def with_exact_formats(text: str) -> str:
    """The schema's text with the formats of which llguidance takes too much as osport verifies them."""
    if '"format"' not in text:
        return text
    schema = json.loads(text)
    changed = False
    for _, node in list(walk(schema)):
        if not isinstance(node, dict) or not isinstance(name := node.get("format"), str):
            continue
        if name in INSTEAD or name in BESIDE:
            changed = True
            if name in INSTEAD:
                del node["format"]
            add(node, INSTEAD.get(name) or BESIDE[name])
    return json.dumps(schema) if changed else text


def add(node: dict[str, Any], rule: dict[str, Any]) -> None:
    """Make a node demand one more thing."""
    if node.keys().isdisjoint((*rule, "$ref")):
        node |= rule
    else:
        node["allOf"] = [*node.get("allOf", ()), rule]


def with_uri_spelt_out(text: str) -> str:
    """The schema's text with osport's own pattern for the format ``uri``, less the hosts in brackets."""
    if '"uri"' not in text:
        return text
    schema = json.loads(text)
    for _, node in list(walk(schema)):
        if isinstance(node, dict) and node.get("format") == "uri":
            del node["format"]
            # Which of those are IPv6 addresses the pattern does not say, and a mask must not allow too much.
            add(node, {"pattern": f"^(?:{PATTERNS['uri'].replace(BRACKETED, '')})$"})
    return json.dumps(schema)

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
from collections.abc import Iterable
from typing import Any, TypeGuard

from osport.constrained.formats import BRACKETED, PATTERNS
from osport.constrained.keywords import EVER_CONSTRAINING
from osport.constrained.patterns import safe_pattern
from osport.constrained.refusal import Misread
from osport.constrained.safe_numbers import DOUBTFUL_WORDS, is_doubtful, with_safe_numbers
from osport.constrained.schema import ref_overrides
from osport.constrained.tree import objects_of

__all__ = ["Reading", "needs_newer_words", "read_rightly", "with_uri_spelt_out"]

APPLICATORS = ("$ref", "allOf", "anyOf", "const", "enum", "oneOf", "not", "if")


class Reading:
    """A schema's text and what stands in it, read once for all that looks for faults.

    ``nodes``: all its objects. ``words``: their keywords. ``doubtful_numbers``: whether one may be read wrongly.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.doubtful_numbers = False
        self.schema: Any = json.loads(text, parse_int=self._int, parse_float=self._float)
        self.nodes = objects_of(self.schema)
        self.words: set[str] = set().union(*self.nodes)
        self.doubtful_numbers |= not self.words.isdisjoint(DOUBTFUL_WORDS)

    def _int(self, text: str) -> int:
        self.doubtful_numbers |= is_doubtful(text)
        return int(text)

    def _float(self, text: str) -> float:
        self.doubtful_numbers |= is_doubtful(text)
        return float(text) or 0  # minus nought is another number to llguidance


def needs_newer_words(reading: Reading) -> bool:
    """Whether the schema must not be handed over in the words of an older draft."""
    if reading.words.isdisjoint(("additionalItems", "$recursiveRef", "$ref")):
        return False
    nodes = reading.nodes
    if any(
        "$recursiveRef" in node or ("additionalItems" in node and not node.keys().isdisjoint(APPLICATORS))
        for node in nodes
    ):
        return True
    beside = any("$ref" in node and len(node) > 1 and len(node.keys() & EVER_CONSTRAINING) > 1 for node in nodes)
    return beside and ref_overrides(reading.schema)


# What says of a format what llguidance does not: instead of the format, or beside it.
INSTEAD = {name: {"pattern": f"^(?:{PATTERNS[name]})$"} for name in ("date", "date-time", "email")}
BESIDE: dict[str, dict[str, Any]] = {"hostname": {"maxLength": 253}, "uri": {"pattern": r"^(?:[^\[]|\[[^v])*$"}}


def read_rightly(reading: Reading) -> str:
    """The schema's text in words that llguidance reads as they are meant; the reading is spent.

    Raises :class:`Misread` for what has no such words.
    """
    nodes, words = reading.nodes, reading.words
    formats = "format" in words and any(is_inexact(node.get("format")) for node in nodes)
    # Of the classes of characters only these may hold all control characters.
    wide = any(mark in reading.text for mark in ("[^", "x00", "u0000"))
    classes = formats or (wide and not words.isdisjoint(("pattern", "patternProperties")))
    names = {"patternProperties", "additionalProperties"} <= words or "$recursiveRef" in words
    if not (classes or names or reading.doubtful_numbers):
        return reading.text
    if formats:
        nodes += with_exact_formats(nodes)
    if classes:
        with_safe_classes(nodes)
    if names:
        with_names_together(nodes)
    if reading.doubtful_numbers:
        with_safe_numbers(nodes)
    return json.dumps(reading.schema)


def is_inexact(name: object) -> TypeGuard[str]:
    """Whether llguidance takes too much for values of the format."""
    return isinstance(name, str) and (name in INSTEAD or name in BESIDE)


def with_exact_formats(nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the formats of which llguidance takes too much as osport verifies them; the objects that this adds."""
    added = []
    for node in nodes:
        if is_inexact(name := node.get("format")):
            if name in INSTEAD:
                del node["format"]
            added += add(node, INSTEAD.get(name) or BESIDE[name])
    return added


def add(node: dict[str, Any], rule: dict[str, Any]) -> list[dict[str, Any]]:
    """Make a node demand one more thing; the objects that this adds."""
    if node.keys().isdisjoint((*rule, "$ref")):
        node |= rule
        return []
    own = dict(rule)
    node["allOf"] = [*node.get("allOf", ()), own]
    return [own]


def with_safe_classes(nodes: Iterable[dict[str, Any]]) -> None:
    """Take NUL out of the classes that are misread: strings with one are not offered then.

    Raises :class:`Misread` for a class that cannot be mended so.
    """
    for node in nodes:
        if isinstance(node.get("pattern"), str):
            safe = safe_pattern(node["pattern"])
            if safe is None:
                raise Misread("pattern", "it would let a quotation mark or a backslash through")
            node["pattern"] = safe
        rules: Any = node.get("patternProperties")
        for pattern in rules if isinstance(rules, dict) else ():
            # What such a pattern does not match is ruled by additionalProperties, so it cannot be narrowed.
            if safe_pattern(pattern) != pattern:
                raise Misread("patternProperties", "it would let a quotation mark or a backslash through")


def with_names_together(nodes: Iterable[dict[str, Any]]) -> None:
    """Put patterns for names beside what rules the other names.

    Raises :class:`Misread` for a ``$recursiveRef``, which the newest draft does not know.
    """
    for node in nodes:
        if "$recursiveRef" in node:
            raise Misread("$recursiveRef", "it would be dropped")
        if {"patternProperties", "additionalProperties"} <= node.keys() and not node.keys().isdisjoint(APPLICATORS):
            words = [(word, node.pop(word)) for word in list(node)]
            patterns = next(value for word, value in words if word == "patternProperties")
            for word, value in words:
                if word == "additionalProperties":
                    node["patternProperties"] = patterns
                if word != "patternProperties":
                    node[word] = value


def with_uri_spelt_out(text: str) -> str:
    """The schema's text with osport's own pattern for the format ``uri``, less the hosts in brackets."""
    if '"uri"' not in text:
        return text
    schema = json.loads(text)
    for node in objects_of(schema):
        if node.get("format") == "uri":
            del node["format"]
            # Which of those are IPv6 addresses the pattern does not say, and a mask must not allow too much.
            add(node, {"pattern": f"^(?:{PATTERNS['uri'].replace(BRACKETED, '')})$"})
    return json.dumps(schema)

"""What of a JSON Schema each engine enforces, and the refusal of the rest.

An engine that drops a keyword does so without a word, and which keywords it reads depends on the
type of the node and on what stands beside them. A table lists what was seen to be enforced, by a
probe of each keyword with an instance that breaks only it; whatever is not listed is refused.
llguidance needs no table: it refuses by itself what it does not enforce.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from osport.constrained.dialects import taken
from osport.constrained.keywords import ANNOTATIONS, EVER_CONSTRAINING
from osport.constrained.refusal import KeywordRefused
from osport.constrained.schema import Schema, json_path, walk
from osport.constrained.values import has_type
from osport.constrained.weaken import weakened
from osport.errors import UsageError

__all__ = ["TABLES", "Support", "Table", "refuse_unless_enforced", "support_of"]

BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
LENGTHS = frozenset({"minLength", "maxLength"})
# Read first by every converter, which then leaves what stands beside them unread.
ALONE = ("$ref", "anyOf", "oneOf", "const", "enum")
# In a pattern these let a quotation mark or a line break into the string, so that the output is no JSON.
UNSAFE_IN_PATTERN = re.compile(r"(?<!\\)(?:\\\\)*(?:\.|\[\^|\\[DSW])")
NAIVE_PATTERN = re.compile(r"^\^.*\$$", re.DOTALL)


@frozen
class Table:
    """What one engine enforces exactly: keywords by the type of the node that they stand in."""

    engine: str
    keywords: Mapping[str, frozenset[str]]
    formats: frozenset[str]
    alternatives: tuple[str, ...] = ()
    first_alternative: bool = False
    """Whether the engine stops at the first alternative that matches, so that 1 shuts out 12."""
    patterns_into_json: bool = True
    """Whether the engine keeps a pattern from breaking the JSON string around it."""

    def dropped(self, node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Keywords of a node that the engine would not enforce, each with the reason."""
        rules = {word: value for word, value in node.items() if word in EVER_CONSTRAINING and word not in ANNOTATIONS}
        first = next((word for word in ALONE if word in rules), None)
        if first is not None:
            yield from dropped_beside(first, rules)
            if self.first_alternative and first == "enum" and shut_out(rules["enum"]):
                yield "enum", "it shuts out a number that begins with another one"
            return
        types = types_of(rules)
        enforced = frozenset[str]().union(*(self.keywords.get(kind, frozenset()) for kind in types)) | {"type"}
        for word in rules:
            if word not in enforced:
                yield word, f"it drops it on {' or '.join(types) or 'a node without a type'}"
            elif word in BOUNDS | {"multipleOf"} and "number" in types and word not in self.keywords["number"]:
                yield word, "it drops it on numbers that need not be integers"
        if "format" in enforced & set(rules) and rules["format"] not in self.formats:
            yield "format", f"it knows only {', '.join(sorted(self.formats))}"
        if "pattern" in enforced & set(rules):
            if LENGTHS & set(rules) or "format" in rules:
                yield "pattern", "it reads either the pattern or the lengths"
            elif not NAIVE_PATTERN.search(rules["pattern"]) or "(?" in rules["pattern"]:
                yield "pattern", "it takes every pattern for an anchored one without look-around"
            elif not self.patterns_into_json and UNSAFE_IN_PATTERN.search(rules["pattern"]):
                yield "pattern", "what it makes of such a class can break the JSON string"
        undeclared = [name for name in rules.get("required", ()) if name not in rules.get("properties", {})]
        if undeclared:
            yield "required", f"it drops names without a property: {', '.join(undeclared)}"
        patterns = rules.get("patternProperties", {})
        if len(patterns) > 1 or any(re.search(p, name) for p in patterns for name in rules.get("properties", {})):
            yield "patternProperties", "it drops what overlaps"


TABLES = {
    # Source: the converter of llama.cpp as of 2026 and probes of it.
    "llama.cpp-gbnf": Table(
        "llama.cpp-gbnf",
        {
            "string": LENGTHS | {"format"},
            "integer": BOUNDS,
            "number": frozenset(),
            "array": frozenset({"items", "minItems", "maxItems"}),
            "object": frozenset({"properties", "required", "additionalProperties"}),
        },
        frozenset({"date", "date-time", "uuid"}),
        alternatives=("llama_cpp",),
    ),
    # Source: probes of xgrammar 0.2.8 with strict_mode off.
    "xgrammar": Table(
        "xgrammar",
        {
            "string": LENGTHS | {"format", "pattern"},
            "integer": BOUNDS | {"multipleOf"},
            "number": BOUNDS,
            "array": frozenset({"items", "minItems", "maxItems", "prefixItems"}),
            "object": frozenset({"properties", "required", "additionalProperties", "patternProperties"}),
        },
        frozenset({"date", "date-time", "email", "hostname", "ipv4", "uri", "uuid"}),
    ),
    # Source: probes of outlines-core 0.2.14.
    "outlines": Table(
        "outlines",
        {
            "string": LENGTHS | {"format", "pattern"},
            "integer": frozenset(),
            "number": frozenset(),
            "array": frozenset({"items", "minItems", "maxItems", "prefixItems"}),
            "object": frozenset({"properties", "required", "additionalProperties"}),
        },
        frozenset({"date", "date-time", "email", "uri", "uuid"}),
        first_alternative=True,
        patterns_into_json=False,
    ),
}


@frozen
class Support:
    """How one keyword of a schema fares at one engine: ``exact``, ``checked`` (verified only) or ``refused``."""

    keyword: str
    path: str
    status: str
    why: str = ""


def support_of(schema: Schema, engine: str, *, check: bool) -> list[Support]:
    """Each constraining keyword of a schema with its place and its fate at an engine.

    Raises :class:`~osport.errors.UsageError` for an engine that osport has no knowledge of.
    """
    lost: dict[str, str] = {}

    def enforce(weaker: Any) -> None:
        try:
            refuse_unless_enforced(weaker, engine)
        except KeywordRefused as refusal:
            lost.setdefault(json_path(refusal.path), refusal.reason)
            raise

    _, dropped = weakened(schema, enforce)
    for text in dropped:
        keyword, _, place = text.partition(" at ")
        lost.setdefault(place, f"not enforced together with {keyword}")
    rows = []
    for path, node in walk(schema):
        for keyword in node if isinstance(node, Mapping) else ():
            if keyword in EVER_CONSTRAINING:
                place = json_path((*path, keyword))
                status = "exact" if place not in lost else "checked" if check else "refused"
                rows.append(Support(keyword, place, status, lost.get(place, "")))
    return rows


def refuse_unless_enforced(schema: Schema, engine: str) -> None:
    """Raise :class:`~osport.errors.UnsupportedFeature` for the first keyword that the engine would not enforce."""
    if engine == "llguidance":
        taken(json.dumps(schema))
        return
    table = TABLES.get(engine)
    if table is None:
        raise UsageError(f"unknown engine {engine!r}; known: llguidance, {', '.join(sorted(TABLES))}")
    for path, node in walk(schema):
        if isinstance(node, Mapping):
            for keyword, reason in table.dropped(node):
                raise KeywordRefused(keyword, (*path, keyword), engine, reason=reason, alternatives=table.alternatives)
        elif path and path[-1] not in ("additionalProperties", "additionalItems"):
            raise KeywordRefused("", path, engine, reason="a boolean schema", alternatives=table.alternatives)


def dropped_beside(first: str, rules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is lost beside a keyword that a converter reads alone."""
    values = rules["enum"] if first == "enum" else [rules["const"]] if first == "const" else None
    for keyword in rules:
        if keyword == first:
            continue
        if keyword == "type" and values is not None and all(has_type(value, rules["type"]) for value in values):
            continue
        yield keyword, f"it reads {first} and nothing beside it"
    if first == "oneOf":
        types = [types_of(branch) if isinstance(branch, Mapping) else () for branch in rules["oneOf"]]
        names = [kind for kinds in types for kind in {"number" if kind == "integer" else kind for kind in kinds}]
        if not all(types) or len(set(names)) < len(names):
            yield "oneOf", "it takes it for anyOf, which is the same only for branches of different types"


def shut_out(values: Sequence[Any]) -> bool:
    """Whether the JSON text of one value begins with that of another."""
    texts = [json.dumps(value) for value in values]
    return any(one != other and other.startswith(one) for one in texts for other in texts)


def types_of(node: Mapping[str, Any]) -> tuple[str, ...]:
    """The types that a node states, or that converters conclude from its keywords."""
    stated = node.get("type")
    if stated is None:
        return ("object",) if "properties" in node else ("array",) if "items" in node else ()
    return (stated,) if isinstance(stated, str) else tuple(stated)

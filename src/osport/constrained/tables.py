"""What of a JSON Schema each engine and server enforces, seen by probes or said by its documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import evolve, frozen

from osport.constrained.keywords import ANNOTATIONS, EVER_CONSTRAINING
from osport.constrained.patterns import matches
from osport.constrained.values import has_type

__all__ = ["TABLES", "Table"]

BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
LENGTHS = frozenset({"minLength", "maxLength"})
OBJECT = frozenset({"properties", "required", "additionalProperties"})
DEFINITIONS = ("$defs", "definitions")
# Read first by every converter, which then leaves what stands beside them unread.
ALONE = ("$ref", "anyOf", "oneOf", "const", "enum")
# In a pattern these let a quotation mark or a line break into the string, so that the output is no JSON.
UNSAFE_IN_PATTERN = re.compile(r"(?<!\\)(?:\\\\)*(?:\.|\[\^|\\[DSW])")
# llama.cpp and xgrammar refuse what is beyond; the ends themselves are llama.cpp's word for "no bound".
LARGEST_BOUND = 2**63 - 1
NAIVE_PATTERN = re.compile(r"^\^.*\$$", re.DOTALL)


@frozen
class Table:
    """What one engine enforces exactly: keywords by the type of the node that they stand in."""

    engine: str
    keywords: Mapping[str, frozenset[str]]
    formats: frozenset[str]
    alternatives: tuple[str, ...] = ()
    patterns_into_json: bool = True
    """Whether the engine keeps a pattern from breaking the JSON string around it."""
    strict: bool = False
    """Whether it takes only what is declared: closed objects, arrays with items, a type everywhere. The mask engines
    write what is not declared in a form of their own, in which a JSON value may have no room."""
    all_required: bool = False
    """Whether it takes no property that may be left out."""
    most_items_asked: int | None = None
    """The largest ``minItems`` that it takes; None: any."""
    largest_multiple: int | None = None
    """The largest ``multipleOf`` that it enforces; None: any."""
    recursive: bool = True
    """Whether a definition may lead back to itself."""
    object_at_root: bool = False
    """Whether the whole value must be an object."""

    def refused_as_a_whole(self, schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Keywords at the root of a schema that the engine would not take there, each with the reason."""
        if self.object_at_root and schema.get("type") != "object":
            yield "type" if "type" in schema else "", "the whole value must be an object, stated by type"
        if not self.recursive and (name := recursive_definition(schema)):
            yield "$ref", f"the definition {name} leads back to itself"

    def dropped(self, node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Keywords of a node that the engine would not enforce, each with the reason."""
        rules = {word: value for word, value in node.items() if word in EVER_CONSTRAINING and word not in ANNOTATIONS}
        first = next((word for word in ALONE if word in rules), None)
        if first is not None:
            yield from dropped_beside(first, rules)
            return
        types = types_of(rules)
        enforced = frozenset[str]().union(*(self.keywords.get(kind, frozenset()) for kind in types)) | {"type"}
        for word in rules:
            if word not in enforced:
                yield word, f"it drops it on {' or '.join(types) or 'a node without a type'}"
            elif word in BOUNDS | {"multipleOf"} and "number" in types and word not in self.keywords["number"]:
                yield word, "it drops it on numbers that need not be integers"
            elif word in BOUNDS and not -LARGEST_BOUND < rules[word] < LARGEST_BOUND:
                yield word, "it reads bounds as integers of 64 bits"
        if "format" in enforced & set(rules) and rules["format"] not in self.formats:
            yield "format", f"it enforces only {', '.join(sorted(self.formats)) or 'none'} exactly"
        if "multipleOf" in enforced & set(rules):
            if BOUNDS & set(rules):
                yield "multipleOf", "it drops it beside bounds"
            elif self.largest_multiple is not None and rules["multipleOf"] > self.largest_multiple:
                yield "multipleOf", f"it drops those above {self.largest_multiple}"
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
        if self.strict:
            yield from undeclared_parts(rules, types)
        optional = [name for name in rules.get("properties", {}) if name not in rules.get("required", ())]
        if self.all_required and optional:
            yield "required", f"it takes only properties that are required; allow null for {', '.join(optional)}"
        if self.most_items_asked is not None and rules.get("minItems", 0) > self.most_items_asked:
            yield "minItems", f"it takes at most {self.most_items_asked}"
        patterns = rules.get("patternProperties", {})
        if not all(NAIVE_PATTERN.search(pattern) for pattern in patterns):
            yield "patternProperties", "it takes every pattern for an anchored one"
        if len(patterns) > 1 or any(matches(p, name) for p in patterns for name in rules.get("properties", {})):
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
            "object": OBJECT,
        },
        frozenset({"uuid"}),
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
            "object": OBJECT | {"patternProperties"},
        },
        # Its other formats take a 30th of February, or leave out an upper-case letter.
        frozenset({"uuid"}),
        strict=True,
        largest_multiple=1024,
    ),
    # Source: probes of outlines-core 0.2.14.
    "outlines": Table(
        "outlines",
        {
            "string": LENGTHS | {"format", "pattern"},
            "integer": frozenset(),
            "number": frozenset(),
            "array": frozenset({"items", "minItems", "maxItems", "prefixItems"}),
            "object": OBJECT,
        },
        frozenset(),
        patterns_into_json=False,
        strict=True,
    ),
    # Source: OpenAI's guide to structured outputs as of October 2026; its service answers 400 to what it does not take.
    "openai-strict": Table(
        "openai-strict",
        {
            "string": frozenset({"format", "pattern"}),
            "integer": BOUNDS | {"multipleOf"},
            "number": BOUNDS | {"multipleOf"},
            "array": frozenset({"items", "minItems", "maxItems"}),
            "object": OBJECT,
        },
        frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"}),
        strict=True,
        all_required=True,
        object_at_root=True,
    ),
    # Source: Anthropic's guide to structured outputs as of October 2026; 400 to what it does not take.
    "anthropic-strict": Table(
        "anthropic-strict",
        {
            "string": frozenset({"format", "pattern"}),
            "integer": frozenset(),
            "number": frozenset(),
            "array": frozenset({"items", "minItems"}),
            "object": OBJECT,
        },
        frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"}),
        strict=True,
        most_items_asked=1,
        recursive=False,
    ),
}
TABLES |= {
    # Ollama hands its schema on to llama.cpp. Of a server behind OpenAI's route nothing is known: taken for the same.
    "ollama": evolve(TABLES["llama.cpp-gbnf"], engine="ollama"),
    "openai-compatible": evolve(TABLES["llama.cpp-gbnf"], engine="openai-compatible"),
    # vLLM sends a schema with one of the words left out here to another engine, perhaps to one that drops more of it.
    "vllm-xgrammar": evolve(
        TABLES["xgrammar"],
        engine="vllm-xgrammar",
        keywords={
            kind: words - {"multipleOf", "patternProperties"} for kind, words in TABLES["xgrammar"].keywords.items()
        },
    ),
}


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


def types_of(node: Mapping[str, Any]) -> tuple[str, ...]:
    """The types that a node states, or that converters conclude from its keywords."""
    stated = node.get("type")
    if stated is None:
        return ("object",) if "properties" in node else ("array",) if "items" in node else ()
    return (stated,) if isinstance(stated, str) else tuple(stated)


def undeclared_parts(rules: Mapping[str, Any], types: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Where a node leaves open what a value holds. The keyword named is the one to add."""
    if not types:
        yield "type", "it takes only values of a stated type"
    if "object" in types and rules.get("additionalProperties") is not False:
        yield "additionalProperties", "it takes only objects with additionalProperties: false"
    if "array" in types and "items" not in rules:
        yield "items", "it takes only arrays with items"


def recursive_definition(schema: Mapping[str, Any]) -> str:
    """A reference that can be followed back to itself; empty when there is none."""
    leads: dict[str, set[str]] = {"#": references_in({k: v for k, v in schema.items() if k not in DEFINITIONS})}
    for holder in DEFINITIONS:
        for name, node in schema.get(holder, {}).items():
            leads[f"#/{holder}/{name}"] = references_in(node)
    for start in leads:
        reached: set[str] = set()
        pending = [start]
        while pending:
            for target in leads.get(pending.pop(), set()) - reached:
                reached.add(target)
                pending.append(target)
        if start in reached:
            return start
    return ""


def references_in(node: Any) -> set[str]:
    """The references that stand anywhere in a schema."""
    found: set[str] = set()
    pending = [node]
    while pending:
        at = pending.pop()
        if isinstance(at, dict):
            if isinstance(at.get("$ref"), str):
                found.add(at["$ref"])
            pending.extend(at.values())
        elif isinstance(at, list):
            pending.extend(at)
    return found

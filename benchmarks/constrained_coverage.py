"""How many real schemas are enforced, and whether the mask and the instances agree.

    python benchmarks/constrained_coverage.py FILE.jsonl.gz

The file has one schema a line: ``{"id", "schema", "tests": [{"v": bool, "d": instance}, ...]}``.
Prints, for osport and for llguidance alone: schemas compiled, schemas with every instance right, invalid
instances accepted, valid ones rejected, and the time to compile. A valid instance is written compactly
with its properties in the schema's order, which is the only order that a mask lets through.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections import Counter
from pathlib import Path

import jsonschema
import llguidance

from osport import ConstrainedOutput
from osport.constrained.bundle import bundled
from osport.constrained.dialects import taken
from osport.constrained.patterns import matches
from osport.errors import OsportError, UnsupportedFeature

BYTES = llguidance.LLTokenizer("byte")


def conjuncts(schema, definitions, value, into, depth=0):
    """The nodes of a bundle that speak about a value."""
    if isinstance(schema, bool) or depth > 20:
        return
    into.append(schema)

    def holds(branch):
        return isinstance(branch, bool) or jsonschema.Draft202012Validator({**branch, "$defs": definitions}).is_valid(
            value
        )

    inner = [definitions[schema["$ref"].removeprefix("#/$defs/")]] if "$ref" in schema else []
    inner += schema.get("allOf", [])
    inner += [branch for word in ("anyOf", "oneOf") for branch in schema.get(word, []) if holds(branch)]
    inner += [
        rule for name, rule in schema.get("dependentSchemas", {}).items() if isinstance(value, dict) and name in value
    ]
    if "if" in schema:
        inner += [schema["if"], schema.get("then", True)] if holds(schema["if"]) else [schema.get("else", True)]
    for branch in inner:
        conjuncts(branch, definitions, value, into, depth + 1)


def in_order(value, schemas, definitions):
    """The value with its properties in the schema's order, the undeclared ones last."""
    nodes = []
    for schema in schemas:
        conjuncts(schema, definitions, value, nodes)
    if isinstance(value, list):
        items = []
        for index, item in enumerate(value):
            rules = [
                node["prefixItems"][index] if index < len(node.get("prefixItems", [])) else node.get("items", True)
                for node in nodes
            ]
            items.append(in_order(item, rules, definitions))
        return items
    if not isinstance(value, dict):
        return value
    names = [name for node in nodes for name in node.get("properties", {}) if name in value]
    names += [name for node in nodes for name in node.get("required", []) if name in value]
    ordered = {}
    for name in [*dict.fromkeys(names), *(name for name in value if name not in names)]:
        rules = []
        for node in nodes:
            own = [node["properties"][name]] if name in node.get("properties", {}) else []
            own += [rule for pattern, rule in node.get("patternProperties", {}).items() if matches(pattern, name)]
            rules += own or [node.get("additionalProperties", True)]
        ordered[name] = in_order(value[name], rules, definitions)
    return ordered


class Alone:
    """llguidance with nothing around it."""

    def __init__(self, schema):
        if isinstance(schema, bool):
            schema = {} if schema else {"not": {}}
        options = {"whitespace_flexible": False}
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
        self.matcher = llguidance.LLMatcher(BYTES, grammar, log_level=0)
        if self.matcher.is_error():
            raise UnsupportedFeature("the schema", "llguidance", reason=self.matcher.get_error())

    def accepts(self, text):
        self.matcher.reset()
        tokens = BYTES.tokenize_bytes(text.encode())
        return self.matcher.try_consume_tokens(tokens) == len(tokens) and self.matcher.is_accepting()


def alone(schema):
    return "exact", Alone(schema)


def refusing(schema):
    return "exact", ConstrainedOutput.json_schema(schema).matcher()


def checking(schema):
    try:
        return refusing(schema)
    except UnsupportedFeature:
        return "checked", ConstrainedOutput.json_schema(schema, on_unsupported="check").matcher()


class Measured:
    """One way to compile: what became of all schemas, and the CPU seconds of each that compiled, by its id."""

    def __init__(self, name, compile_schema):
        self.name, self.compile_schema = name, compile_schema
        self.count, self.lost, self.seconds = Counter(), Counter(), {}

    def add(self, row, bundle):
        taken.cache_clear()
        started = time.process_time()
        try:
            kind, matcher = self.compile_schema(row["schema"])
        except OsportError as error:
            self.lost[type(error).__name__] += 1
            return
        self.seconds[row["id"]] = time.process_time() - started
        self.count[kind] += 1
        right = True
        for test in row["tests"]:
            forms = [test["d"]]
            if test["v"]:
                forms.append(in_order(test["d"], [bundle], bundle.get("$defs", {})))
            texts = (json.dumps(form, ensure_ascii=False, separators=(",", ":")) for form in forms)
            accepted = any(matcher.accepts(text) for text in texts)
            self.count[f"{kind} {'valid' if test['v'] else 'invalid'}"] += 1
            if accepted != test["v"]:
                self.count[f"{kind} {'rejected' if test['v'] else 'accepted'}"] += 1
                right = False
        self.count[f"{kind} right"] += right

    def print(self, total):
        count = self.count
        print(f"{self.name}:")
        for kind in ("exact", "checked"):
            if count[kind]:
                print(
                    f"  {kind}: {count[kind]} of {total} compiled ({count[kind] / total:.1%}), "
                    f"{count[f'{kind} right']} with every instance right ({count[f'{kind} right'] / total:.1%}); "
                    f"invalid accepted {count[f'{kind} accepted']} of {count[f'{kind} invalid']}, "
                    f"valid rejected {count[f'{kind} rejected']} of {count[f'{kind} valid']}"
                )
        print(f"  not compiled: {dict(self.lost)}")
        print(f"  schema to matcher, CPU ms: {percentiles(self.seconds.values())}")


def quantile(values, share):
    values = sorted(values)
    return values[int(len(values) * share)]


def percentiles(seconds):
    p50, p95 = quantile(seconds, 0.5) * 1e3, quantile(seconds, 0.95) * 1e3
    return f"p50 {p50:.2f}, p95 {p95:.2f}, max {max(seconds) * 1e3:.0f}"


def main():
    with gzip.open(Path(sys.argv[1]), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    ways = [
        Measured("llguidance alone", alone),
        Measured("osport, on_unsupported=refuse", refusing),
        Measured("osport, on_unsupported=check", checking),
    ]
    for turn, row in enumerate(rows):
        bundle = bundled(row["schema"])
        for way in ways[turn % 3 :] + ways[: turn % 3]:  # nobody always finds the caches warm
            way.add(row, bundle)
    for way in ways:
        way.print(len(rows))
    base, own, _ = (way.seconds for way in ways)
    both = base.keys() & own.keys()
    for name, ids in (("both compile", both), ("either compiles", None)):
        theirs, ours = ([times[key] for key in (ids or times)] for times in (base, own))
        p50, p95 = (quantile(ours, share) / quantile(theirs, share) for share in (0.5, 0.95))
        print(f"osport to llguidance alone, schemas that {name}: p50 {p50:.2f}, p95 {p95:.2f}")


if __name__ == "__main__":
    main()

"""How long the shortest answer is, whether there is one at all, and where an answer may go on without end."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

from osport.constrained.bundle import bundled, dynamic_references, endless_reference
from osport.constrained.disjoint import View, is_valid, view
from osport.constrained.schema import Schema, json_path, walk
from osport.errors import UsageError

__all__ = ["BYTES_PER_TOKEN", "refuse_too_few", "shortest", "tokens_for", "unbounded", "without_impossible"]

BYTES_PER_TOKEN = 8
"""More than any tokenizer was seen to put into a token of JSON on average (3 to 5 are usual)."""
# Values may need the shortest of others; after as many rounds as there are nodes nothing can change any more.
MAX_ROUNDS = 50
MAX_NAMED = 3

LOWER = {"string": "minLength", "array": "minItems", "object": "minProperties"}
UPPER = {"string": "maxLength", "array": "maxItems", "object": "maxProperties"}


def tokens_for(length: float) -> int:
    """Tokens that so many bytes of an answer need at least, its end included."""
    return math.ceil(length / BYTES_PER_TOKEN) + 1


def refuse_too_few(max_tokens: int | None, least: float) -> None:
    """Raise :class:`~osport.errors.UsageError` where not even an answer of ``least`` bytes fits."""
    if max_tokens is not None and tokens_for(least) > max_tokens:
        raise UsageError(
            f"max_tokens={max_tokens}: the shortest answer of this form has {least:,.0f} bytes, which take about "
            f"{tokens_for(least)} tokens or more; raise max_tokens"
        )


def shortest(schema: Schema) -> float:
    """Bytes of compact JSON that every value of the schema has at least; infinity where no finite value conforms,
    or a reference comes back to itself without end.

    A lower bound: ``if``, ``not``, patterns, formats and dependent rules are left out of account, so a schema that
    only they contradict is given a length.
    """
    bundle = bundled(schema)
    if dynamic_references(bundle):
        return 1
    return math.inf if endless_reference(bundle) else Lengths(bundle).of_the_root()


def without_impossible(bundle: Mapping[str, Any]) -> dict[str, Any]:
    """The bundle with ``false`` for each reference to what no finite value meets: an engine may refuse all for one."""
    lengths = Lengths(bundle)
    lengths.of_the_root()
    impossible = {name for name, rule in lengths.definitions.items() if lengths.of(rule) == math.inf}
    return without_definitions(bundle, impossible) if impossible else dict(bundle)


def without_definitions(bundle: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    """The bundle with ``false`` for each reference to some definitions."""

    def pruned(node: Any) -> Any:
        if isinstance(node, list):
            return [pruned(item) for item in node]
        if not isinstance(node, dict):
            return node
        if isinstance(node.get("$ref"), str) and node["$ref"].removeprefix("#/$defs/") in names:
            return False
        return {word: value if word in ("const", "enum") else pruned(value) for word, value in node.items()}

    found = pruned({word: value for word, value in bundle.items() if word != "$defs"})
    kept = {name: pruned(rule) for name, rule in bundle.get("$defs", {}).items() if name not in names}
    return {**({"not": {}} if found is False else found), **({"$defs": kept} if kept else {})}


class Lengths:
    """Lower bounds for every node of a bundle, from infinity down until nothing changes."""

    def __init__(self, bundle: Mapping[str, Any]) -> None:
        self.definitions: Mapping[str, Any] = bundle.get("$defs", {})
        self.root = {key: value for key, value in bundle.items() if key != "$defs"}
        self.known: dict[int, float] = {}
        self.done: set[int] = set()
        self.kept: list[Any] = []  # nodes made on the way: their ids must not be used again

    def of_the_root(self) -> float:
        """The bound of the whole."""
        for _ in range(MAX_ROUNDS):
            before = dict(self.known)
            self.done.clear()
            found = self.of(self.root)
            if before == self.known:
                break
        return found

    def of(self, schema: Any) -> float:
        """The bound of a node; what is looked at already counts as in the round before."""
        if isinstance(schema, bool):
            return 1 if schema else math.inf
        key = id(schema)
        if key not in self.done:
            self.done.add(key)
            self.known.setdefault(key, math.inf)
            if set(schema) == {"$ref"}:
                self.known[key] = self.of(self.definitions[schema["$ref"].removeprefix("#/$defs/")])
            else:
                self.known[key] = self.computed(schema)
        return self.known[key]

    def computed(self, schema: Any) -> float:
        """The bound of a node from what all its conjuncts say, and from its choices."""
        seen = view(schema, self.definitions)
        if seen is None:
            return math.inf
        if seen.values is not None:
            fitting = [value for value in seen.values if is_valid(value, schema, self.definitions)]
            return min((length_of(value) for value in fitting), default=math.inf)
        own = min((self.of_kind(kind, seen) for kind in seen.types), default=math.inf)
        choices = [min(map(self.of, branches)) for branches in seen.branches]
        return max([own, *choices])

    def of_kind(self, kind: str, seen: View) -> float:
        """The bound for the values of one type."""
        if kind in ("null", "boolean"):
            return 4
        if kind == "number":
            return shortest_number(seen.conjuncts)
        least = max((node.get(LOWER[kind], 0) for node in seen.conjuncts), default=0)
        most = min((node.get(UPPER[kind], math.inf) for node in seen.conjuncts), default=math.inf)
        if kind == "string":
            return 2 + least if least <= most else math.inf
        return self.of_array(seen, least, most) if kind == "array" else self.of_object(seen, least, most)

    def of_array(self, seen: View, least: float, most: float) -> float:
        """Brackets, commas, and the items that must be there."""
        wanted = [
            rule for node in seen.conjuncts if (rule := node.get("contains")) is not None
            and node.get("minContains", 1) > 0
        ]  # fmt: skip
        least = max(least, 1 if wanted else 0)
        if least > most:
            return math.inf
        prefixed = max((len(node.get("prefixItems", ())) for node in seen.conjuncts), default=0)
        items = [self.of_item(seen, at) for at in range(int(min(least, prefixed)))]
        if least > prefixed:
            items.append(self.of_item(seen, prefixed) * (least - prefixed))
        length = 2 + sum(items) + max(least - 1, 0)
        return max([length, *(2 + self.of(rule) for rule in wanted)])

    def of_item(self, seen: View, at: int) -> float:
        rules = [
            node["prefixItems"][at] if at < len(node.get("prefixItems", ())) else node.get("items", True)
            for node in seen.conjuncts
        ]
        return max(map(self.of, rules), default=1)

    def of_object(self, seen: View, least: float, most: float) -> float:
        """Braces, commas, and the properties that must be there with their names."""
        if len(seen.required) > most or least > most:
            return math.inf
        if seen.names is not None and (seen.required - seen.names or least > len(seen.names)):
            return math.inf
        length = 0.0
        for name in seen.required:
            length += length_of(name) + 1 + max(map(self.of, seen.rules(name)), default=1)
        others = max(least - len(seen.required), 0)
        return 2 + length + others * len('"":1') + max(len(seen.required) + others - 1, 0)


def shortest_number(nodes: Sequence[Mapping[str, Any]]) -> float:
    """Digits of the number nearest to nought; infinity where the bounds leave none."""
    low = max((bound for node in nodes for key in ("minimum", "exclusiveMinimum")
               if (bound := node.get(key)) is not None), default=-math.inf)  # fmt: skip
    high = min((bound for node in nodes for key in ("maximum", "exclusiveMaximum")
                if (bound := node.get(key)) is not None), default=math.inf)  # fmt: skip
    open_end = any(node.get("exclusiveMinimum") == low or node.get("exclusiveMaximum") == high for node in nodes)
    if low > high or (low == high and open_end):
        return math.inf
    # An exponent can write any large number in four characters.
    return 2 if high < 0 else 1


def length_of(value: Any) -> int:
    """Bytes that a value needs at least as compact JSON; a number may have a shorter spelling than is known."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 1 if value >= 0 else 2
    if isinstance(value, list):
        return 2 + sum(map(length_of, value)) + max(len(value) - 1, 0)
    if isinstance(value, dict):
        pairs = [length_of(name) + 1 + length_of(item) for name, item in value.items()]
        return 2 + sum(pairs) + max(len(pairs) - 1, 0)
    return len(json.dumps(value, ensure_ascii=False).encode())


def unbounded(schema: Schema) -> tuple[str, ...]:
    """What could go on until ``max_tokens``, each kind with its first places."""
    places: dict[str, list[str]] = {"strings without maxLength": [], "arrays without maxItems": []}
    numbers = places.setdefault("numbers without an upper and a lower bound", [])
    for path, node in walk(schema):
        if not isinstance(node, dict) or node.keys() & {"enum", "const"}:
            continue
        stated = node.get("type", ())
        kinds = {stated} if isinstance(stated, str) else set(stated)
        if "string" in kinds and not node.keys() & {"maxLength", "pattern", "format"}:
            places["strings without maxLength"].append(json_path(path))
        if "array" in kinds and "maxItems" not in node and node.get("items") is not False:
            places["arrays without maxItems"].append(json_path(path))
        if kinds & {"number", "integer"} and not (
            node.keys() & {"minimum", "exclusiveMinimum"} and node.keys() & {"maximum", "exclusiveMaximum"}
        ):
            numbers.append(json_path(path))
    return tuple(f"{what}: {first_of(found)}" for what, found in places.items() if found)


def first_of(places: Sequence[str]) -> str:
    more = f" and {len(places) - MAX_NAMED} more" if len(places) > MAX_NAMED else ""
    return ", ".join(places[:MAX_NAMED]) + more

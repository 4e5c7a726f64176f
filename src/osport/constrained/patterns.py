"""Regular expressions matched without the risk of never coming back, and as JSON Schema means them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import jsonschema

__all__ = ["TooSlow", "matches", "safe_pattern", "with_safe_patterns"]

LIMIT = 2.0  # seconds
# Up to this many characters no pattern of a sane length takes noticeable time.
HARMLESS = 16
# A count as high as this is as bad as none.
MANY = 16
# So many runs of any length beside one another make a match take the third power of the text's length.
RUNS = 3
CHILD = (
    "import json, re, sys; how, pattern, text = json.load(sys.stdin); print(getattr(re, how)(pattern, text) is None)"
)


class TooSlow(Exception):
    """The pattern took more than :data:`LIMIT` seconds on a text."""


def matches(pattern: str, text: str, *, whole: bool = False) -> bool:
    """Whether the pattern is found in the text, or matches the whole of it.

    A pattern that can take exponential time is matched by llguidance's automaton, which cannot; one that an
    automaton does not take, in a child process with a time limit.
    Raises :class:`TooSlow`.
    """
    how: Any = "fullmatch" if whole else "search"
    strict = pattern if whole else as_meant(pattern)
    if len(text) <= HARMLESS or not is_risky(pattern):
        return getattr(re, how)(strict, text) is not None
    automaton = automaton_of(f"^(?:{pattern})$" if whole else pattern) if "\0" not in text else None
    if automaton is not None:
        return automaton(text)
    try:
        asked = json.dumps([how, strict, text])
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", CHILD], input=asked, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        raise TooSlow(f"the pattern {pattern!r} took more than {LIMIT:g} s") from None
    return child.stdout.strip() == "False"


# Words and digits are ASCII to JSON Schema (ECMA 262), to Python they are those of all scripts.
ASCII = {r"\w": "A-Za-z0-9_", r"\d": "0-9"}
MEANT = {"$": r"\Z", r"\W": "[^A-Za-z0-9_]", r"\D": "[^0-9]", **{word: f"[{them}]" for word, them in ASCII.items()}}


@lru_cache(maxsize=1024)
def as_meant(pattern: str) -> str:
    r"""The pattern as JSON Schema means it; ``$`` is to Python alone also the place before a last line break."""
    if re.search(r"\(\?[a-zA-Z]*m", pattern):
        return pattern
    return "".join(
        re.sub(r"\\.", lambda escape: ASCII.get(escape[0], escape[0]), part, flags=re.DOTALL)
        if part.startswith("[") and len(part) > 1
        else MEANT.get(part, part)
        for part in parts_of(pattern)
    )


def parts_of(pattern: str) -> list[str]:
    """The pattern in pieces that are read on their own: escapes, classes in brackets, single characters."""
    return re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", pattern, re.DOTALL)


def safe_pattern(pattern: str) -> str | None:
    """The pattern as llguidance reads it rightly inside a JSON string; None where there is no such.

    A class with all control characters lets a quotation mark and a backslash in, though it excludes them; without NUL
    it does not. Strings with NUL are lost thereby.
    """
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


@lru_cache(maxsize=1024)
def is_risky(pattern: str) -> bool:
    """Whether a backtracking match could take exponential time: a repeat of what can be split in several ways."""
    from re import _parser  # type: ignore[attr-defined]  # the one parser that reads what re reads

    runs = 0

    def branching(items: Any, repeated: bool) -> bool:
        nonlocal runs
        for word, argument in items:
            name = str(word)
            inside: list[Any] = []
            if name in ("MAX_REPEAT", "MIN_REPEAT"):
                least, most, body = argument
                many = most >= MANY
                runs += least != most and many
                if (least != most and repeated) or branching(body, repeated or many):
                    return True
            elif name == "BRANCH":
                if repeated:
                    return True
                inside = argument[1]
            elif name in ("SUBPATTERN", "ASSERT", "ASSERT_NOT"):
                inside = [argument[-1]]
            if any(branching(body, repeated) for body in inside):
                return True
        return False

    return branching(_parser.parse(pattern), False) or runs >= RUNS


@lru_cache(maxsize=64)
def automaton_of(pattern: str) -> Callable[[str], bool] | None:
    """The search as llguidance's automaton; None where it is not installed or does not take the pattern."""
    try:
        import llguidance
    except ImportError:
        return None
    safe = safe_pattern(pattern)
    if safe is None:
        return None
    tokenizer = llguidance.LLTokenizer("byte")
    grammar = json.dumps({"grammars": [{"json_schema": {"type": "string", "pattern": safe}}]})
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
    if matcher.is_error():
        return None

    def found(text: str) -> bool:
        tokens: Sequence[int] = tokenizer.tokenize_bytes(json.dumps(text, ensure_ascii=False).encode())
        own = matcher.deep_copy()
        return bool(own.try_consume_tokens(tokens) == len(tokens) and own.is_accepting())

    return found


@lru_cache(maxsize=16)
def with_safe_patterns(draft: Any) -> Any:
    """A draft of JSON Schema whose patterns are matched by :func:`matches`."""
    checks = {"pattern": _pattern, "patternProperties": _pattern_properties, "additionalProperties": _additional}
    if "additionalItems" in draft.VALIDATORS:
        beyond = draft.VALIDATORS["additionalItems"]

        def additional_items(validator: Any, rule: Any, instance: Any, schema: Any) -> Any:
            # jsonschema 4.26 fails with a TypeError beside a boolean ``items``, where the keyword says nothing.
            return beyond(validator, rule, instance, schema) if isinstance(schema.get("items"), list) else ()

        checks["additionalItems"] = additional_items
    return jsonschema.validators.extend(draft, checks)  # type: ignore[no-untyped-call]


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, str) and not matches(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, rules: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, dict):
        for pattern, rule in rules.items():
            for name, value in instance.items():
                if matches(pattern, name):
                    yield from validator.descend(value, rule, path=name, schema_path=pattern)


def _additional(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if not isinstance(instance, dict):
        return
    declared, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [
        name for name in instance if name not in declared and not any(matches(pattern, name) for pattern in patterns)
    ]
    if rule is False and extra:
        yield jsonschema.ValidationError(f"additional properties: {', '.join(map(repr, extra))}")
    elif isinstance(rule, dict):
        for name in extra:
            yield from validator.descend(instance[name], rule, path=name)

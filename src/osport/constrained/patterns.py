"""Regular expressions matched without the risk of never coming back, and as JSON Schema means them."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import jsonschema

from osport.constrained.values import is_multiple

__all__ = ["TooSlow", "is_readable", "matches", "safe_pattern", "with_safe_patterns"]

LIMIT = 2.0  # seconds
HARMLESS = 16  # characters
# A count as high as this is as bad as none.
MANY = 16
# Steps that a backtracking match may take: a tenth of a second to a few.
MAX_STEPS = 1e8
CHILD = (
    "import json, re, sys; how, pattern, text = json.load(sys.stdin); print(getattr(re, how)(pattern, text) is None)"
)


class TooSlow(Exception):
    """The pattern took more than :data:`LIMIT` seconds on a text, or nobody here reads it."""


def matches(pattern: str, text: str, *, whole: bool = False) -> bool:
    """Whether the pattern is found in the text, or matches the whole of it.

    A pattern that can take exponential time, or one of higher power on a long text, is matched by llguidance's
    automaton, which cannot; one that an automaton does not take, in a child process with a time limit.
    Raises :class:`TooSlow`.
    """
    how: Any = "fullmatch" if whole else "search"
    strict = pattern if whole else as_meant(pattern)
    readable = whole or is_python(strict)
    if readable and not is_risky(strict, len(text)):
        return getattr(re, how)(strict, text) is not None
    automaton = automaton_of(f"^(?:{pattern})$" if whole else pattern) if "\0" not in text else None
    if automaton is not None:
        return automaton(text)
    if not readable:
        raise TooSlow(f"the pattern {pattern!r} is read by nobody")
    try:
        asked = json.dumps([how, strict, text])
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", CHILD], input=asked, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        raise TooSlow(f"the pattern {pattern!r} took more than {LIMIT:g} s") from None
    return child.stdout.strip() == "False"


def is_readable(pattern: str) -> bool:
    r"""Whether somebody here can match the pattern: Python, or for such as ``\p{L}`` llguidance."""
    return is_python(as_meant(pattern)) or automaton_of(pattern) is not None


@lru_cache(maxsize=1024)
def is_python(pattern: str) -> bool:
    """Whether Python's own regular expressions take the pattern."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


# Words and digits are ASCII to JSON Schema (ECMA 262), to Python they are those of all scripts; white space is that of
# Unicode, which llguidance heeds, too.
CLASSES = {
    "d": "0-9",
    "s": "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
    "w": "0-9A-Z_a-z",
}


def others(spans: str) -> str:
    """The inside of a class of all characters but those of another, which is in order."""
    found, start = "", 0
    for first, last in re.findall("(.)(?:-(.))?", spans, re.DOTALL):
        if ord(first) > start:
            found += f"{re.escape(chr(start))}-{re.escape(chr(ord(first) - 1))}"
        start = ord(last or first) + 1
    return f"{found}{re.escape(chr(start))}-\U0010ffff"


INSIDE = {f"\\{name}": spans for name, spans in CLASSES.items()} | {
    f"\\{name.upper()}": others(spans) for name, spans in CLASSES.items()
}
MEANT = {"$": r"\Z", "(?<": "(?P<", **{name: f"[{them}]" for name, them in INSIDE.items()}}
# Escapes of ECMA 262 that Python does not know, then what both do.
ESCAPE = r"\\u\{[0-9a-fA-F]+\}|\\c[a-zA-Z]|\\k<\w+>|\\[pP]\{[^}]*\}|\\."


@lru_cache(maxsize=1024)
def as_meant(pattern: str) -> str:
    r"""The pattern as JSON Schema means it; ``$`` is to Python alone also the place before a last line break."""
    if re.search(r"\(\?[a-zA-Z]*m", pattern):
        return pattern
    return "".join(
        class_as_meant(part) if part.startswith("[") and len(part) > 1 else MEANT.get(part, escape_as_meant(part))
        for part in parts_of(pattern)
    )


def class_as_meant(part: str) -> str:
    """A class in brackets; a dash behind a whole class in it is one."""
    part = re.sub(r"(\\[dswDSW]|\\[pP]\{[^}]*\})-(?!\])", r"\1\-", part)
    return re.sub(ESCAPE, lambda found: INSIDE.get(found[0], escape_as_meant(found[0])), part, flags=re.DOTALL)


def escape_as_meant(escape: str) -> str:
    """A single escape, in Python's spelling."""
    if escape.startswith("\\u{") and (number := int(escape[3:-1], 16)) <= sys.maxunicode:
        return f"\\U{number:08x}"
    if escape.startswith("\\c") and len(escape) == len("\\cA"):
        return f"\\x{ord(escape[2]) % 32:02x}"
    return f"(?P={escape[3:-1]})" if escape.startswith("\\k<") else escape


def parts_of(pattern: str) -> list[str]:
    """The pattern in pieces that are read on their own: escapes, classes in brackets, single characters."""
    return re.findall(rf"{ESCAPE}|\(\?<(?![=!])|\[\^?\]?(?:\\.|[^\]\\])*\]|.", pattern, re.DOTALL)


@lru_cache(maxsize=1024)
def safe_pattern(pattern: str) -> str | None:
    """The pattern as llguidance reads it rightly inside a JSON string; None where there is no such.

    A class with all control characters lets a quotation mark and a backslash in, though it excludes them; without NUL
    it does not. Strings with NUL are lost thereby.
    """
    parts = parts_of(pattern) if "[" in pattern else [pattern]
    for at, part in enumerate(parts):
        if len(part) < 2 or part[0] != "[":
            continue
        if may_be_misread(part):
            if part[1] != "^" or part[2] == "]":
                return None
            parts[at] = rf"[^\x00{part[2:]}"
    return "".join(parts)


@lru_cache(maxsize=1024)
def may_be_misread(part: str) -> bool:
    """Whether a class in brackets holds NUL, but not both of the quotation mark and the backslash."""
    meant = class_as_meant(part)
    if not is_python(meant):
        return part[1] == "^" or re.search(r"\\[DPSW]", part) is not None
    shape = re.compile(meant)
    return bool(shape.match("\0") and not (shape.match('"') and shape.match("\\")))


def is_risky(pattern: str, length: int) -> bool:
    """Whether a backtracking search in a text of so many characters could take noticeably long."""
    # In so few no pattern of a sane length takes noticeable time.
    return length > HARMLESS and float(length) ** (runs_in(pattern) + 1) > MAX_STEPS


@lru_cache(maxsize=1024)
def runs_in(pattern: str) -> float:
    """How many runs of any length stand beside one another; infinity for a repeat of what can be split in several ways.

    A search takes at most one power more of the text's length.
    """
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

    return math.inf if branching(_parser.parse(pattern), False) else runs


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
    """A draft of JSON Schema whose patterns are matched by :func:`matches`, and whose multiples are exact."""
    checks = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional,
        "multipleOf": _multiple_of,
    }
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


def _multiple_of(validator: Any, step: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if validator.is_type(instance, "number") and not is_multiple(instance, step):
        yield jsonschema.ValidationError(f"{instance!r} is not a multiple of {step!r}")


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

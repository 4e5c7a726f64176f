"""One constraint, written the way each engine takes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from osport.constrained.schema import NodePath, json_path, walk
from osport.core.types import Constraint
from osport.errors import MissingDependency, UnsupportedFeature, UsageError

__all__ = ["to_gbnf_choice", "to_llguidance"]

ENGINE = "llguidance"
HEADER = "%llguidance {}\n"

# What llguidance says when it refuses, and the keyword that it means.
BOUND = re.compile(r"minimum|maximum|(?:min|max)(?:Length|Items|Properties)|patternProperties")
REFUSALS = (
    (re.compile(r'Unimplemented keys: \["([^"]+)"'), lambda m: m[1]),
    (re.compile(r"oneOf constraints are not supported"), lambda m: "oneOf"),
    (re.compile(r"Unknown format"), lambda m: "format"),
    (re.compile(r"regex|look-around", re.IGNORECASE), lambda m: "pattern"),
    (BOUND, lambda m: m[0]),
)


def to_llguidance(constraint: Constraint) -> str:
    """The constraint as llguidance's Lark text, compiled once here to be sure that the engine takes it.

    JSON comes out compact (no white space between the parts) and with properties in the schema's order.
    Raises :class:`~osport.errors.UnsupportedFeature` with the keyword and its path for what llguidance
    cannot enforce, :class:`~osport.errors.UsageError` for a grammar that is none.
    """
    if constraint.kind == "json_schema":
        text = lark_of_schema(constraint.value)
    elif constraint.kind == "choice":
        text = "start: " + " | ".join(json.dumps(label) for label in constraint.value)
    elif constraint.kind == "regex":
        text = f"start: /{regex_inside_slashes(constraint.value)}/"
    else:
        return checked_grammar(constraint.value)
    text = HEADER + text
    if refusal := refusal_of(text):
        raise refused(constraint, refusal)
    return text


def to_gbnf_choice(labels: Iterable[str]) -> str:
    """The labels as alternatives of a GBNF grammar."""
    return "root ::= " + " | ".join(gbnf_literal(label) for label in labels)


def gbnf_literal(text: str) -> str:
    """Text as a GBNF string literal; control characters are escaped."""
    escaped = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return (
        '"'
        + "".join(escaped.get(c) or (f"\\x{ord(c):02X}" if ord(c) < 0xA0 and not c.isprintable() else c) for c in text)
        + '"'
    )


def lark_of_schema(schema: Mapping[str, Any] | bool) -> str:
    """A rule whose only content is the schema, with osport's white-space rule in place of any in the schema."""
    rules: Mapping[str, Any] = {} if isinstance(schema, bool) else schema
    return "start: %json " + json.dumps({**rules, "x-guidance": {"whitespace_flexible": False}})


def regex_inside_slashes(pattern: str) -> str:
    """A Python pattern for a full match as the inside of Lark's ``/.../``."""
    llguidance = import_llguidance()
    # In a full match the outermost anchors say nothing, and llguidance takes \A and \Z for a fault.
    body = re.sub(r"^(\^|\\A)", "", pattern)
    body = re.sub(r"(?<!\\)((?:\\\\)*)(\$|\\Z)$", r"\1", body)
    return str(llguidance.regex_to_lark(body, use_ascii="")).replace("\n", "\\n")


def checked_grammar(gbnf: str) -> str:
    """A GBNF grammar, translated by llguidance's own translator."""
    import_llguidance()
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        text = str(gbnf_to_lark(gbnf))
    except Exception as error:  # the translator raises bare Exception for an undefined rule
        raise UsageError(f"not a GBNF grammar: {error}") from error
    if refusal := refusal_of(text):
        raise UsageError(f"llguidance does not take the grammar: {refusal}")
    return text


def refusal_of(lark: str) -> str:
    """Why llguidance would not compile the text; empty when it does."""
    llguidance = import_llguidance()
    return str(llguidance.LLMatcher.validate_grammar(lark, llguidance.LLTokenizer("byte")))


def refused(constraint: Constraint, refusal: str) -> UnsupportedFeature | UsageError:
    """The error that names what in the constraint llguidance does not take, and where it stands."""
    reason = refusal.split("failed to compile JSON schema: ")[-1].split("\n   1 |")[0].strip()
    if constraint.kind != "json_schema":
        return UnsupportedFeature(f"this {constraint.kind}: {constraint.value!r}", ENGINE, reason=reason)
    keyword = next((name(found) for shape, name in REFUSALS if (found := shape.search(reason))), "")
    path = first_refused(constraint, keyword, reason)
    if reason.startswith("Unsatisfiable schema"):
        return UsageError(f"no value can conform to the schema at {json_path(path)}: {reason.partition(': ')[2]}")
    feature = f"the keyword {keyword} at {json_path(path)}" if keyword else f"the schema at {json_path(path)}"
    return UnsupportedFeature(feature, ENGINE, reason=reason)


def first_refused(constraint: Constraint, keyword: str, reason: str) -> NodePath:
    """Where the refused keyword stands: of several places, the first that is refused alone, too."""
    schema = constraint.value
    if isinstance(schema, bool):
        return ()
    shared = {name: schema[name] for name in ("$schema", "$defs", "definitions") if name in schema}
    places = [(path, node) for path, node in walk(schema) if isinstance(node, Mapping) and keyword in node]
    for path, node in places:
        alone = HEADER + lark_of_schema({**shared, **node})
        if reason.split("\n")[0] in refusal_of(alone):
            return (*path, keyword)
    return (*places[0][0], keyword) if places else ()


def import_llguidance() -> Any:
    """The package, or the command that installs it."""
    try:
        import llguidance
    except ImportError as error:
        raise MissingDependency("llguidance", "constrained") from error
    return llguidance

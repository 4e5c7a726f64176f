"""One constraint, written the way each engine takes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property, lru_cache
from typing import Any

from attrs import frozen

from osport.constrained.budget import without_definitions, without_impossible
from osport.constrained.bundle import bundled, dynamic_references, endless_reference
from osport.constrained.faults import Reading, needs_newer_words, read_rightly, with_uri_spelt_out
from osport.constrained.patterns import TooSlow
from osport.constrained.refusal import KeywordRefused, Misread
from osport.constrained.rewrite import rewritten
from osport.constrained.schema import NodePath, json_path, shortened, walk
from osport.core.types import Constraint
from osport.errors import MissingDependency, UnsupportedFeature, UsageError

__all__ = ["lark_of_schema", "refusal_of", "taken", "to_gbnf_choice", "to_llguidance", "with_header"]

ENGINE = "llguidance"
HEADER = "%llguidance {}\n"
WHITESPACE = '"x-guidance": {"whitespace_flexible": false}'

# Naming the place of a refusal compiles once a candidate; beyond these the first one is named.
MAX_PLACES = 12

UNSATISFIABLE = "Unsatisfiable schema"
IN_DEFINITION = re.compile(r"while processing \S*#/\$defs/(\w+)")
# What llguidance says when it refuses, and the keyword that it means.
BOUND = re.compile(r"minimum|maximum|multipleOf|(?:min|max)(?:Length|Items|Properties)|patternProperties")
REFUSALS = (
    (re.compile(r"^(\S+) would be misread"), lambda m: m[1]),
    (re.compile(r'Unimplemented keys: \["([^"]+)"'), lambda m: m[1]),
    (re.compile(r"oneOf constraints are not supported"), lambda m: "oneOf"),
    (re.compile(r"patternProperty regex"), lambda m: "patternProperties"),
    (re.compile(r"min/maxProperties only supported"), lambda m: "minProperties"),
    (re.compile(r"circular references"), lambda m: "$ref"),
    (re.compile(r"Unknown format"), lambda m: "format"),
    (BOUND, lambda m: m[0]),
    (re.compile(r"regex for \w+ range: min=(\w+)"), lambda m: "maximum" if m[1] == "None" else "minimum"),
    (re.compile(r"regex|look-around", re.IGNORECASE), lambda m: "pattern"),
)


def to_llguidance(constraint: Constraint) -> str:
    """The constraint as llguidance's Lark text, compiled once here to be sure that the engine takes it.

    JSON comes out compact (no white space between the parts) and with properties in the schema's order.
    A schema that llguidance refuses is written in other words that allow the same values, where there are such.

    Raises :class:`~osport.errors.UnsupportedFeature` with the keyword and its path for what llguidance
    cannot enforce, :class:`~osport.errors.UsageError` for a grammar that is none, or a schema that no value meets.
    """
    if constraint.kind == "json_schema":
        return taken(constraint.text).lark
    if constraint.kind == "grammar":
        return checked_lark(constraint.value) if is_lark(constraint.value) else lark_of_gbnf(constraint.value)
    if constraint.kind == "tools":
        from osport.constrained.tools import lark_of_tools  # it embeds the schemas' texts made here

        return lark_of_tools(constraint.value)
    if constraint.kind == "choice":
        text = HEADER + "start: " + " | ".join(json.dumps(label) for label in constraint.value)
    else:
        text = f"{HEADER}start: /{regex_inside_slashes(constraint.value)}/"
    if refusal := refusal_of(text):
        what = f"this {constraint.kind}: {shortened(repr(constraint.value))}"
        raise UnsupportedFeature(what, ENGINE, reason=refusal)
    return text


def to_gbnf_choice(labels: Iterable[str]) -> str:
    """The labels as alternatives of a GBNF grammar."""
    return "root ::= " + " | ".join(gbnf_literal(label) for label in labels)


def gbnf_literal(text: str) -> str:
    """Text as a GBNF string literal; control characters are escaped."""
    escaped = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    hidden = {c: f"\\x{ord(c):02X}" for c in text if ord(c) < 0xA0 and not c.isprintable()}
    return '"' + "".join(escaped.get(c) or hidden.get(c, c) for c in text) + '"'


@frozen(slots=False, eq=False)
class Taken:
    """A schema in words that llguidance takes.

    ``grammar``: for llguidance itself, which reads it in half the time of the Lark text that a server wants.
    ``matcher``: compiled for single bytes and never advanced; copy it.
    """

    schema: str
    grammar: str
    matcher: Any

    @cached_property
    def lark(self) -> str:
        """The same as Lark text, compiled once more, because a server would answer a text with a fault unconstrained.

        Raises :class:`~osport.errors.UnsupportedFeature` for a text that does not compile.
        """
        text = lark_of_schema(with_uri_spelt_out(self.schema))
        if refusal := refusal_of(text):
            raise UnsupportedFeature("this json_schema", ENGINE, reason=refusal)
        return text


@lru_cache(maxsize=32)
def taken(schema_text: str) -> Taken:
    """The schema in its own or in other words; asked for by the gate and again by the engine, compiled once.

    Raises :class:`KeywordRefused` with the keyword and its path for what llguidance cannot enforce,
    :class:`~osport.errors.UsageError` for a schema that no value meets.
    """
    found, reason = attempt(schema_text)
    if found is None:
        raise refused(json.loads(schema_text), reason)
    return found


def attempt(text: str) -> tuple[Taken | None, str]:
    """The schema in its own or in other words, or None and why both were refused."""
    reading = Reading(text)
    found, reason = (None, "") if needs_newer_words(reading) else compiled(reading)
    if found is not None:
        return found, ""
    try:
        bundle = bundled(json.loads(text))
    except UsageError:  # a fragment may hold references that only the whole document answers
        return None, reason
    if endless_reference(bundle):
        return None, reason
    if dynamic := dynamic_references(bundle):
        return None, f'Unimplemented keys: ["{min(dynamic)}"]'
    try:
        return attempt_rewritten(rewritten(without_impossible(bundle)))
    except TooSlow as slow:
        return None, f"the regex of a name: {slow}"


def attempt_rewritten(schema: dict[str, Any]) -> tuple[Taken | None, str]:
    """A bundle in other words; a definition that turns out to allow nothing is false wherever it is referred to."""
    while True:
        if schema == {"not": {}}:
            return None, f"{UNSATISFIABLE}: all values are forbidden"
        found, reason = compiled(Reading(json.dumps(schema)))
        empty = IN_DEFINITION.search(reason) if reason.startswith(UNSATISFIABLE) else None
        if empty is None or empty[1] not in schema.get("$defs", {}):
            return found, reason
        schema = without_definitions(schema, {empty[1]})


def compiled(reading: Reading) -> tuple[Taken | None, str]:
    """The schema as it stands, compiled for single bytes; or None and why llguidance refuses it.

    What compiles for bytes compiles for every model. llguidance's own limits bound time and memory, except for what
    is refused before.
    """
    try:
        schema = read_rightly(reading)
    except Misread as error:
        return None, str(error)
    grammar = f'{{"grammars":[{{"json_schema":{with_options(schema)}}}]}}'
    matcher = import_llguidance().LLMatcher(byte_tokenizer(), grammar, log_level=0)
    if matcher.is_error():
        return None, plain(matcher.get_error())
    # Some schemas compile and fail in the first value that is not scalar.
    for opening in b"{[":
        probe = matcher.deep_copy()
        probe.try_consume_tokens([opening])
        if probe.is_error():
            return None, plain(probe.get_error())
    return Taken(schema, grammar, matcher), ""


def lark_of_schema(schema: str) -> str:
    """A Lark rule whose only content is the schema."""
    return f"{HEADER}start: %json {with_options(schema)}"


def with_options(schema: str) -> str:
    """The schema's text with osport's white-space rule in place of any in the schema."""
    if not schema.startswith("{"):
        schema = "{}" if schema == "true" else '{"not": {}}'
    if '"x-guidance"' in schema:
        schema = json.dumps({key: value for key, value in json.loads(schema).items() if key != "x-guidance"})
    # Last, for taking it out again llguidance puts the last keyword in its place, and order has a meaning to it.
    return f"{schema[:-1]}{', ' if len(schema) > 2 else ''}{WHITESPACE}}}"


def regex_inside_slashes(pattern: str) -> str:
    """A Python pattern for a full match as the inside of Lark's ``/.../``."""
    llguidance = import_llguidance()
    # In a full match the outermost anchors say nothing, and llguidance takes \A and \Z for a fault.
    body = re.sub(r"^(\^|\\A)", "", pattern)
    body = re.sub(r"(?<!\\)((?:\\\\)*)(\$|\\Z)$", r"\1", body)
    return str(llguidance.regex_to_lark(body, use_ascii="")).replace("\n", "\\n")


def with_header(lark: str) -> str:
    """A Lark text with the line by which llguidance tells it from other notations."""
    return lark if is_lark(lark) else HEADER + lark


def is_lark(text: object) -> bool:
    """Whether a grammar says that it is Lark."""
    return isinstance(text, str) and text.lstrip().startswith("%llguidance")


@lru_cache(maxsize=64)
def checked_lark(text: str) -> str:
    """A Lark grammar that compiles."""
    if refusal := refusal_of(text):
        raise UsageError(f"not a Lark grammar, and no GBNF, which has ::= in each rule: {refusal}")
    return text


@lru_cache(maxsize=64)
def lark_of_gbnf(gbnf: str) -> str:
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
    """Why llguidance would not compile the text; empty when it does. Its own limits bound time and memory."""
    return plain(str(import_llguidance().LLMatcher.validate_grammar(lark, byte_tokenizer())))


def plain(refusal: str) -> str:
    """A refusal without the grammar or the state that llguidance quotes in it."""
    reason = refusal.split("failed to compile JSON schema: ")[-1]
    return reason.split("\n   1 |")[0].split("\n   2 |")[0].split("\n<state>")[0].strip()


def refused(schema: dict[str, Any] | bool, reason: str) -> KeywordRefused | UsageError:
    """The error that names what in the schema llguidance does not take, and where it stands."""
    keyword = next((name(found) for shape, name in REFUSALS if (found := shape.search(reason))), "")
    path = first_refused(schema, keyword, reason)
    if reason.startswith(UNSATISFIABLE):
        return UsageError(f"no value can conform to the schema at {json_path(path)}: {reason.partition(': ')[2]}")
    return KeywordRefused(keyword, path, ENGINE, reason=shortened(reason))


def first_refused(schema: dict[str, Any] | bool, keyword: str, reason: str) -> NodePath:
    """Where the refused keyword stands: of several places, the first that is refused alone, too."""
    if isinstance(schema, bool):
        return ()
    shared = {name: schema[name] for name in ("$schema", "$defs", "definitions") if name in schema}
    first_line = reason.split("\n")[0].split(" while ")[0]
    places = [(path, node) for path, node in walk(schema) if isinstance(node, Mapping) and keyword in node]
    # From the innermost outwards: a node is refused for what stands below it, too.
    for path, node in sorted(places, key=lambda place: -len(place[0]))[:MAX_PLACES]:
        found, why = attempt(json.dumps({**shared, **node}))
        if found is None and first_line in why:
            return (*path, keyword)
    return (*places[0][0], keyword) if places else ()


@cache
def byte_tokenizer() -> Any:
    """llguidance's vocabulary of single bytes: a grammar that compiles for it compiles for every model."""
    return import_llguidance().LLTokenizer("byte")


def import_llguidance() -> Any:
    """The package, or the command that installs it."""
    try:
        import llguidance
    except ImportError as error:
        raise MissingDependency("llguidance", "constrained") from error
    return llguidance

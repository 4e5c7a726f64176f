"""Every engine passes the same tests for what its table says that it enforces, and refuses the rest by name."""

import json

import pytest

from osport import ConstrainedOutput
from osport.constrained.engines import ENGINES
from osport.constrained.vocabulary import BYTES, Vocabulary
from osport.core.types import Constraint
from osport.errors import UnsupportedFeature, UsageError

PACKAGES = {"llguidance": "llguidance", "xgrammar": "xgrammar", "outlines": "outlines_core"}
# A probe: a schema whose every keyword counts, values that conform, and values that break one keyword each.
PROBES = {
    "minLength": ({"type": "string", "minLength": 2}, ["ab", "äö"], ["a", ""]),
    "maxLength": ({"type": "string", "maxLength": 2}, ["", "ab"], ["abc"]),
    "pattern": ({"type": "string", "pattern": "^[a-c]{2}-[0-9]+$"}, ["ab-1"], ["ab", "xab-1"]),
    "pattern, loose": ({"type": "string", "pattern": "b"}, ["abc"], ["ac"]),
    "pattern and length": ({"type": "string", "pattern": "^a+$", "maxLength": 2}, ["aa"], ["aaa", "b"]),
    "pattern of any character": ({"type": "string", "pattern": "^.$"}, ["a"], ["", "ab"]),
    "format date": ({"type": "string", "format": "date"}, ["2024-02-01"], ["2024-2-1", "x", "2023-02-30"]),
    "format uuid": (
        {"type": "string", "format": "uuid"},
        ["123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000"],
        ["123e4567e89b12d3a456426614174000"],
    ),
    "an open object": (
        {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
        [{"a": None, "b": {"c": [1, 2], "d": "x"}}],
        [{}],
    ),
    "an undeclared value": ({"type": "array", "items": {}, "minItems": 1}, [[{"a": [1, 2], "b": 3}]], [[]]),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^[ab]+$": {"type": "null"}}, "additionalProperties": False},
        [{}, {"a": None, "bb": None}],
        [{"c": None}, {"a": 1}],
    ),
    "patternProperties, loose": (
        {"type": "object", "patternProperties": {"b": {"type": "null"}}, "additionalProperties": False},
        [{"abc": None}],
        [{"c": None}, {"b": 1}],
    ),
    "format email": ({"type": "string", "format": "email"}, ["a@b.example", "a@B.example"], ["a"]),
    "format ipv4": ({"type": "string", "format": "ipv4"}, ["1.2.3.4"], ["1.2.3.444"]),
    "integer bounds": ({"type": "integer", "minimum": 3, "maximum": 12}, [3, 12], [2, 13]),
    "number bounds": ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, [0, 0.5], [1, -0.5, 7]),
    "number": ({"type": "number"}, [0, 1.5, -2], ["a", None]),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, [0, 15], [3]),
    "multipleOf, large": ({"type": "integer", "multipleOf": 1500}, [0, 1500], [7, 500]),
    "multipleOf and bounds": ({"type": "integer", "minimum": 3, "multipleOf": 2}, [4], [2, 5]),
    "type": ({"type": ["integer", "null"]}, [1, None], ["a", 1.5]),
    "enum": ({"enum": ["a", 1, None]}, ["a", 1, None], ["b", 2]),
    "enum of numbers": ({"enum": [1, 12]}, [1, 12], [2, 123]),
    "enum and type": ({"enum": ["a", 1], "type": "string"}, ["a"], [1]),
    "const": ({"const": {"a": 1}}, [{"a": 1}], [{"a": 2}]),
    "items": ({"type": "array", "items": {"type": "boolean"}}, [[], [True]], [[1]]),
    "minItems": ({"type": "array", "items": {"type": "null"}, "minItems": 1}, [[None]], [[]]),
    "maxItems": ({"type": "array", "items": {"type": "null"}, "maxItems": 1}, [[], [None]], [[None, None]]),
    "required": ({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}, [{"a": None}], [{}]),
    "required, undeclared": ({"type": "object", "properties": {}, "required": ["a"]}, [{"a": 1}], [{}]),
    "additionalProperties": (
        {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": False},
        [{}, {"a": None}],
        [{"b": 1}],
    ),
    "anyOf": ({"anyOf": [{"type": "string"}, {"type": "null"}]}, ["a", None], [1]),
    "anyOf and type": ({"anyOf": [{"type": "string"}, {"type": "null"}], "type": "string"}, ["a"], [None]),
    "oneOf": ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ["a", 1], [None]),
    "oneOf, overlapping": (
        {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 5}]},
        [-1, 9],
        [3],
    ),
    "allOf": ({"allOf": [{"type": "string", "minLength": 1}, {"type": "string", "maxLength": 2}]}, ["ab"], ["", "abc"]),
    "not": ({"type": "string", "not": {"const": "x"}}, ["y"], ["x"]),
    "$ref": ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "null"}}}, [None], [1]),
    "uniqueItems": ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [[1, 2]], [[1, 1]]),
}


@pytest.fixture(params=sorted(PACKAGES))
def engine(request):
    pytest.importorskip(PACKAGES[request.param], reason=f"{request.param} is not installed")
    return request.param


@pytest.mark.parametrize("probe", sorted(PROBES))
def test_a_keyword_is_enforced_or_refused_by_name(engine, probe):
    schema, good, bad = PROBES[probe]
    output = ConstrainedOutput.json_schema(schema)
    refused = [row for row in output.support(engine) if row.status == "refused"]
    if refused:
        assert all(row.why for row in refused)
        with pytest.raises(UnsupportedFeature, match=rf"{engine} does not support the .*\$"):
            output.matcher(engine=engine)
        return
    matcher = output.matcher(engine=engine)
    for value in bad:
        assert not matcher.accepts(json.dumps(value, separators=(",", ":"), ensure_ascii=False)), value
    for value in good:
        assert matcher.accepts(json.dumps(value, separators=(",", ":"), ensure_ascii=False)), value
    assert {row.status for row in output.support(engine)} == {"exact"}


# What each engine must take, so that refusing everything does not pass for a table.
TAKEN = {
    "llguidance": set(PROBES) - {"uniqueItems"},
    "xgrammar": {
        "minLength",
        "pattern",
        "integer bounds",
        "number bounds",
        "multipleOf",
        "enum",
        "additionalProperties",
        "anyOf",
        "oneOf",
        "$ref",
    },
    "outlines": {
        "minLength",
        "pattern",
        "number",
        "type",
        "enum",
        "enum of numbers",
        "items",
        "minItems",
        "additionalProperties",
        "anyOf",
    },
}


def test_an_engine_takes_what_it_is_known_to_enforce(engine):
    for probe in TAKEN[engine]:
        ConstrainedOutput.json_schema(PROBES[probe][0]).matcher(engine=engine)


def test_a_matcher_says_what_may_come_next(engine):
    matcher = ConstrainedOutput.choice(["no", "nay"]).matcher(engine=engine)
    assert matcher.allowed() == {ord("n")}
    assert matcher.advance(b"n")
    assert not matcher.is_accepting
    assert matcher.allowed() == {ord("o"), ord("a")}
    assert matcher.advance(b"o")
    assert matcher.is_accepting
    assert matcher.allowed() == {256}
    assert matcher.accepts("nay")
    assert not matcher.accepts("na")
    assert not matcher.advance(b"x")


def test_a_vocabulary_of_long_tokens(engine):
    words = Vocabulary([b"n", b"o", b"ay", b"no", b"nay", b"x", b""], [6])
    matcher = ConstrainedOutput.choice(["no", "nay"]).matcher(words, engine=engine)
    assert matcher.allowed() == {0, 3, 4}
    assert matcher.advance(b"no")
    assert matcher.allowed() == {6}


@pytest.mark.parametrize("labels", [["no", "nope"], ["nope", "no"], ["a", "ab", "abc"], ["a\nb", "a b", "a.b", "a|b"]])
def test_a_label_that_begins_another(engine, labels):
    matcher = ConstrainedOutput.choice(labels).matcher(engine=engine)
    assert all(matcher.accepts(label) for label in labels)
    assert not any(matcher.accepts(label + "x") or matcher.accepts(label[:-1] + "~") for label in labels)


REGEXES = [
    ("[0-9]{3}", ["123"], ["12", "1234", "abc"]),
    ("^a|b$", ["a", "b"], ["ab", ""]),
    ("no(pe)?", ["no", "nope"], ["nop", "n"]),
    ("(ab)+c?", ["ab", "ababc"], ["abb"]),
    (r"\d+\.\d", ["12.5"], ["12x5", "1."]),
    ("[^a]x", ["bx", "äx"], ["ax", "x"]),
    (".", ["a", "ä"], ["\n", "ab"]),
    (r"\W", ["!"], ["a", "ä"]),
    ("(?i)ab", ["aB"], ["b"]),
    ("(?=a)ab", ["ab"], ["b"]),
    (r"\bab", ["ab"], ["b"]),
    ("a$b|c", ["c"], ["a$b", "ab"]),
    (r"\[a].", ["[a]x"], ["[a]", "[a]\n"]),
    ("..", ["ab"], ["a", "abc"]),
]
REFUSED = {
    "llguidance": {"(?=a)ab", r"\bab", "a$b|c"},
    "xgrammar": {".", "..", r"\W", "(?i)ab", "(?=a)ab", r"\bab", "a$b|c", r"\[a]."},
    "outlines": {"(?=a)ab", r"\bab", "a$b|c"},
}


@pytest.mark.parametrize(("pattern", "good", "bad"), REGEXES, ids=[pattern for pattern, _, _ in REGEXES])
def test_a_regex_is_enforced_or_refused_by_name(engine, pattern, good, bad):
    output = ConstrainedOutput.regex(pattern, engine=engine)
    if pattern in REFUSED[engine]:
        with pytest.raises(UnsupportedFeature, match=engine):
            output.matcher()
        return
    matcher = output.matcher()
    assert all(matcher.accepts(text) for text in good)
    assert not any(matcher.accepts(text) for text in bad)


def test_a_grammar(engine):
    output = ConstrainedOutput.grammar('root ::= "a" [0-9]{2} | "b"', engine=engine)
    if engine == "outlines":
        with pytest.raises(UnsupportedFeature, match="kind grammar"):
            output.matcher()
        return
    matcher = output.matcher()
    assert matcher.accepts("a12")
    assert matcher.accepts("b")
    assert not matcher.accepts("a1")


def test_forced_bytes_are_what_must_come_and_never_more(engine):
    form = Constraint("json_schema", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
                                      "additionalProperties": False})  # fmt: skip
    matcher = ENGINES[engine].compile(form, BYTES).start()
    forced = matcher.forced()
    assert b'{"a":'.startswith(forced)
    assert forced or engine == "outlines", "an engine that can say what is forced must say it"
    for byte in b'{"a":1':
        assert matcher.advance(byte)
    assert matcher.forced() == b""


def test_check_mode_lets_the_engine_enforce_the_rest():
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    with pytest.raises(UnsupportedFeature, match=r"uniqueItems at \$\.uniqueItems"):
        ConstrainedOutput.json_schema(schema).matcher()
    output = ConstrainedOutput.json_schema(schema, on_unsupported="check")
    assert [(row.keyword, row.status) for row in output.support("llguidance")] == [
        ("type", "exact"),
        ("items", "exact"),
        ("uniqueItems", "checked"),
        ("type", "exact"),
    ]
    matcher = output.matcher()
    assert matcher.accepts("[1,1]")
    assert not matcher.accepts('["a"]')


def test_an_unknown_engine_is_named():
    with pytest.raises(UsageError, match="llguidance, outlines, xgrammar"):
        ConstrainedOutput.choice(["a"]).matcher(engine="magic")
    with pytest.raises(UsageError, match="unknown engine"):
        ConstrainedOutput.json_schema({}).support("magic")


def test_a_vocabulary_spells_bytes_or_says_where_it_cannot():
    assert BYTES.tokens_of(b"\xff\x00a") == [255, 0, 97]
    words = Vocabulary([b"ab", b"a", b""], [2])
    assert words.tokens_of(b"aba") == [0, 1]
    with pytest.raises(UsageError, match="offset 1"):
        words.tokens_of(b"ax")
    with pytest.raises(UsageError, match="ends"):
        Vocabulary([b"a"], [])

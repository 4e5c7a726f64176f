"""What is known of an answer before it is sampled: its least length, whether there is one, what may go on for ever."""

import json

import pytest
from attrs import evolve
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from osport import ConstrainedOutput, Message
from osport.constrained.budget import shortest, tokens_for
from osport.core.capabilities import Capabilities
from osport.core.types import Request, Sampling
from osport.errors import UsageError

ASK = Request([Message.user("?")])
LLGUIDANCE = Capabilities(constraints={"json_schema", "choice"}, constraint_engine="llguidance", enforced_by="sampling")


@pytest.mark.parametrize(
    ("schema", "least"),
    [
        (True, 1),
        ({"type": "string", "minLength": 5}, 7),
        ({"type": "array", "minItems": 3, "items": {"type": "null"}}, len("[null,null,null]")),
        ({"type": "object", "required": ["a", "b"], "properties": {"a": {"const": "x"}}}, len('{"a":"x","b":1}')),
        ({"type": ["object", "boolean"], "required": ["long name"]}, 4),
        ({"enum": ["aaa", "b"]}, 3),
        ({"enum": ["b"], "oneOf": [{"type": "string"}, {"format": "email"}]}, 3),
        ({"anyOf": [{"type": "string", "minLength": 9}, {"const": None}]}, 4),
        ({"type": "array", "prefixItems": [{"const": "ab"}], "minItems": 2}, len('["ab",1]')),
        ({"type": "array", "contains": {"const": "abc"}}, len('["abc"]')),
        (
            {"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}, "minItems": 1}}},
            float("inf"),
        ),
    ],
)
def test_the_shortest_answer_of_a_schema_in_bytes(schema, least):
    assert shortest(schema) == least


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"type": "string"}, {"$ref": "#"}]},
        {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}},
        {"type": "array", "minItems": 1, "items": {"$ref": "#"}},
    ],
)
def test_a_reference_without_a_way_out_is_refused_when_the_form_is_made(schema):
    with pytest.raises(UsageError, match="no finite JSON value"):
        ConstrainedOutput.json_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {"type": "array", "items": {"$ref": "#"}},
        {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]},
    ],
)
def test_a_recursion_with_a_base_case_is_a_form(schema):
    ConstrainedOutput.json_schema(schema).prepare(ASK, LLGUIDANCE)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 5, "maxLength": 3},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"enum": []},
        {"enum": ["a"], "type": "integer"},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "array", "minItems": 3, "maxItems": 2},
        {"not": {}},
    ],
)
def test_a_contradiction_is_told_before_sampling(schema):
    output = ConstrainedOutput.json_schema(schema)
    with pytest.raises(UsageError, match=r"no (finite JSON )?value"):
        output.prepare(ASK, LLGUIDANCE)
    with pytest.raises(UsageError, match="no value"):
        output.matcher()


def test_an_impossible_branch_does_not_forbid_the_others():
    schema = {
        "anyOf": [{"$ref": "#/$defs/good"}, {"$ref": "#/$defs/bad"}],
        "$defs": {
            "good": {"const": 1},
            "bad": {"type": "object", "required": ["x"], "additionalProperties": False},
        },
    }
    matcher = ConstrainedOutput.json_schema(schema).matcher()
    assert matcher.accepts("1")
    assert not matcher.accepts('{"x":1}')


def test_max_tokens_that_the_shortest_answer_does_not_fit_into_is_refused_before_the_call():
    output = ConstrainedOutput.json_schema({"type": "string", "minLength": 300})
    tight = evolve(ASK, sampling=Sampling(max_tokens=10))
    with pytest.raises(UsageError, match="max_tokens=10: the shortest answer of this form has 302 bytes"):
        output.prepare(tight, LLGUIDANCE)
    output.prepare(evolve(ASK, sampling=Sampling(max_tokens=tokens_for(302))), LLGUIDANCE)
    with pytest.raises(UsageError, match="max_tokens=2"):
        ConstrainedOutput.choice(["a" * 40]).prepare(evolve(ASK, sampling=Sampling(max_tokens=2)), LLGUIDANCE)


def test_what_may_go_on_without_end_is_in_the_warnings():
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "short": {"type": "string", "maxLength": 9},
            "many": {"type": "array", "items": {"enum": ["a"]}},
            "number": {"type": "number"},
        },
    }
    assert ConstrainedOutput.json_schema(schema).warnings == (
        "strings without maxLength: $.properties.text",
        "arrays without maxItems: $.properties.many",
        "numbers without an upper and a lower bound: $.properties.number",
    )
    assert ConstrainedOutput.choice(["a"]).warnings == ()


LEAVES = st.none() | st.booleans() | st.integers(-99, 99) | st.sampled_from([2.0, 0.5, "", "ab", "abcd"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner), max_leaves=5
)
SIMPLE = st.builds(lambda kind: {"type": kind}, st.sampled_from(["null", "string", "number", "array", "object"]))
SCHEMAS = st.recursive(
    SIMPLE | st.builds(lambda value: {"const": value}, VALUES),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
            "minItems": st.integers(0, 3),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "minLength": st.integers(0, 3),
            "minProperties": st.integers(0, 3),
            "contains": inner,
            "minimum": st.integers(-3, 3),
            "exclusiveMaximum": st.integers(-3, 3),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
        },
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=12))
def test_no_valid_value_is_shorter_than_the_bound(schema, values):
    least = shortest(schema)
    output = ConstrainedOutput.json_schema(schema)
    for value in values:
        if output._validator.is_valid(value):
            text = json.dumps(int(value) if value == 2.0 else value, separators=(",", ":"))
            assume("2.0" not in text)
            assert len(text) >= least

"""A rewritten schema allows the same values, proved by instances against the jsonschema package."""

import json
import re

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from osport.constrained.bundle import bundled
from osport.constrained.disjoint import disjoint
from osport.constrained.negate import Inexpressible, negation
from osport.constrained.rewrite import rewritten
from osport.constrained.values import other_strings, same

NAMES = st.sampled_from(["a", "b", "c", "dd"])
LEAVES = st.none() | st.booleans() | st.integers(-3, 4) | st.sampled_from([0.5, 2.0, "", "a", "ab", "b", "abc"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=6,
)
TYPES = st.sampled_from(["null", "boolean", "number", "string", "array", "object"])
SMALL = st.integers(0, 3)


def keywords(inner):
    """Values for each keyword that rewriting touches, or takes complements of."""
    some = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(NAMES, inner, max_size=2)
    names = st.lists(NAMES, max_size=2, unique=True)
    return {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "minimum": st.integers(-2, 2),
        "exclusiveMaximum": st.integers(-2, 3),
        "minLength": SMALL,
        "maxLength": SMALL,
        "pattern": st.sampled_from(["^a", "b$"]),
        "minItems": SMALL,
        "maxItems": SMALL,
        "items": inner,
        "contains": inner,
        "uniqueItems": st.booleans(),
        "properties": named,
        "required": names,
        "additionalProperties": inner | st.just(False),
        "propertyNames": st.sampled_from(
            [{"enum": ["a", "b"]}, {"pattern": "^[ab]"}, {"maxLength": 1}, {"not": {"const": "a"}}]
        ),
        "minProperties": SMALL,
        "maxProperties": SMALL,
        "dependentRequired": st.dictionaries(NAMES, names, max_size=2),
        "dependentSchemas": named,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "allOf": some,
        "anyOf": some,
        "oneOf": some,
    }


def some_of(options):
    some_words = st.lists(st.sampled_from(sorted(options)), min_size=1, max_size=4, unique=True)
    return some_words.flatmap(lambda words: st.fixed_dictionaries({word: options[word] for word in words}))


SCHEMAS = st.recursive(
    st.booleans() | st.builds(lambda kind: {"type": kind}, TYPES), lambda inner: some_of(keywords(inner)), max_leaves=8
)
SIMPLE = keywords(
    st.builds(lambda kind: {"type": kind}, TYPES) | st.booleans() | st.builds(lambda v: {"const": v}, LEAVES)
)


def valid(value, schema):
    return jsonschema.Draft202012Validator(schema).is_valid(value)


@settings(max_examples=120, deadline=None)
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=12))
def test_a_rewritten_schema_allows_the_same_values(schema, values):
    other = rewritten(bundled(schema))
    for value in values:
        assert valid(value, other) == valid(value, schema), (other, value)


@settings(max_examples=120, deadline=None)
@given(SCHEMAS, SCHEMAS, st.lists(VALUES, min_size=1, max_size=12))
def test_one_of_two_is_neither_none_nor_both(one, other, values):
    schema = {"oneOf": [one, other], "properties": {"a": True, "b": True}, "additionalProperties": False}
    new = rewritten(bundled(schema))
    for value in values:
        assert valid(value, new) == valid(value, schema), (new, value)


@settings(max_examples=120, deadline=None)
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=12))
def test_a_complement_allows_exactly_the_other_values(schema, values):
    try:
        cells = negation(schema, {})
    except Inexpressible:
        assume(False)
    for value in values:
        assert any(valid(value, cell) for cell in cells) != valid(value, schema), (cells, value)


@pytest.mark.parametrize("keyword", sorted(set(SIMPLE) - {"then", "else", "uniqueItems", "pattern"}))
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_complement_of_one_keyword(keyword, data):
    schema = data.draw(st.fixed_dictionaries({keyword: SIMPLE[keyword]}))
    if keyword == "if":
        schema |= data.draw(st.fixed_dictionaries({}, optional={"then": SIMPLE["then"], "else": SIMPLE["else"]}))
    try:
        cells = negation(schema, {})
    except Inexpressible:
        return
    for value in data.draw(st.lists(VALUES, min_size=15, max_size=25)):
        assert any(valid(value, cell) for cell in cells) != valid(value, schema), (cells, value)


REWRITTEN = ["if", "dependentRequired", "dependentSchemas", "not", "oneOf", "propertyNames", "uniqueItems", "contains",
             "minProperties", "maxProperties"]  # fmt: skip


@pytest.mark.parametrize("keyword", REWRITTEN)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_one_keyword_in_other_words(keyword, data):
    beside = {
        word: SIMPLE[word] for word in ("properties", "required", "additionalProperties", "type", "items", "maxItems")
    }
    schema = data.draw(st.fixed_dictionaries({keyword: SIMPLE[keyword]}, optional=beside))
    if keyword == "if":
        schema |= data.draw(st.fixed_dictionaries({}, optional={"then": SIMPLE["then"], "else": SIMPLE["else"]}))
    if keyword == "uniqueItems":
        schema["items"] = {"enum": [1, True, "a"]}
    other = rewritten(bundled(schema))
    for value in data.draw(st.lists(VALUES, min_size=15, max_size=25)):
        assert valid(value, other) == valid(value, schema), (other, value)


@settings(max_examples=120, deadline=None)
@given(SCHEMAS, SCHEMAS, st.lists(VALUES, min_size=1, max_size=12))
def test_schemas_that_are_called_disjoint_share_no_value(one, other, values):
    assume(disjoint(one, other, {}))
    for value in values:
        assert not (valid(value, one) and valid(value, other)), value


@given(st.lists(st.text("ab]^\\-\n", max_size=4), min_size=1, max_size=4), st.text("ab]^\\-\n", max_size=5))
def test_the_pattern_of_the_other_strings(words, text):
    matches = re.search(other_strings(words), text) is not None
    # Python's $ also matches before a last line break; engines and JSON Schema mean the end.
    if text.endswith("\n"):
        matches = re.fullmatch(other_strings(words)[1:-1], text) is not None
    assert matches == (text not in words)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (True, 1, False),
        ([1], [True], False),
        ({"a": 1}, {"a": 1.0}, True),
        ("1", 1, False),
        (None, False, False),
    ],
)
def test_equality_of_json_values(one, other, equal):
    assert same(one, other) == equal


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"a": 1}, {"b": 1, "c": 2}], [{"a": 1, "b": 1}, {}]),
        ({"not": {"enum": ["x", 3]}}, ["y", 4, None, [], "xx"], ["x", 3]),
        (
            {"if": {"properties": {"a": {"const": 1}}, "required": ["a"]}, "then": {"required": ["b"]}},
            [{"a": 2}, {"a": 1, "b": 0}],
            [{"a": 1}],
        ),
        ({"dependentRequired": {"a": ["b"]}}, [{"b": 1}, {"a": 1, "b": 1}, 7], [{"a": 1}]),
        (
            {"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 2, "additionalProperties": False},
            [{"a": 1, "b": 1}],
            [{"a": 1}],
        ),
        ({"type": "array", "items": {"enum": ["x", "y"]}, "uniqueItems": True}, [[], ["x"], ["y", "x"]], [["x", "x"]]),
        ({"propertyNames": {"pattern": "^x"}, "type": "object"}, [{}, {"xa": 1}], [{"a": 1}]),
        (
            {
                "$schema": "http://json-schema.org/draft-04/schema#",
                "type": "integer",
                "minimum": 1,
                "exclusiveMinimum": True,
                "not": {"enum": [5]},
            },
            [2, 6],
            [1, 5],
        ),
    ],
    ids=lambda value: json.dumps(value)[:30],
)
def test_what_llguidance_refuses_is_enforced_in_other_words(schema, good, bad):
    from osport import ConstrainedOutput
    from osport.constrained.dialects import to_llguidance
    from osport.constrained.verify import in_grammar
    from osport.errors import ConstraintViolated

    lark = to_llguidance(ConstrainedOutput.json_schema(schema).constraint)
    for value in good:
        in_grammar(json.dumps(value, separators=(",", ":")), lark)
    for value in bad:
        with pytest.raises(ConstraintViolated):
            in_grammar(json.dumps(value, separators=(",", ":")), lark)


def test_a_format_counts_when_schemas_are_told_apart():
    assert not disjoint({"const": "b"}, {"not": {"format": "email"}}, {})
    assert disjoint({"const": "b"}, {"format": "email"}, {})

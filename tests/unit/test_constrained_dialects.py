"""One constraint in each engine's notation, and the refusal of what an engine would drop."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osport import ConstrainedOutput
from osport.constrained.dialects import to_gbnf_choice, to_llguidance
from osport.constrained.support import refuse_unless_enforced
from osport.constrained.verify import in_grammar
from osport.core.types import Constraint
from osport.errors import ConstraintViolated, UnsupportedFeature, UsageError

OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def takes(lark, text):
    try:
        in_grammar(text, lark)
    except ConstraintViolated:
        return False
    return True


@given(st.lists(texts, min_size=1, max_size=4, unique=True), texts)
def test_a_choice_allows_its_labels_and_nothing_else(labels, other):
    lark = to_llguidance(Constraint("choice", tuple(labels)))
    assert all(takes(lark, label) for label in labels)
    assert takes(lark, other) == (other in labels)
    assert takes(lark, labels[0] + other) == (labels[0] + other in labels)


@given(st.lists(texts, min_size=1, max_size=4, unique=True), texts)
def test_the_gbnf_of_a_choice_allows_the_same(labels, other):
    gbnf = to_gbnf_choice(labels)
    assert "\n" not in gbnf
    lark = to_llguidance(Constraint("grammar", gbnf))
    assert all(takes(lark, label) for label in labels)
    assert takes(lark, other) == (other in labels)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("[0-9]{3}/[a-z]+", "123/abc"),
        (r"a\/b", "a/b"),
        ("^a$", "a"),
        (r"\Aa\Z", "a"),
        (r"a\$", "a$"),
        (r"a\\$", "a\\"),
        ("a|^b", "b"),
        ("^a|b$", "b"),
        ("a\nb", "a\nb"),
        ("(?i)ab", "aB"),
        ('"[^"]*"', '"x y"'),
        ("x y#z", "x y#z"),
    ],
)
def test_a_regex_means_a_full_match(pattern, text):
    lark = to_llguidance(Constraint("regex", pattern))
    for candidate in (text, text + "x", "x" + text, text[:-1], text + "\n", "^" + text, text.upper()):
        assert takes(lark, candidate) == (re.fullmatch(pattern, candidate) is not None), candidate


@pytest.mark.parametrize("pattern", [r"(?=a)ab", r"(\w)\1", r"\bword\b"])
def test_a_regex_beyond_the_engine_is_refused(pattern):
    with pytest.raises(UnsupportedFeature, match="llguidance does not support this regex"):
        to_llguidance(Constraint("regex", pattern))


def test_json_comes_compact_and_in_the_order_of_the_schema():
    schema = {**OBJECT, "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}, "required": ["b", "a"]}
    lark = to_llguidance(Constraint("json_schema", schema))
    assert takes(lark, '{"b":1,"a":"x y"}')
    assert not takes(lark, '{"b": 1,"a":"x y"}')
    assert not takes(lark, '{"a":"x y","b":1}')


def test_a_schema_cannot_loosen_its_own_enforcement():
    sly = {"x-guidance": {"lenient": True, "whitespace_flexible": True}, "uniqueItems": True, "type": "array"}
    with pytest.raises(UnsupportedFeature, match="keyword uniqueItems"):
        to_llguidance(Constraint("json_schema", sly))


REFUSED = [
    ({"properties": {"b": {"type": "array"}, "a": {"uniqueItems": True}}}, "uniqueItems", "$.properties.a.uniqueItems"),
    ({"items": {"not": {"type": "integer"}}}, "not", "$.items.not"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf", "$.oneOf"),
    ({"contains": {"type": "string"}, "type": "array"}, "contains", "$.contains"),
    ({"if": {"pattern": "^a"}, "then": {"minLength": 1}}, "if", "$.if"),
    ({"properties": {"a": {"pattern": "x"}, "b": {"pattern": "(?=x)"}}}, "pattern", "$.properties.b.pattern"),
    ({"anyOf": [{"unevaluatedProperties": False}]}, "unevaluatedProperties", "$.anyOf[0].unevaluatedProperties"),
]


@pytest.mark.parametrize(("schema", "keyword", "path"), REFUSED, ids=[keyword for _, keyword, _ in REFUSED])
def test_what_an_engine_would_drop_is_refused_with_keyword_and_path(schema, keyword, path):
    constraint = ConstrainedOutput.json_schema(schema).constraint
    with pytest.raises(UnsupportedFeature) as caught:
        to_llguidance(constraint)
    assert f"the keyword {keyword} at {path}" in str(caught.value)
    assert "llguidance" in str(caught.value)
    with pytest.raises(UnsupportedFeature, match=re.escape(r"llama.cpp-gbnf")):
        refuse_unless_enforced(schema, "llama.cpp-gbnf")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 5, "maximum": 2},
        {"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]},
    ],
)
def test_a_schema_without_an_instance_is_the_callers_mistake(schema):
    with pytest.raises(UsageError, match="no value can conform"):
        to_llguidance(Constraint("json_schema", schema))


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "number", "minimum": 0}, "minimum"),
        ({"type": ["number", "null"], "maximum": 0}, "maximum"),
        ({"type": "integer", "multipleOf": 5}, "multipleOf"),
        ({"type": "string", "pattern": "^[a-z]$"}, "pattern"),
        ({"type": "string", "format": "email"}, "format"),
        ({"minLength": 3}, "minLength"),
        ({"$ref": "#/$defs/a", "maxLength": 3, "$defs": {"a": {"type": "string"}}}, "maxLength"),
        ({"anyOf": [{"type": "string"}], "type": "string"}, "type"),
        ({"enum": ["a", 1], "type": "string"}, "type"),
        ({"type": "object", "properties": {}, "required": ["a"]}, "required"),
        ({"type": "object", "patternProperties": {"a": {}}}, "patternProperties"),
        ({"type": "object", "minProperties": 1}, "minProperties"),
        ({"type": "array", "prefixItems": [{}]}, "prefixItems"),
        ({"allOf": [{"type": "string"}]}, "allOf"),
        ({"type": "object", "properties": {"a": False}}, "the schema at"),
    ],
)
def test_llama_cpps_own_grammar_refuses_what_its_converter_drops(schema, keyword):
    with pytest.raises(UnsupportedFeature, match=keyword):
        refuse_unless_enforced(schema, "llama.cpp-gbnf")


@pytest.mark.parametrize(
    "schema",
    [
        OBJECT,
        {"type": ["integer", "null"], "minimum": 1, "exclusiveMaximum": 9, "title": "a note"},
        {"type": "string", "minLength": 1, "maxLength": 9},
        {"type": "string", "format": "uuid"},
        {"enum": ["a", "b"], "type": "string"},
        {"const": None},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1, "maxItems": 3, "$defs": {"x": {"const": 1}}},
        {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"], "additionalProperties": True},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_llama_cpps_own_grammar_takes_what_it_enforces(schema):
    assert ConstrainedOutput.json_schema(schema).constraint.value == schema
    refuse_unless_enforced(schema, "llama.cpp-gbnf")

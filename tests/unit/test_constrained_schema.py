"""A schema is refused by name before anything is sampled."""

import json

import pytest

from osport import ConstrainedOutput
from osport.constrained.schema import json_path, walk
from osport.constrained.tree import objects_of, places_of
from osport.errors import ConstraintViolated, UnsupportedFeature, UsageError

NEWEST = "https://json-schema.org/draft/2020-12/schema"
DRAFT7 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (3, ["object or a boolean", "int"]),
        (False, ["no value can conform"]),
        ({"type": "strin"}, ["$.type", "strin"]),
        ({"properties": {"a": {"minLength": -1}}}, ["$.properties.a.minLength"]),
        ({"type": "string", "maxLenght": 4}, ["'maxLenght'", "at $:", "'maxLength'"]),
        (
            {"properties": {"a b": {"additonalProperties": False}}},
            ["'additonalProperties'", '$.properties["a b"]', "x-"],
        ),
        ({"type": "string", "min-length": 4}, ["'min-length'", "'minLength'"]),
        ({"type": "string", "nullable": True}, ["nullable at $", "OpenAPI"]),
        ({"$schema": NEWEST, "dependencies": {"a": ["b"]}}, ["'dependencies'", "constrains nothing in Draft202012"]),
        ({"dependencies": {"a": ["b"]}, "$defs": {}, "prefixItems": [{}]}, ["'dependencies'", "constrains nothing"]),
        ({"$schema": "http://example.org/mine"}, ["$.$schema", "http://example.org/mine"]),
        ({"$schema": 5}, ["$.$schema", "5"]),
        ({"items": {"$ref": "#/$defs/nope"}}, ["$.items.$ref", "leads nowhere"]),
        ({"items": {"$ref": "https://example.org/other.json"}}, ["$.items.$ref", "leaves the document"]),
        ({"items": [{}], "$ref": "#/$defs/nope"}, ["$.$ref", "leads nowhere"]),
        ({"pattern": "(a"}, ["$.pattern", "(a"]),
        ({"patternProperties": {"[": {}}}, ["$.patternProperties", "["]),
        ({"const": float("nan")}, ["not JSON"]),
        ({"default": {1, 2}}, ["not JSON", "set"]),
        ({"description": "x" * 2_000_000}, ["2,000,0", "bytes"]),
    ],
)
def test_a_bad_schema_is_a_usage_error_with_its_place(schema, words):
    with pytest.raises(UsageError) as caught:
        ConstrainedOutput.json_schema(schema)
    for word in words:
        assert word in str(caught.value)


def test_a_schema_nested_too_deeply_is_refused_before_it_can_exhaust_the_stack():
    schema = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(UsageError, match="levels deep"):
        ConstrainedOutput.json_schema(schema)


def test_a_format_that_cannot_be_verified_is_refused_by_name():
    with pytest.raises(UnsupportedFeature) as caught:
        ConstrainedOutput.json_schema({"properties": {"v": {"format": "semver"}}})
    assert "'semver'" in str(caught.value)
    assert "$.properties.v.format" in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {"x-note": "free", "type": "string", "description": "", "default": 1},
        {"$schema": DRAFT7, "dependencies": {"a": ["b"]}, "items": [{}], "additionalItems": False},
        {"if": {"type": "string"}, "then": {"minLength": 1}, "else": {}},
        {"contains": {}, "minContains": 1, "maxContains": 2},
        {"$ref": "#/$defs/tree", "$defs": {"tree": {"items": {"$ref": "#/$defs/tree"}}}},
        {"$ref": "#name", "$defs": {"x": {"$anchor": "name", "type": "string"}}},
        {"$id": "https://example.org/a", "$ref": "b", "$defs": {"b": {"$id": "b", "type": "string"}}},
        {"enum": [{"maxLenght": "data, not a keyword"}], "properties": {"maxLenght": {}}},
    ],
)
def test_a_good_schema_passes(schema):
    assert ConstrainedOutput.json_schema(schema).constraint.value == schema


def test_without_a_named_draft_the_newest_that_knows_the_words_is_taken():
    dependent = ConstrainedOutput.json_schema({"dependencies": {"a": ["b"]}})
    with pytest.raises(ConstraintViolated) as caught:
        dependent.verify('{"a":1}')
    assert caught.value.keyword == "dependencies"
    strict = ConstrainedOutput.json_schema({"type": "integer", "minimum": 3, "exclusiveMinimum": True})
    with pytest.raises(ConstraintViolated):
        strict.verify("3")
    pair = ConstrainedOutput.json_schema({"items": [{"type": "string"}], "additionalItems": False})
    with pytest.raises(ConstraintViolated):
        pair.verify('["a","b"]')


def test_what_constrains_nothing_is_named_in_the_notes():
    output = ConstrainedOutput.json_schema(
        {"properties": {"a": {"javaType": "X", "_format": "date", "type": "string"}}}
    )
    assert [note.split(" is ")[0] for note in output.notes] == [
        "javaType at $.properties.a",
        "_format at $.properties.a",
    ]
    assert ConstrainedOutput.json_schema({"x-note": 1, "title": "t", "$comment": ""}).notes == ()


def test_the_schema_is_copied_so_that_a_later_change_has_no_effect():
    schema = {"enum": ["a"]}
    output = ConstrainedOutput.json_schema(schema)
    schema["enum"].append("b")
    assert output.constraint.value == {"enum": ["a"]}


def test_walk_visits_every_subschema_in_document_order_and_no_data():
    schema = {"properties": {"b": {"items": {}}, "a": {}}, "anyOf": [True, {"not": {}}], "const": {"items": {}}}
    assert [json_path(path) for path, _ in walk(json.loads(json.dumps(schema)))] == [
        "$",
        "$.properties.b",
        "$.properties.b.items",
        "$.properties.a",
        "$.anyOf[0]",
        "$.anyOf[1]",
        "$.anyOf[1].not",
    ]


def test_what_only_a_reference_finds_is_looked_at_too():
    schema = {"$ref": "#/stuff/x", "stuff": {"x": {"type": "number", "minimum": 5}}}
    assert "$.stuff.x" in [json_path(path) for path, _ in walk(schema)]
    rows = ConstrainedOutput.json_schema(schema).support("llama.cpp-gbnf")
    assert ("minimum", "refused") in [(row.keyword, row.status) for row in rows]
    hidden = {"$ref": "#/stuff/x", "stuff": {"x": {"type": "string", "maxLenght": 5}}}
    with pytest.raises(UsageError, match="maxLength"):
        ConstrainedOutput.json_schema(hidden)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {"items": [{"not": {}}, True, {}], "dependencies": {"a": ["b"], "c": {"type": "string"}}, "contains": [{}]},
        {"allOf": {"no": "list"}, "properties": {"a": {"anyOf": [{"$ref": "#/x/y"}, {"$ref": "#"}]}}, "x": {"y": {}}},
        {"$ref": "#/x/0", "x": [{"$ref": "#/z"}], "z": {"$defs": {"a": {"$ref": "#/x/0"}}}, "const": {"items": {}}},
    ],
)
def test_the_objects_of_a_schema_are_those_that_have_a_place(schema):
    found = [id(node) for node in objects_of(schema)]
    assert len(set(found)) == len(found)
    assert set(found) == places_of(schema).keys()


def test_a_schema_that_explodes_is_an_error_and_no_hang():
    schema = {"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {}}} for j in range(8)]} for i in range(8)]}
    with pytest.raises(UnsupportedFeature, match="too large"):
        ConstrainedOutput.json_schema(schema).matcher()


def test_additional_items_beside_an_applicator_are_not_lost():
    schema = {
        "$schema": DRAFT7,
        "items": [{"type": "integer"}],
        "allOf": [{"items": [{"type": "integer"}, {"type": "string"}]}],
        "additionalItems": {"type": "boolean"},
    }
    matcher = ConstrainedOutput.json_schema(schema).matcher()
    assert matcher.accepts("[1]")
    assert not matcher.accepts('[1,"hello"]')
    assert not matcher.accepts("[1,true]")


def test_a_boolean_items_beside_additional_items_is_verified():
    schema = {"$schema": DRAFT7, "items": True, "additionalItems": {"type": "string"}}
    assert ConstrainedOutput.json_schema(schema).verify("[1]") == [1]


def test_a_relative_id_is_joined_once():
    schema = {
        "$id": "https://example.org/base",
        "$ref": "nested/foo",
        "$defs": {"foo": {"$id": "nested/foo", "$ref": "./bar"}, "bar": {"$id": "nested/bar", "type": "number"}},
    }
    output = ConstrainedOutput.json_schema(schema)
    assert output.verify("1") == 1
    with pytest.raises(ConstraintViolated):
        output.verify('"a"')


DRAFT2019 = "https://json-schema.org/draft/2019-09/schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": DRAFT2019, "type": "array", "items": {"$recursiveRef": "#"}},
        {"$schema": DRAFT2019, "$recursiveAnchor": True, "type": "array", "items": {"$recursiveRef": "#"}},
        {"$dynamicAnchor": "node", "type": "array", "items": {"$dynamicRef": "#node"}},
        {"type": "array", "items": {"$dynamicRef": "#node"}, "$defs": {"a": {"$anchor": "node", "$ref": "#"}}},
    ],
)
def test_a_dynamic_reference_in_one_schema_is_a_plain_one(schema):
    output = ConstrainedOutput.json_schema(schema)
    matcher = output.matcher()
    for text, good in (("[]", True), ("[[],[[]]]", True), ("[1]", False), ("[[1]]", False)):
        assert matcher.accepts(text) == good, text
        assert ([row.status for row in output.support("llguidance")]) == ["exact"] * len(output.support("llguidance"))
    with pytest.raises(ConstraintViolated):
        output.verify("[1]")


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"$schema": DRAFT2019, "$id": "http://a.org/b", "$recursiveAnchor": True, "type": "array",
          "items": {"$recursiveRef": "#"}, "$defs": {"c": {"$id": "c", "$recursiveAnchor": True}}}, "$recursiveRef"),
        ({"$id": "http://a.org/b", "$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"},
          "$defs": {"c": {"$id": "c", "$dynamicAnchor": "n"}}}, "$dynamicRef"),
        ({"$id": "http://a.org/b", "$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}, "enum": [[], [[]]],
          "$defs": {"c": {"$id": "c", "$dynamicAnchor": "n"}}}, "$dynamicRef"),
    ],
)  # fmt: skip
def test_a_dynamic_reference_among_several_schemas_is_refused(schema, keyword):
    with pytest.raises(UnsupportedFeature, match=f"\\{keyword} at \\$\\.items"):
        ConstrainedOutput.json_schema(schema).matcher()


def test_a_grammar_that_fails_within_the_first_object_is_refused():
    names = [f"p{at}" for at in range(25)]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "not": {"required": names}}
    with pytest.raises(UnsupportedFeature, match="Current row") as caught:
        ConstrainedOutput.json_schema(schema).matcher()
    assert len(str(caught.value)) < 400


def test_a_number_of_properties_is_not_cut_short():
    properties = {f"p{at}": {"type": "integer"} for at in range(13)}
    schema = {"type": "object", "properties": properties, "additionalProperties": False, "minProperties": 2}
    with pytest.raises(UnsupportedFeature, match="minProperties"):
        ConstrainedOutput.json_schema(schema).matcher()
    del properties["p11"], properties["p12"]
    matcher = ConstrainedOutput.json_schema(schema).matcher()
    assert matcher.accepts('{"p9":1,"p10":2}')
    assert not matcher.accepts('{"p9":1}')


@pytest.mark.parametrize(
    "between", [{"anyOf": [{"type": "object"}]}, {"$ref": "#/$defs/x"}, {"enum": [{"a": 1}, {"b": 1}]}]
)
@pytest.mark.parametrize("turned", [False, True])
def test_patterns_for_names_are_known_to_the_rule_for_others(between, turned):
    patterns, others = {"patternProperties": {"^a": {}}}, {"additionalProperties": False}
    first, last = (others, patterns) if turned else (patterns, others)
    matcher = ConstrainedOutput.json_schema({**first, **between, **last, "$defs": {"x": {}}}).matcher()
    assert matcher.accepts('{"a":1}')
    assert not matcher.accepts('{"b":1}')


def test_a_definition_that_allows_nothing_does_not_forbid_the_rest():
    nothing = {"allOf": [{"type": "string", "pattern": "^a$"}, {"type": "string", "pattern": "^b$"}]}
    schema = {"properties": {"a": {"$ref": "#/$defs/x"}, "b": {"type": "integer"}}, "$defs": {"x": nothing}}
    matcher = ConstrainedOutput.json_schema({"type": "object", **schema}).matcher()
    assert matcher.accepts('{"b":1}')
    assert not matcher.accepts('{"a":"a"}')
    with pytest.raises(UsageError, match="no value can conform"):
        ConstrainedOutput.json_schema({"type": "object", **schema, "required": ["a"]}).matcher()


@pytest.mark.parametrize("old", [{"$schema": DRAFT7}, {"dependencies": {}}, {"$schema": DRAFT2019}])
def test_what_stands_beside_a_reference_counts_from_2019_on(old):
    beside = {"$ref": "#/definitions/any", "type": "string"}
    schema = {**old, "oneOf": [{"type": "number"}, beside], "definitions": {"any": {"maxItems": 9}}}
    output = ConstrainedOutput.json_schema(schema)
    if "2019" in str(old):
        assert output.verify("1") == 1
    else:
        with pytest.raises(ConstraintViolated):
            output.verify("1")
    assert output.matcher().accepts("1") == ("2019" in str(old))
    assert output.matcher().accepts("[]") == ("2019" not in str(old))

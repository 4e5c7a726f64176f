"""The way to say "I do not know" is one more value, described to the model and told apart afterwards."""

import pytest

from osport import ConstrainedOutput
from osport.errors import ConstraintViolated, UsageError

FORM = {
    "type": "object",
    "properties": {
        "sentiment": {"enum": ["pos", "neg"], "description": "The mood."},
        "who": {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]},
    },
    "required": ["sentiment"],
    "additionalProperties": False,
}


def test_an_enum_gains_a_member_and_the_description_says_what_it_means():
    plain = ConstrainedOutput.json_schema(FORM)
    output = plain.with_escape_hatch(on="sentiment", value="uncertain")
    field = output.constraint.value["properties"]["sentiment"]
    assert field["enum"] == ["pos", "neg", "uncertain"]
    assert field["description"] == "The mood. Answer uncertain when you cannot tell."
    assert output.is_uncertain(output.verify('{"sentiment":"uncertain"}'))
    assert not output.is_uncertain(output.verify('{"sentiment":"pos"}'))
    assert output.hash != plain.hash
    with pytest.raises(ConstraintViolated):
        plain.verify('{"sentiment":"uncertain"}')


def test_a_nested_value_becomes_nullable():
    output = ConstrainedOutput.json_schema(FORM).with_escape_hatch(on="who.age")
    assert output.is_uncertain(output.verify('{"sentiment":"pos","who":{"age":null}}'))
    assert not output.is_uncertain(output.verify('{"sentiment":"pos","who":{"age":0}}'))
    assert not output.is_uncertain(output.verify('{"sentiment":"pos"}'))
    assert output.matcher().accepts('{"sentiment":"pos","who":{"age":null}}')


def test_a_confidence_is_required_and_bounded():
    output = ConstrainedOutput.json_schema(FORM).with_escape_hatch(on="sentiment", value="uncertain", confidence=True)
    assert output.verify('{"sentiment":"pos","confidence":0.5}')["confidence"] == 0.5
    for text in ('{"sentiment":"pos"}', '{"sentiment":"pos","confidence":2}'):
        with pytest.raises(ConstraintViolated):
            output.verify(text)


LIST = {
    "$ref": "#/$defs/all",
    "$defs": {
        "mood": {"enum": ["pos", "neg"]},
        "one": {"type": "object", "properties": {"mood": {"$ref": "#/$defs/mood"}}, "additionalProperties": False},
        "all": {
            "type": "object",
            "properties": {
                "first": {"$ref": "#/$defs/one"},
                "rest": {"type": "array", "items": {"$ref": "#/$defs/one"}},
            },
            "additionalProperties": False,
        },
    },
}


def test_a_hatch_behind_references_and_in_lists_opens_that_place_alone():
    output = ConstrainedOutput.json_schema(LIST).with_escape_hatch(on="rest[].mood", value="unclear")
    text = '{"rest":[{"mood":"pos"},{"mood":"unclear"}]}'
    assert output.matcher().accepts(text)
    assert output.is_uncertain(output.verify(text))
    assert not output.is_uncertain(output.verify('{"first":{"mood":"pos"},"rest":[{"mood":"neg"},{}]}'))
    with pytest.raises(ConstraintViolated):
        output.verify('{"first":{"mood":"unclear"}}')


def test_each_of_several_hatches_counts():
    output = (
        ConstrainedOutput.json_schema(FORM).with_escape_hatch(on="sentiment", value="?").with_escape_hatch(on="who.age")
    )
    assert output.is_uncertain(output.verify('{"sentiment":"?"}'))
    assert output.is_uncertain(output.verify('{"sentiment":"pos","who":{"age":null}}'))
    assert not output.is_uncertain(output.verify('{"sentiment":"pos","who":{"age":3}}'))


@pytest.mark.parametrize(
    ("on", "value", "word"),
    [("mood", "x", r"\$\.mood"), ("who.name", None, r"\$\.who\.name"), ("sentiment", "pos", "already")],
)
def test_a_hatch_that_cannot_be_made_is_refused(on, value, word):
    with pytest.raises(UsageError, match=word):
        ConstrainedOutput.json_schema(FORM).with_escape_hatch(on=on, value=value)


def test_only_a_schema_has_a_hatch():
    with pytest.raises(UsageError, match="JSON Schema"):
        ConstrainedOutput.choice(["a", "b"]).with_escape_hatch(on="a")

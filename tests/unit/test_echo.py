import pytest

from osport import ConstrainedOutput, Model, Request, Retries
from osport.errors import RateLimited, UsageError


def test_a_mapping_answers_by_what_was_said():
    model = Model("echo:", script={"a": "1", "b": "2"})
    assert [model.generate(prompt).text for prompt in "ba"] == ["2", "1"]
    with pytest.raises(UsageError, match="no answer for 'c'"):
        model.generate("c")


def test_a_sequence_answers_in_turn_and_may_raise():
    model = Model("echo:", script=["1", RateLimited("slow down")], retries=Retries(most=0))
    assert model.generate("x").text == "1"
    with pytest.raises(RateLimited):
        model.generate("x")
    assert model.generate("x").text == "1"


def test_max_tokens_and_stop_cut_the_answer():
    answer = Model("echo:").generate("one two three", max_tokens=3)
    assert (answer.text, answer.finish_reason, answer.usage.completion_tokens) == ("one two", "length", 3)
    answer = Model("echo:").generate("one two three", stop=[" two"])
    assert (answer.text, answer.finish_reason) == ("one", "stop")


def test_raw_prompts_come_back():
    assert Model("echo:").generate(Request(prompt="raw")).text == "raw"


def test_the_smallest_value_of_a_schema_is_made_up():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"const": "x"},
            "c": {"enum": ["p", "q"]},
            "d": {"type": "array"},
        },
        "required": ["a", "b", "c", "d"],
        "additionalProperties": False,
    }
    answer = Model("echo:").generate("x", output=ConstrainedOutput.json_schema(schema))
    assert answer.parsed == {"a": 0, "b": "x", "c": "p", "d": []}


@pytest.mark.parametrize("options", [{"delay": -1}, {"sript": []}])
def test_wrong_options_are_refused(options):
    with pytest.raises(UsageError, match="delay|sript"):
        Model("echo:", **options)

"""Classes as schemas, and answers as their instances."""

import dataclasses
import enum
from typing import Any, Literal, NotRequired, TypedDict

import attrs
import pytest

from osport import ConstrainedOutput
from osport.errors import ConstraintViolated, UsageError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Part:
    name: str
    tags: list[str] = attrs.field(factory=list)


@attrs.frozen
class Whole:
    part: Part
    colour: Colour
    kind: Literal["a", "b"]
    parts: list[Part]
    extra: dict[str, int] | None = None


@dataclasses.dataclass
class Tree:
    value: int
    children: "list[Tree]" = dataclasses.field(default_factory=list)


class Row(TypedDict):
    id: int
    note: NotRequired[str]


def test_an_attrs_class_comes_back_with_everything_inside_it():
    output = ConstrainedOutput.json_schema(Whole)
    text = '{"part":{"name":"x"},"colour":"blue","kind":"a","parts":[{"name":"y","tags":["t"]}],"extra":{"n":1}}'
    assert output.verify(text) == Whole(Part("x"), Colour.BLUE, "a", [Part("y", ["t"])], {"n": 1})
    assert output.matcher().accepts(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"part":{"name":1},"colour":"red","kind":"a","parts":[]}', "$.part.name"),
        ('{"part":{"name":"x"},"colour":"green","kind":"a","parts":[]}', "$.colour"),
        ('{"part":{"name":"x"},"colour":"red","kind":"a"}', "$"),
        ('{"part":{"name":"x"},"colour":"red","kind":"a","parts":[],"more":1}', "$"),
    ],
)
def test_what_is_no_instance_is_a_violation_with_its_path(text, path):
    with pytest.raises(ConstraintViolated) as caught:
        ConstrainedOutput.json_schema(Whole).verify(text)
    assert caught.value.path == path


def test_a_dataclass_that_contains_itself():
    output = ConstrainedOutput.json_schema(Tree)
    assert output.verify('{"value":1,"children":[{"value":2}]}') == Tree(1, [Tree(2)])
    assert output.matcher().accepts('{"value":1,"children":[{"value":2,"children":[]}]}')


def test_a_typed_dict_knows_what_must_be_there():
    output = ConstrainedOutput.json_schema(Row)
    assert output.verify('{"id":1}') == {"id": 1}
    with pytest.raises(ConstraintViolated):
        output.verify('{"note":"x"}')


def test_a_pydantic_model():
    pydantic = pytest.importorskip("pydantic")

    class Point(pydantic.BaseModel):
        x: int = pydantic.Field(ge=0)

    assert ConstrainedOutput.json_schema(Point).verify('{"x":3}') == Point(x=3)
    with pytest.raises(ConstraintViolated):
        ConstrainedOutput.json_schema(Point).verify('{"x":-3}')


@attrs.frozen
class Odd:
    value: complex
    anything: Any = None


@pytest.mark.parametrize(("kind", "word"), [(int, "attrs class"), (Odd, "Odd.value")])
def test_a_class_without_a_schema_is_refused_by_name(kind, word):
    with pytest.raises(UsageError, match=word):
        ConstrainedOutput.json_schema(kind)

"""Classes as schemas, and answers as their instances."""

import dataclasses
import datetime
import enum
from collections.abc import Sequence
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


def same_name():
    @attrs.frozen
    class Part:
        size: int

    return Part


Other = same_name()


@attrs.frozen
class Two:
    first: Part
    second: Other


def test_classes_of_one_name_stay_apart():
    output = ConstrainedOutput.json_schema(Two)
    text = '{"first":{"name":"x"},"second":{"size":1}}'
    assert output.verify(text) == Two(Part("x"), Other(1))
    with pytest.raises(ConstraintViolated):
        output.verify('{"first":{"name":"x"},"second":{"name":"x"}}')


@attrs.frozen
class Rich:
    _secret: str
    when: datetime.datetime
    day: datetime.date
    pair: tuple[int, str]
    either: int | str | list[int]
    number: int | float | bool
    many: Sequence[str] = ()


def test_what_is_read_of_json_has_the_types_of_the_class():
    output = ConstrainedOutput.json_schema(Rich)
    text = (
        '{"secret":"s","when":"2026-01-02T03:04:05Z","day":"2026-01-02","pair":[1,"a"],"either":[1],"number":1.5,'
        '"many":["x"]}'
    )
    assert output.matcher().accepts(text)
    assert output.verify(text) == Rich(
        "s",
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        datetime.date(2026, 1, 2),
        (1, "a"),
        [1],
        1.5,
        ("x",),
    )


def test_a_list_of_a_class():
    assert ConstrainedOutput.json_schema(list[Part]).verify('[{"name":"x"}]') == [Part("x")]


def test_what_a_class_refuses_breaks_the_form():
    @attrs.frozen
    class Big:
        size: int = attrs.field(validator=attrs.validators.gt(5))

    @dataclasses.dataclass
    class Odd:
        size: int

        def __post_init__(self):
            if self.size % 2 == 0:
                raise ValueError("even")

    for target, reason in ((Big, "must be > 5"), (Odd, "even")):
        with pytest.raises(ConstraintViolated, match=reason) as caught:
            ConstrainedOutput.json_schema(target).verify('{"size":2}')
        assert caught.value.keyword == "class"


def test_annotations_that_cannot_be_looked_up_are_a_usage_error():
    @attrs.frozen
    class Local:
        part: "Nowhere"  # noqa: F821

    with pytest.raises(UsageError, match="not in a function"):
        ConstrainedOutput.json_schema(Local)

    class Hidden(TypedDict):
        id: int
        note: "NotRequired[str]"

    with pytest.raises(UsageError, match="annotations are texts"):
        ConstrainedOutput.json_schema(Hidden)


def test_a_class_that_cannot_be_told_from_another_is_refused_at_once():
    @attrs.frozen
    class Twin:
        name: str
        tags: list[str] = attrs.field(factory=list)

    @attrs.frozen
    class Which:
        part: Part | Twin

    with pytest.raises(UsageError, match="no values can be made"):
        ConstrainedOutput.json_schema(Which)

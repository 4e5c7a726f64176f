"""Bounds and multiples of numbers: the mask takes what arithmetic with exact decimals allows, and nothing else."""

import json
from decimal import Decimal
from fractions import Fraction

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from osport import ConstrainedOutput
from osport.constrained.formats import CHECKER
from osport.constrained.patterns import with_safe_patterns
from osport.constrained.safe_numbers import is_read_rightly
from osport.errors import UnsupportedFeature, UsageError

pytest.importorskip("llguidance")
SMALL = st.integers(-5, 5) | st.decimals(-4, 4, places=1).map(float) | st.decimals(-4, 4, places=3).map(float)
ROUND = st.sampled_from([0, 1.0, -0.0, 9, 9.99, 10, 10.01, 99, 99.9, 100, 101, 999.5, 1000, -99.9, -100])
EXTREME = st.sampled_from(
    [2**53, 2**53 + 1, -(2**53) - 1, 2**60 + 3, 10**18, 2**63 - 1, -(2**63), 10**20, 1e20, -1e21, 1e-5, -1e-7, 3e-20,
     0.30000000000000004, 3.141592653589793, 100.00000000000001]
)  # fmt: skip
NUMBERS = SMALL | ROUND | EXTREME
STEPS = st.sampled_from([1, 2, 3, 7, 10, 0.5, 0.1, 0.01, 0.25, 0.125, 1.5, 2.5, 0.3])
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
KINDS = st.sampled_from(["number", "integer", ["number", "null"], None])
SCHEMAS = st.fixed_dictionaries({}, optional={**dict.fromkeys(BOUNDS, NUMBERS), "multipleOf": STEPS})
OFFSETS = [Decimal(of) for of in ("0", "1", "-1", "0.1", "-0.1", "0.5", "0.01", "-0.01", "0.001", "1e-6", "-1e-6", "3")]


def exact(number):
    return Fraction(Decimal(repr(number)))


def allowed(schema, number):
    value = Fraction(number)
    if schema.get("type") == "integer" and value.denominator != 1:
        return False
    checks = {
        "minimum": lambda bound: value >= bound,
        "maximum": lambda bound: value <= bound,
        "exclusiveMinimum": lambda bound: value > bound,
        "exclusiveMaximum": lambda bound: value < bound,
        "multipleOf": lambda step: (value / step).denominator == 1,
    }
    return all(check(exact(schema[word])) for word, check in checks.items() if word in schema)


def around(schemas):
    """Numbers at, near and between the bounds, each in its plain spelling."""
    found = {Decimal(0), Decimal("0.3"), Decimal("1.5"), Decimal(-1)}
    for schema in schemas:
        for word in BOUNDS:
            if word in schema:
                found |= {Decimal(repr(schema[word])) + offset for offset in OFFSETS}
                found.add(-Decimal(repr(schema[word])))
    return found


def plain(number):
    return str(int(number)) if number == int(number) else format(number.normalize(), "f")


def wrong(matcher, schema, other, numbers):
    """Numbers that the mask takes and should not; and those in reach of doubles that it does not take and should."""
    for number in numbers:
        may = allowed(schema, number) and allowed(other, number)
        for spelling in (plain(number), format(number, "f"), format(number, "f") + ("0" if number % 1 else ".0")):
            if matcher.accepts(spelling) and not may:
                yield spelling, "taken"
        digits = len(number.normalize().as_tuple().digits)
        if may and abs(number) < 2**53 and digits < 9 and not matcher.accepts(plain(number)):
            yield plain(number), "not taken"


@settings(max_examples=120, deadline=None)
@given(KINDS, SCHEMAS)
def test_every_combination_of_bounds_and_a_multiple(kind, schema):
    schema = {**schema, **({} if kind is None else {"type": kind})}
    numbers = around([schema])
    try:
        matcher = ConstrainedOutput.json_schema(schema).matcher()
    except UnsupportedFeature:
        assume(False)
    except UsageError:
        assert not [number for number in numbers if allowed(schema, number)]
        return
    assert list(wrong(matcher, schema, {}, numbers)) == []


@settings(max_examples=60, deadline=None)
@given(SCHEMAS, SCHEMAS)
def test_bounds_that_meet_in_one_number(one, other):
    numbers = around([one, other])
    try:
        matcher = ConstrainedOutput.json_schema({"type": "number", "allOf": [one, other]}).matcher()
    except UnsupportedFeature:
        assume(False)
    except UsageError:
        assert not [number for number in numbers if allowed(one, number) and allowed(other, number)]
        return
    assert list(wrong(matcher, one, other, numbers)) == []


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.booleans(), SMALL, SMALL)
def test_the_switches_of_draft_4_are_exclusive_bounds(low_open, high_open, low, high):
    schema = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "number", "minimum": low, "maximum": high,
              "exclusiveMinimum": low_open, "exclusiveMaximum": high_open}  # fmt: skip
    new = {"exclusiveMinimum" if low_open else "minimum": low, "exclusiveMaximum" if high_open else "maximum": high}
    try:
        matcher = ConstrainedOutput.json_schema(schema).matcher()
    except UsageError:
        assert not [number for number in around([new]) if allowed(new, number)]
        return
    assert list(wrong(matcher, new, {}, around([new]))) == []


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, ["0.1", "0.5"], ["0", "0.0", "0.6"]),
        ({"type": "number", "exclusiveMinimum": 2, "maximum": 2.5}, ["2.1"], ["2", "2.0"]),
        ({"type": "number", "minimum": -2.5, "exclusiveMaximum": -2}, ["-2.1", "-2.5"], ["-2", "-2.0"]),
        ({"type": "number", "minimum": -0.5, "exclusiveMaximum": 0}, ["-0.1"], ["0", "-0"]),
        ({"exclusiveMinimum": 101, "maximum": 101.1, "type": "number"}, ["101.1"], ["101", "101.0"]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, ["0.1", "1"], ["0"]),
        ({"const": 2**53 + 2}, [str(2**53 + 2)], [str(2**53)]),
        ({"const": -0.0}, ["0"], ["1"]),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, ["0", "-5", str(10**18)], [str(2**63)]),
        ({"type": "integer", "exclusiveMinimum": 2**53}, [str(2**53 + 2)], [str(2**53)]),
        ({"type": "number", "maximum": 3.99}, ["3.9", "3.99"], ["3.991", "4"]),
        ({"type": "number", "minimum": -0.55}, ["-0.5", "-0.55"], ["-0.56"]),
        ({"type": "number", "multipleOf": 0.25}, ["0.5", "0.25", "1", "-1.5"], ["0.3", "0.1"]),
        ({"enum": [0.1, 0.2, 0.3], "multipleOf": 0.1}, ["0.3"], ["0.4"]),
        ({"enum": [1.0, 1, 2]}, ["1", "2"], ["3"]),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_numbers_that_llguidance_alone_reads_wrongly(schema, good, bad):
    output = ConstrainedOutput.json_schema(schema)
    matcher = output.matcher()
    for text in good:
        assert matcher.accepts(text), text
        output.verify(text)
    for text in bad:
        assert not matcher.accepts(text), text


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 3_000_017},
        {"type": "number", "multipleOf": 0.100003},
        {"allOf": [{"type": "integer", "multipleOf": 60_001}, {"multipleOf": 60_013}]},
        {"items": {"multipleOf": 65_537}},
    ],
)
def test_a_multiple_that_would_explode_or_overflow_is_refused_by_name(schema):
    with pytest.raises(UnsupportedFeature, match="the keyword multipleOf at"):
        ConstrainedOutput.json_schema(schema).matcher()
    checked = ConstrainedOutput.json_schema(schema, on_unsupported="check")
    checked.matcher()


def test_a_number_that_is_beyond_the_engine_is_refused_by_name():
    large = [("const", 2**53 + 1), ("enum", [1, {"a": [2**53 + 1]}]), ("const", 10**30), ("enum", [1e20])]
    for word, value in [*large, ("maximum", 1e20), ("minimum", -1e300)]:
        with pytest.raises(UnsupportedFeature, match=f"the keyword {word} at"):
            ConstrainedOutput.json_schema({word: value}).matcher()


def test_bounds_with_no_double_between_them_are_refused_and_not_called_a_contradiction():
    one = 2**53 + 1
    for schema in ({"minimum": one, "maximum": one}, {"allOf": [{"minimum": one}, {"maximum": one}]}):
        with pytest.raises(UnsupportedFeature, match="the keyword minimum at"):
            ConstrainedOutput.json_schema({"type": "integer", **schema}).matcher()


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-4, 1e15))
def test_a_double_that_is_read_rightly_is_the_only_one_that_the_mask_takes(number):
    try:
        matcher = ConstrainedOutput.json_schema({"const": number}).matcher()
    except UnsupportedFeature:
        assert not is_read_rightly(number)
    else:
        assert matcher.accepts(plain(Decimal(repr(number))))


@pytest.mark.parametrize(("value", "step", "multiple"), [(0.3, 0.1, True), (19.99, 0.01, True), (0.35, 0.1, False),
                                                         (10**20, 3, False), (1e300, 2, True)])  # fmt: skip
def test_multiples_are_verified_in_decimals(value, step, multiple):
    draft = with_safe_patterns(jsonschema.Draft202012Validator)
    assert draft({"multipleOf": step}, format_checker=CHECKER).is_valid(value) == multiple

"""Patterns are matched to the very end, in bounded time, and llguidance reads them as they are meant."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osport import ConstrainedOutput
from osport.constrained.patterns import TooSlow, is_risky, matches, parts_of, safe_pattern
from osport.errors import ConstraintViolated


def test_a_dollar_is_the_end_and_not_the_place_before_a_last_line_break():
    assert matches("^a$", "a")
    assert not matches("^a$", "a\n")
    assert matches("[$]$", "a$")
    assert matches(r"\$x$", "$x")
    output = ConstrainedOutput.json_schema({"type": "string", "pattern": "^a$"})
    with pytest.raises(ConstraintViolated):
        output.verify('"a\\n"')


def test_words_and_digits_are_ascii_as_in_the_specification():
    assert matches(r"^\W$", "é")
    assert not matches(r"^[\w.]$", "é")
    assert not matches(r"^\d$", "\u0663")


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a*)*$", "a*a*a*$", "^(?:a?b?)*$"])
def test_a_pattern_that_could_take_for_ever_is_risky(pattern):
    assert is_risky(pattern)


@pytest.mark.parametrize("pattern", ["^[a-z]+$", "^a{3}$", "^(?:ab)+$", "^[0-9]{4}-[0-9]{2}$"])
def test_a_pattern_that_cannot_is_not(pattern):
    assert not is_risky(pattern)


def test_a_catastrophic_pattern_neither_hangs_nor_guesses():
    long = "a" * 60
    output = ConstrainedOutput.json_schema({"type": "string", "pattern": "^(a+)+$"})
    started = time.monotonic()
    assert output.verify(json.dumps(long)) == long
    with pytest.raises(ConstraintViolated) as caught:
        output.verify(json.dumps(long + "!"))
    assert caught.value.keyword == "pattern"
    regex = ConstrainedOutput.regex("(a+)+")
    assert regex.verify(long) == long
    with pytest.raises(ConstraintViolated):
        regex.verify(long + "!")
    assert time.monotonic() - started < 10


def test_a_pattern_that_no_automaton_takes_has_a_time_limit():
    assert matches("^(?=a)(a+)+$", "a" * 40)
    with pytest.raises(TooSlow, match="more than 2 s"):
        matches("^(?=a)(a+)+$", "a" * 60 + "!")
    output = ConstrainedOutput.json_schema({"type": "string", "pattern": "^(?=a)(a+)+$"})
    with pytest.raises(ConstraintViolated, match="not verified"):
        output.verify(json.dumps("a" * 60 + "!"))


CLASSES = [
    '[^"]',
    r"[^\\]",
    r'[^"\\]',
    '[^"\\n]',
    r"[^\s]",
    r'[^\s"]',
    "[a-z]",
    ".",
    r"[^a]",
    r"[\s\S]",
    r"\W",
    '[^a"]',
]
TEXTS = st.text('ab"\\\n\t\x01é ', max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=2), st.sampled_from(["", "+", "*"]), TEXTS)
def test_the_mask_of_a_class_keeps_out_what_the_class_excludes(classes, many, text):
    pattern = f"^(?:{'|'.join(classes)}){many}$"
    matcher = ConstrainedOutput.json_schema({"type": "string", "pattern": pattern}).matcher()
    for spelling in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        if matcher.accepts(spelling):
            assert matches(pattern, text)


def test_a_class_that_would_be_misread_loses_only_nul():
    assert safe_pattern('^[^"]+$') == r'^[^\x00"]+$'
    assert safe_pattern("^[^a]$") == "^[^a]$"
    assert safe_pattern(r"^[\x00-!]$") is None
    assert parts_of(r"a[^]x]\]$") == ["a", "[^]x]", r"\]", "$"]

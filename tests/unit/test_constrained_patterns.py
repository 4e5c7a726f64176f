"""Patterns are matched to the very end, in bounded time, and llguidance reads them as they are meant."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osport import ConstrainedOutput
from osport.constrained.patterns import TooSlow, is_risky, matches, parts_of, runs_in, safe_pattern
from osport.errors import ConstraintViolated, UnsupportedFeature


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
    assert runs_in(pattern) >= 3
    assert is_risky(pattern, 1000)
    assert not is_risky(pattern, 10)


@pytest.mark.parametrize("pattern", ["^[a-z]+$", "^a{3}$", "^(?:ab)+$", "^[0-9]{4}-[0-9]{2}$"])
def test_a_pattern_that_cannot_is_not(pattern):
    assert runs_in(pattern) <= 1
    assert not is_risky(pattern, 5000)


@pytest.mark.parametrize(("pattern", "text"), [(r"\s+$", " " * 60_000 + "x"), ("a*b*c", "a" * 60_000)])
def test_a_long_text_is_matched_in_bounded_time(pattern, text):
    output = ConstrainedOutput.json_schema({"type": "string", "pattern": pattern})
    started = time.monotonic()
    with pytest.raises(ConstraintViolated):
        output.verify(json.dumps(text))
    assert time.monotonic() - started < 5


WORDS = [r"\s", r"\S", r"\w", r"\W", r"\d", r"\D"]
STRANGE = ["\x1c", "\x1f", "\x85", "\xa0", "\u2028", "\ufeff", "\u0663", "é", "a", "1", "\n", "😀"]


@pytest.mark.parametrize("form", ["^{}$", "^[{}]$", "^[^{}]$", "^[{}x]$"])
@pytest.mark.parametrize("word", WORDS)
def test_the_mask_and_the_verification_mean_the_same_classes(word, form):
    pattern = form.format(word)
    matcher = ConstrainedOutput.json_schema({"type": "string", "pattern": pattern}).matcher()
    for text in STRANGE:
        taken = any(matcher.accepts(json.dumps(text, ensure_ascii=escaped)) for escaped in (True, False))
        assert taken == matches(pattern, text), text


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^\p{L}+$", "éa", "a1"),
        (r"^[^\p{L}]$", "1", "é"),
        (r"^(?<year>\d)$", "1", "a"),
        (r"^\u{1F600}$", "😀", "u"),
        (r"^[\u{41}-\u{43}]$", "B", "D"),
        (r"^[\w-.]+$", "a-.", "a!"),
    ],
)
def test_patterns_of_ecma_262_that_python_does_not_take(pattern, good, bad):
    output = ConstrainedOutput.json_schema({"type": "string", "pattern": pattern})
    assert output.verify(json.dumps(good)) == good
    with pytest.raises(ConstraintViolated):
        output.verify(json.dumps(bad))
    matcher = output.matcher()
    assert matcher.accepts(json.dumps(good, ensure_ascii=False))
    assert not matcher.accepts(json.dumps(bad, ensure_ascii=False))


@pytest.mark.parametrize("pattern", ["[^]", r"\p{Nonsense}", r"^\cA$", r"^(?<a>b)\k<a>$"])
def test_a_pattern_that_nobody_here_matches_or_enforces_is_refused_or_named(pattern):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    with pytest.raises(UnsupportedFeature, match=r"\$\.properties\.a\.pattern"):
        ConstrainedOutput.json_schema(schema).matcher()
    output = ConstrainedOutput.json_schema(schema, on_unsupported="check")
    assert output.matcher().accepts('{"a":"x"}')
    rows = {row.keyword: row.status for row in output.support("llguidance")}
    assert rows["pattern"] in ("unknown", "checked")


def test_the_escapes_of_ecma_262_are_verified():
    assert matches(r"^\cA$", "\x01")
    assert matches(r"^(?<a>b)\k<a>$", "bb")
    assert not matches(r"^(?<a>b)\k<a>$", "bc")


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

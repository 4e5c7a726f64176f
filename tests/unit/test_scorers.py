"""Scorers: when is an answer right?"""

import pytest

from osport.errors import ContractViolation, UsageError
from osport.evals.golden import GoldenItem
from osport.evals.scorers import best_constant_share, is_right, scorer
from osport.plugin.hookspecs import ScorerSpec


@pytest.mark.parametrize(
    ("name", "expected", "answer", "right"),
    [
        ("label", "Pos", " pos\n", True),
        ("label", "pos", "positive", False),
        ("label", "STRASSE", "straße", True),
        ("label", "1", 1, False),
        ("json", {"a": 1, "b": "x"}, {"b": "X ", "a": 1.0}, True),
        ("json", {"a": 1}, {"a": 1, "b": 2}, False),
        ("json", [1, 2], [2, 1], False),
        ("json", True, 1, False),
        ("json", None, None, True),
        ("json:a", {"a": "pos", "b": 1}, {"a": "POS", "b": 2}, True),
        ("json:a,b", {"a": "pos", "b": 1}, {"a": "pos", "b": 2}, False),
        ("json:a", {"a": None}, {}, False),
        ("json:a", {"a": "pos"}, "pos", False),
    ],
)
def test_built_in_scorers(name, expected, answer, right):
    assert is_right(scorer(name), expected, answer) is right


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown scorer 'lable'.*label.*json"):
        scorer("lable")


def test_a_field_list_with_a_hole_is_refused():
    with pytest.raises(UsageError, match="name the fields"):
        scorer("json:a,")


def test_an_item_without_the_scored_field_is_a_usage_error():
    with pytest.raises(UsageError, match="field total"):
        is_right(scorer("json:total"), {"date": "x"}, {"total": 1})


def test_a_plugged_in_scorer_joins_by_name(monkeypatch):
    from osport.plugin import registry as module

    near = ScorerSpec("near", lambda expected, answer: float(abs(expected - answer) < 1))
    monkeypatch.setattr(module.Registry, "scorers", lambda self: {"near": near})
    assert is_right(scorer("near"), 3, 3.5)
    assert not is_right(scorer("near"), 3, 5)


def test_a_score_between_right_and_wrong_is_refused():
    with pytest.raises(ContractViolation, match=r"'half'.*0\.5"):
        is_right(ScorerSpec("half", lambda expected, answer: 0.5), "a", "b")


def items(*expected):
    return [GoldenItem(str(number), "text", value) for number, value in enumerate(expected)]


def test_the_best_constant_counts_the_most_frequent_headline_answer():
    rated = [{"s": "pos", "n": n} for n in range(6)] + [{"s": "neg", "n": n} for n in range(4)]
    assert best_constant_share(scorer("json:s"), items(*rated)) == 0.6


def test_there_is_no_best_constant_where_every_answer_differs():
    assert best_constant_share(scorer("label"), items(*map(str, range(31)))) is None

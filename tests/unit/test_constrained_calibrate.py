"""Calibration takes the label bias out, and only that."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osport.constrained.calibrate import LabelScores, batch, contextual, normalised
from osport.errors import UsageError

LOGS = st.floats(-30, -0.01)


def scores(**logs):
    return LabelScores(logs)


def test_probabilities_are_normalised_over_the_labels_and_the_mass_is_kept():
    item = scores(pos=math.log(0.03), neg=math.log(0.01))
    assert normalised(item) == pytest.approx({"pos": 0.75, "neg": 0.25})
    assert item.mass == pytest.approx(0.04)


def test_contextual_calibration_divides_by_the_preference_without_content():
    biased = scores(pos=math.log(0.8), neg=math.log(0.2))
    assert contextual(biased, [biased]) == pytest.approx({"pos": 0.5, "neg": 0.5})
    item = scores(pos=math.log(0.6), neg=math.log(0.4))
    assert contextual(item, [biased]) == pytest.approx({"pos": 0.75 / 2.75, "neg": 2 / 2.75})


def test_batch_calibration_restores_an_order_that_a_bias_hides():
    items = [scores(pos=math.log(0.9), neg=math.log(0.1)), scores(pos=math.log(0.6), neg=math.log(0.4))]
    assert all(max(p, key=p.get) == "pos" for p in map(normalised, items))
    first, second = batch(items)
    assert first["pos"] > 0.5 > second["pos"]


@given(st.lists(st.tuples(LOGS, LOGS), min_size=2, max_size=8), st.floats(-5, 5))
def test_a_constant_preference_for_a_label_changes_nothing_after_contextual_calibration(pairs, bias):
    """The same shift of a label's log-probability on the item and on the content-free input cancels out."""
    (a, b), (c, d) = pairs[:2]
    plain = contextual(scores(x=a - 10, y=b - 10), [scores(x=c - 10, y=d - 10)])
    shifted = contextual(scores(x=a - 10 + bias, y=b - 10), [scores(x=c - 10 + bias, y=d - 10)])
    assert plain["x"] == pytest.approx(shifted["x"], rel=1e-6, abs=1e-12)


@given(st.lists(st.tuples(LOGS, LOGS, LOGS), min_size=2, max_size=8))
def test_probabilities_sum_to_one(triples):
    items = [scores(a=a, b=b, c=c) for a, b, c in triples]
    for probabilities in batch(items):
        assert sum(probabilities.values()) == pytest.approx(1)
        assert all(0 <= value <= 1 for value in probabilities.values())


@pytest.mark.parametrize("make", [
    lambda: scores(only=-1.0),
    lambda: scores(a=0.5, b=-1.0),
    lambda: scores(a=math.nan, b=-1.0),
    lambda: batch([scores(a=-1.0, b=-1.0)]),
    lambda: contextual(scores(a=-1.0, b=-1.0), []),
    lambda: contextual(scores(a=-1.0, b=-1.0), [scores(a=-1.0, c=-1.0)]),
    lambda: batch([scores(a=-1.0, b=-1.0), scores(a=-1.0, c=-1.0)]),
])  # fmt: skip
def test_scores_that_cannot_be_calibrated_are_refused(make):
    with pytest.raises(UsageError):
        make()


def test_a_label_that_is_impossible_everywhere_stays_so():
    item = scores(a=-math.inf, b=-0.1)
    assert normalised(item) == {"a": 0.0, "b": 1.0}
    assert contextual(item, [item])["b"] == pytest.approx(1.0)

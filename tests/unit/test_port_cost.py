"""Unit costs: what is known, and that the unknown never turns into zero."""

import pytest

from osport.evals import ItemResult
from osport.port.cost import UnitCost, busy_seconds, closed_cost, local_cost


def item(name="a", status="answered", **more):
    return ItemResult(name, status, **more)


def test_busy_seconds_unites_parallel_calls_and_leaves_pauses_out():
    spans = [(0, 10), (5, 12), (6, 7), (100, 103), (100, 101)]
    assert busy_seconds([item(started=start, ended=end) for start, end in spans]) == 15


def test_the_machine_is_paid_for_the_time_it_was_busy():
    results = [item(started=0, ended=9), item(started=9, ended=18)]
    cost = local_cost(results, 0.4)
    assert cost.usd_per_1000 == pytest.approx(0.4 * 18 / 3600 / 2 * 1000)
    assert "0.4 USD/h x 18.0 busy seconds / 2 items" in cost.basis


def test_an_unknown_machine_price_is_unknown():
    cost = local_cost([item(started=0, ended=9)], None)
    assert cost.usd_per_1000 is None
    assert "machine_usd_per_hour" in cost.basis


def claude(name="a", **more):
    given = {"model": "claude-haiku-4-5", "prompt_tokens": 1_000_000, "completion_tokens": 100_000} | more
    return item(name, **given)


def test_a_closed_model_is_priced_by_the_tokens_it_returned():
    cost = closed_cost([claude(), claude("b"), item("c", "error")])
    assert cost.usd_per_1000 == pytest.approx(1000 * (1.00 + 0.50))
    assert "claude-haiku-4-5" in cost.basis
    assert "genai-prices" in cost.basis
    assert "1 failed calls not counted" in cost.basis


def test_cached_tokens_cost_less():
    assert closed_cost([claude(cached_tokens=900_000)]).usd_per_1000 < closed_cost([claude()]).usd_per_1000


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ([claude(), claude("b", prompt_tokens=None)], "item 'b'"),
        ([claude(model="")], "item 'a'"),
        ([claude(model="a-model-nobody-lists")], "does not list the model 'a-model-nobody-lists'"),
        ([item("a", "error")], "no answers"),
    ],
)
def test_what_cannot_be_priced_is_unknown_with_the_reason(results, why):
    cost = closed_cost(results)
    assert cost.usd_per_1000 is None
    assert why in cost.basis


def test_wrong_answers_cost_what_the_port_file_says():
    assert UnitCost(2.0, "x").with_errors(0.9, 0.5) == pytest.approx(2.0 + 1000 * 0.1 * 0.5)
    assert UnitCost(None, "x").with_errors(0.9, 0.5) is None
    assert UnitCost(2.0, "x").with_errors(0.9, None) is None

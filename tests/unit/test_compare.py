"""Pairing two arms: flips by direction, missing items by name."""

import pytest

from osport.evals import ItemResult, compare
from osport.evals.compare import NothingToCompare
from osport.evals.statistics import mcnemar_exact, tango


def arm(**right):
    """An arm from item ids to True, False, or "error"."""
    return {
        name: ItemResult(name, "error" if value == "error" else "answered", right=value is True)
        for name, value in right.items()
    }


IDS = ["a", "b", "c", "d", "e"]
INCUMBENT = arm(a=True, b=True, c=False, d=False, e=True)


def test_flips_are_listed_both_ways_and_never_netted():
    found = compare(arm(a=True, b=False, c=True, d=False, e=False), INCUMBENT, IDS, margin=0.05)
    assert (found.worse, found.better) == (("b", "e"), ("c",))
    assert (found.both_right, found.both_wrong, found.pairs) == (1, 1, 5)
    assert (found.difference, found.discordance) == (-0.2, 0.6)
    assert found.mcnemar_p == mcnemar_exact(2, 1)
    assert found.interval == tango(2, 1, 5)
    assert found.verdict == "INCONCLUSIVE"
    assert found.needed.remaining == found.needed.total - 5


def test_alpha_decides_how_wide_the_interval_is():
    candidate = arm(a=True, b=False, c=True, d=False, e=False)
    assert compare(candidate, INCUMBENT, IDS, margin=0.05, alpha=0.2).interval == tango(2, 1, 5, 0.2)


def test_items_missing_on_one_side_are_named():
    found = compare(arm(a=True, b=True, c=True), arm(b=True, c=False, d=True), ["a", "b", "c", "d"], margin=0.05)
    assert (found.missing_candidate, found.missing_reference) == (("d",), ("a",))
    assert found.pairs == 2


def test_an_error_of_the_candidate_is_wrong_but_one_of_the_reference_is_no_answer():
    found = compare(
        arm(a="error", b=True, c=True, d=False, e=True),
        arm(a=True, b="error", c=True, d=False, e=True),
        IDS,
        margin=0.05,
    )
    assert found.worse == ("a",)
    assert found.better == ()
    assert found.missing_reference == ("b",)
    assert found.pairs == 4


def test_with_no_pair_left_there_is_nothing_to_compare():
    with pytest.raises(NothingToCompare, match="ported and incumbent"):
        compare(arm(a=True), arm(a="error"), ["a"], margin=0.05, names=("ported", "incumbent"))

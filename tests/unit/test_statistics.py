"""Intervals and tests against published values, independent formulas and exact error rates."""

import functools
import math

import pytest
from scipy import optimize, stats

from osport.errors import MissingDependency, UsageError
from osport.evals.optional import optional
from osport.evals.statistics import Interval, items_needed, mcnemar_exact, quantile, tango, verdict, wilson

Z = stats.norm.isf(0.025)
INFINITE = math.inf


def test_wilson_against_newcombe_1998_table_1():
    interval = wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 20).low == 0
    assert wilson(20, 20).high == 1


def test_wilson_refuses_what_is_no_share():
    for successes, n in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(UsageError):
            wilson(successes, n)


def test_mcnemar_is_the_binomial_test_of_the_flips():
    for worse, better in ((1, 9), (5, 5), (0, 6)):
        assert mcnemar_exact(worse, better) == pytest.approx(stats.binomtest(worse, worse + better).pvalue)
    assert mcnemar_exact(0, 0) == 1


@pytest.mark.parametrize("n", [1, 20, 73, 5000])
def test_without_flips_tango_ends_at_its_closed_form(n):
    interval = tango(0, 0, n)
    assert interval.low == pytest.approx(-(Z**2) / (n + Z**2), rel=1e-6)
    assert interval.high == pytest.approx(Z**2 / (n + Z**2), rel=1e-6)


def score(worse, better, n, difference):
    """Tango's statistic with the restricted maximum found by direct search instead of the quadratic."""

    def unlikelihood(q):
        cells = ((worse, q), (better, q + difference), (n - worse - better, 1 - 2 * q - difference))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = optimize.minimize_scalar(unlikelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (better - worse - n * difference) / math.sqrt(n * (2 * q + difference * (1 - difference)))


@pytest.mark.parametrize(("worse", "better", "n"), [(12, 3, 50), (3, 12, 50), (1, 0, 44), (0, 5, 200), (40, 37, 400)])
def test_at_tangos_ends_the_score_with_a_directly_maximised_likelihood_is_z(worse, better, n):
    interval = tango(worse, better, n)
    assert score(worse, better, n, interval.low) == pytest.approx(Z, abs=1e-4)
    assert score(worse, better, n, interval.high) == pytest.approx(-Z, abs=1e-4)


def test_tango_mirrors_when_the_arms_change_places():
    one, other = tango(12, 3, 50), tango(3, 12, 50)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_tango_reaches_the_ends_of_the_scale():
    assert tango(10, 0, 10).low == -1
    assert tango(0, 10, 10).high == 1
    assert -1 < tango(10, 0, 10).high < 0


cached_tango = functools.cache(tango)


def chance(n, discordance, difference, event):
    """The exact probability of an event of (worse, better) under the trinomial law."""
    p_better, p_worse = (discordance + difference) / 2, (discordance - difference) / 2
    total = 0.0
    for flips in range(n + 1):
        p_flips = stats.binom.pmf(flips, n, discordance)
        if p_flips < 1e-9:
            continue
        for worse in range(flips + 1):
            if event(worse, flips - worse):
                total += p_flips * stats.binom.pmf(worse, flips, p_worse / (p_better + p_worse))
    return total


@pytest.mark.parametrize(("n", "published"), [(50, 0.003), (100, 0.015)])
def test_a_candidate_exactly_at_the_margin_passes_at_most_as_often_as_alpha_allows(n, published):
    false_pass = chance(n, 0.05, -0.03, lambda b, c: verdict(cached_tango(b, c, n), 0.03) == "PASS")
    assert false_pass <= 0.025
    assert false_pass == pytest.approx(published, abs=0.004)


@pytest.mark.parametrize(("n", "difference"), [(50, 0.0), (100, -0.05)])
def test_tango_covers_the_true_difference(n, difference):
    def covers(worse, better):
        interval = cached_tango(worse, better, n)
        return interval.low <= difference <= interval.high

    assert 0.94 <= chance(n, 0.15, difference, covers) <= 0.985


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((-0.049, 0.01), "PASS"),
        ((-0.05, 0.01), "INCONCLUSIVE"),
        ((-0.2, -0.051), "FAIL"),
        ((-0.2, -0.05), "INCONCLUSIVE"),
    ],
)
def test_the_verdict_compares_the_ends_with_the_margin(interval, expected):
    assert verdict(Interval(*interval, 0.95), 0.05) == expected


@pytest.mark.parametrize(
    ("n", "low", "high"), [(100, 90, 100), (200, 184, 197), (500, 465, 485), (1000, 936, 964), (72, None, 72)]
)
def test_p95_ranks_of_the_order_statistics(n, low, high):
    found = quantile([float(rank) for rank in range(1, n + 1)], 0.95)
    assert found.value == math.ceil(0.95 * n)
    assert found.high == high
    assert low is None or found.low == low


def test_below_72_values_p95_has_no_upper_end():
    assert quantile([float(rank) for rank in range(71)], 0.95).high is None


def test_failed_calls_reach_the_quantile_as_infinity():
    values = [1.0] * 93 + [INFINITE] * 7
    found = quantile(values, 0.95)
    assert (found.value, found.low, found.high) == (INFINITE, 1.0, INFINITE)
    assert quantile(values, 0.5).high == 1.0


def test_quantile_refuses_nothing_and_ends_of_the_scale():
    for values, q in (([], 0.5), ([1.0], 0.0), ([1.0], 1.0)):
        with pytest.raises(UsageError):
            quantile(values, q)


@pytest.mark.parametrize(
    ("discordance", "margin", "published"),
    [(0.05, 0.02, 982), (0.10, 0.02, 1963), (0.20, 0.01, 15698), (0.02, 0.01, 1570), (0.10, 0.03, 873)],
)
def test_items_needed_at_equal_accuracy_is_the_published_table(discordance, margin, published):
    flips = round(discordance * 10_000)
    assert items_needed(flips // 2, flips // 2, 10_000, margin).total == pytest.approx(published, abs=1)


def test_small_plans_are_raised_by_a_tenth_because_their_power_falls_short():
    assert items_needed(100, 100, 2000, 0.05).total == math.ceil(314 * 1.1)


def test_a_candidate_that_is_behind_needs_more_items_and_a_lead_is_not_counted_on():
    assert items_needed(275, 225, 10_000, 0.02).total == pytest.approx(1744, abs=2)
    assert items_needed(225, 275, 10_000, 0.02).total == items_needed(250, 250, 10_000, 0.02).total


def test_without_a_flip_the_plan_is_pessimistic():
    none_seen = items_needed(0, 0, 50, 0.02)
    assert none_seen.discordance == pytest.approx(1 - 0.05 ** (1 / 50))
    assert none_seen.total == pytest.approx((Z + stats.norm.isf(0.2)) ** 2 * none_seen.discordance / 0.02**2, abs=1)
    assert none_seen.remaining == none_seen.total - 50


def test_beyond_the_margin_more_items_lead_to_fail_and_on_it_nowhere():
    assert items_needed(8, 0, 100, 0.05).towards == "FAIL"
    on_the_margin = items_needed(5, 0, 100, 0.05)
    assert (on_the_margin.total, on_the_margin.remaining) == (None, None)


def test_an_absent_package_names_the_extra_that_brings_it():
    with pytest.raises(MissingDependency, match=r"pip install 'osport\[port\]'"):
        optional("a_package_that_is_not_there.part")

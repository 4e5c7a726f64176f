"""The statistics behind a verdict: intervals, the paired test, non-inferiority, items needed.

Sources: Wilson 1927; Tango, Statistics in Medicine 17 (1998) 891 (paired score interval);
Lu & Bean, Statistics in Medicine 14 (1995) 1831 (items needed); order statistics for quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from attrs import frozen

from osport.errors import UsageError
from osport.evals.optional import optional

__all__ = [
    "Interval",
    "ItemsNeeded",
    "Quantile",
    "Verdict",
    "items_needed",
    "mcnemar_exact",
    "quantile",
    "tango",
    "verdict",
    "wilson",
]

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]

SMALL_SAMPLE = 500
"""Below this the score test's power is up to 5 points under plan, so 10 % more items are asked for."""


@frozen
class Interval:
    """A two-sided interval; ``level`` is its confidence, 0.95 for 95 %."""

    low: float
    high: float
    level: float


@frozen
class Quantile:
    """An order statistic of ``n`` values with a distribution-free interval.

    An end is None where ``n`` is too small to have one; infinite where failed calls reach it.
    """

    value: float
    low: float | None
    high: float | None
    level: float
    n: int


@frozen
class ItemsNeeded:
    """Items in all (``total``) for a verdict ``towards`` PASS or FAIL, at the assumed rates.

    ``remaining`` is what is missing beyond the items at hand. Both are None when the assumed
    difference lies on the margin itself, where no number of items settles it.
    """

    total: int | None
    remaining: int | None
    towards: Literal["PASS", "FAIL"]
    difference: float
    discordance: float
    power: float


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share (statsmodels). ``n`` of 0 is a UsageError."""
    if not 0 <= successes <= n or n == 0:
        raise UsageError(f"wilson: {successes} of {n} is not a share")
    low, high = optional("statsmodels.stats.proportion").proportion_confint(successes, n, 1 - level, method="wilson")
    # Rounding must not leave the share itself outside.
    return Interval(min(float(low), successes / n), max(float(high), successes / n), level)


def mcnemar_exact(worse: int, better: int) -> float:
    """Two-sided p of the exact McNemar test: a binomial test of the flips (statsmodels). No flips: 1."""
    table = [[0, worse], [better, 0]]
    return float(optional("statsmodels.stats.contingency_tables").mcnemar(table, exact=True).pvalue)


def tango(worse: int, better: int, n: int, alpha: float = 0.05) -> Interval:
    """Tango's score interval of the paired difference (better - worse) / n, level 1 - ``alpha``.

    At a hypothetical difference D the harmful flip rate q is the restricted maximum-likelihood
    estimate, the larger root of ``2n q^2 + [(2n - c + b) D - (b + c)] q - b D (1 - D) = 0`` with
    b = ``worse`` and c = ``better``; the ends are where
    ``(c - b - n D) / sqrt(n (2q + D (1 - D)))`` crosses +z and -z. Unlike a Wald or bootstrap
    interval it keeps a width when no item flips: its ends are then at z^2 / (n + z^2).
    """
    if n < 1 or worse < 0 or better < 0 or worse + better > n:
        raise UsageError(f"tango: {worse} + {better} flips of {n} items")
    z = float(optional("scipy.stats").norm.isf(alpha / 2))
    brentq = optional("scipy.optimize").brentq
    observed = (better - worse) / n

    def excess(difference: float, sign: int) -> float:
        d = difference
        linear = (2 * n - better + worse) * d - (worse + better)
        q = (math.sqrt(linear**2 + 8 * n * worse * d * (1 - d)) - linear) / (4 * n)
        variance = max(n * (2 * q + d * (1 - d)), 0.0)
        return better - worse - n * d - sign * z * math.sqrt(variance)

    # At the observed difference the variance can vanish, which is a root that is not an end.
    inside = 1e-9
    low = brentq(excess, -1.0, observed - inside, args=(1,), xtol=1e-12) if observed > -1 + inside else -1.0
    high = brentq(excess, observed + inside, 1.0, args=(-1,), xtol=1e-12) if observed < 1 - inside else 1.0
    return Interval(float(low), float(high), 1 - alpha)


def quantile(values: Sequence[float], q: float, level: float = 0.95) -> Quantile:
    """The q-quantile (the ceil(n q)-th smallest) with its exact binomial interval (scipy).

    Infinite values are allowed: a call that failed took for ever. For q = 0.95 and level 0.95
    there is no upper end below 72 values.
    """
    if not values or not 0 < q < 1:
        raise UsageError(f"quantile: {len(values)} values, q={q}; needs at least one value and 0 < q < 1")
    ordered = sorted(values)
    at = ordered[math.ceil(len(ordered) * q) - 1]
    test = optional("scipy.stats").quantile_test(ordered, q=at if math.isfinite(at) else 0.0, p=q)
    ends = test.confidence_interval(confidence_level=level)
    low, high = (None if math.isnan(end) else float(end) for end in (ends.low, ends.high))
    return Quantile(at, low, high, level, len(ordered))


def verdict(interval: Interval, margin: float) -> Verdict:
    """Non-inferiority: PASS when all of the interval is above -``margin``, FAIL when all is below."""
    if interval.low > -margin:
        return "PASS"
    if interval.high < -margin:
        return "FAIL"
    return "INCONCLUSIVE"


def items_needed(
    worse: int, better: int, n: int, margin: float, alpha: float = 0.05, power: float = 0.8
) -> ItemsNeeded:
    """Items for a verdict: n = (z_alpha + z_beta)^2 (psi - d^2) / (d + margin)^2.

    ``alpha`` is that of the two-sided interval. The flip rate psi is the observed one, or, when no
    flip was seen yet, the 95 % upper bound of a zero count: pessimistic, since flips tend to turn
    up. The difference d is the observed one where the candidate is behind, else 0: a lead is not
    counted on. Below 500 items 10 % are added.
    """
    if n < 1:
        raise UsageError("items_needed: needs at least one pair")
    norm = optional("scipy.stats").norm
    difference = min((better - worse) / n, 0.0)
    discordance = (worse + better) / n or 1 - 0.05 ** (1 / n)
    towards: Literal["PASS", "FAIL"] = "PASS" if difference > -margin else "FAIL"
    distance = difference + margin
    if abs(distance) < 1e-9:
        return ItemsNeeded(None, None, towards, difference, discordance, power)
    z = float(norm.isf(alpha / 2) + norm.isf(1 - power))
    total = math.ceil(z**2 * (discordance - difference**2) / distance**2)
    if total < SMALL_SAMPLE:
        total = math.ceil(total * 1.1)
    return ItemsNeeded(total, max(total - n, 0), towards, difference, discordance, power)

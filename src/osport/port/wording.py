"""Numbers as a reader wants them."""

from __future__ import annotations

import math

from osport.evals.statistics import Interval, Quantile

__all__ = ["dollars", "percent", "percents", "points", "probability", "quantile_ends", "seconds"]


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{share * 100:.1f} %"


def percents(interval: Interval) -> str:
    """Both ends of an interval of a share, in per cent."""
    return f"{interval.low * 100:.1f} – {interval.high * 100:.1f} %"


def seconds(value: float) -> str:
    """A duration in µs, ms or s, three digits; infinite ones as ∞."""
    if math.isinf(value):
        return "∞"
    if value >= 1:
        return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.0f} µs"


def quantile_ends(q: Quantile) -> str:
    """Both ends of a quantile's interval; a dash where there is none."""
    return " – ".join("—" if end is None else seconds(end) for end in (q.low, q.high))


def dollars(usd: float | None) -> str:
    """US dollars, or ``unknown``."""
    if usd is None:
        return "unknown"
    if usd >= 1 or usd == 0:
        return f"${usd:,.2f}"
    # Two significant digits, never in scientific notation.
    return f"${usd:.{1 - math.floor(math.log10(usd))}f}"


def points(share: float) -> str:
    """A share as signed percentage points."""
    return f"{share * 100:+.1f}"


def probability(p: float) -> str:
    """A p-value with three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"

"""A number of bytes with its interval, and how bytes are printed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from attrs import frozen

from osport.errors import UsageError

__all__ = ["GIB", "MIB", "Estimate", "gib", "total"]

MIB = 2**20
GIB = 2**30


@frozen
class Estimate:
    """Bytes as ``low <= likely <= high``; all three equal means exact.

    >>> Estimate(1, 2, 4) + Estimate.exact(10)
    Estimate(low=11, likely=12, high=14)
    """

    low: int
    likely: int
    high: int

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.low <= self.likely <= self.high:
            raise UsageError(
                f"an estimate needs 0 <= low <= likely <= high, not {self.low}, {self.likely}, {self.high}"
            )

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """An interval of width zero, rounded up to whole bytes."""
        whole = math.ceil(value)
        return cls(whole, whole, whole)

    @classmethod
    def around(cls, value: float, below: float, above: float) -> Estimate:
        """From ``value * (1 - below)`` to ``value * (1 + above)``."""
        return cls(int(value * (1 - below)), math.ceil(value), math.ceil(value * (1 + above)))

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def scaled(self, factor: float) -> Estimate:
        """Every bound times ``factor``, for a share of the whole."""
        return Estimate(int(self.low * factor), round(self.likely * factor), math.ceil(self.high * factor))

    @property
    def is_exact(self) -> bool:
        """Whether the interval has width zero."""
        return self.low == self.high

    def __str__(self) -> str:
        if self.is_exact:
            return gib(self.likely)
        return f"{gib(self.likely)} ({gib(self.low)} to {gib(self.high)})"


def total(parts: Iterable[Estimate]) -> Estimate:
    """The sum; bounds add up, which is wider than independent errors would be."""
    result = Estimate(0, 0, 0)
    for part in parts:
        result = result + part
    return result


def gib(count: float) -> str:
    """Bytes in the binary unit, MiB below one GiB. GB (10**9) is never meant."""
    return f"{count / GIB:.2f} GiB" if abs(count) >= GIB else f"{count / MIB:.1f} MiB"

"""Whether a model fits devices, what binds, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from attrs import frozen

from osport.vram.devices import Device
from osport.vram.estimate import Estimate, gib, total
from osport.vram.ledger import HOST, LedgerRow

__all__ = ["Fit", "Verdict", "judge"]


class Verdict(StrEnum):
    """The answer; ``UNKNOWN`` when a term of the ledger cannot be computed."""

    FITS = "fits"
    FITS_WITH_RISK = "fits_with_risk"
    DOES_NOT_FIT = "does_not_fit"
    UNKNOWN = "unknown"


@frozen
class Fit:
    """The verdict with the device that has least room and the largest term on it.

    ``needed`` and ``available`` are bytes on the binding device. ``fits`` leaves the margin free even at the
    upper end of the estimate; ``fits_with_risk`` fits at the likely figure.
    """

    verdict: Verdict
    binding_device: str
    binding_term: str
    needed: Estimate
    available: int
    rows: tuple[LedgerRow, ...]
    reason: str

    @property
    def headroom(self) -> int:
        """Bytes left on the binding device at the likely figure; negative when it does not fit."""
        return self.available - self.needed.likely

    def __bool__(self) -> bool:
        return self.verdict in {Verdict.FITS, Verdict.FITS_WITH_RISK}

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def judge(rows: Sequence[LedgerRow], devices: Sequence[Device], missing: Sequence[str]) -> Fit:
    """Compare every device's needs with what it has; the tightest one decides."""
    names = list(dict.fromkeys(row.device for row in rows if row.device != HOST))
    worst: Fit | None = None
    for name, device in zip(names, devices, strict=False):
        fit = _one(name, device, [row for row in rows if row.device == name], missing)
        if worst is None or _rank(fit) > _rank(worst):
            worst = fit
    if worst is None:
        return Fit(Verdict.UNKNOWN, "", "", Estimate(0, 0, 0), 0, tuple(rows), "; ".join(missing))
    return Fit(worst.verdict, worst.binding_device, worst.binding_term, worst.needed, worst.available, tuple(rows),
               worst.reason)  # fmt: skip


def _one(name: str, device: Device, rows: Sequence[LedgerRow], missing: Sequence[str]) -> Fit:
    needed = total(row.bytes for row in rows if row.need)
    margin = sum(row.bytes.likely for row in rows if row.term == "margin")
    term = max((row for row in rows if row.need), key=lambda row: row.bytes.likely).term
    figures = f"{needed} of {gib(device.usable)} on {name}"
    if needed.low > device.usable or (needed.likely > device.usable and not missing):
        verdict, reason = Verdict.DOES_NOT_FIT, f"needs {figures}; the largest term is {term}"
    elif missing:
        verdict, reason = Verdict.UNKNOWN, f"cannot be computed: {'; '.join(missing)}"
    elif needed.high + margin <= device.usable:
        verdict, reason = Verdict.FITS, f"needs {figures}, with {gib(margin)} left free"
    elif needed.likely + margin <= device.usable:
        verdict, reason = Verdict.FITS_WITH_RISK, f"needs {figures}; the upper end of the estimate eats the margin"
    else:
        verdict, reason = Verdict.FITS_WITH_RISK, f"needs {figures}; the margin of {gib(margin)} is not kept"
    return Fit(verdict, name, term, needed, device.usable, tuple(rows), reason)


def _rank(fit: Fit) -> tuple[int, float]:
    order = (Verdict.FITS, Verdict.FITS_WITH_RISK, Verdict.UNKNOWN, Verdict.DOES_NOT_FIT)
    return order.index(fit.verdict), fit.needed.likely / fit.available

"""What a port came to."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from osport.evals.compare import Comparison
from osport.port.decide import Decision
from osport.port.summary import ArmSummary

__all__ = ["PortResult"]


@frozen
class PortResult:
    """The decision and all that it rests on.

    ``comparisons``: candidate against incumbent (the one that decides), then the candidate against
    each other arm, and each function arm against the candidate. ``report`` is the path of
    ``report.html``; ``report.md`` and ``report.json`` lie beside it.
    """

    decision: Decision
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    best_constant: float | None
    report: Path

"""Golden sets, scorers, records of runs, and the paired statistics on them."""

from __future__ import annotations

from osport.core.retries import Retries
from osport.evals.compare import Comparison, compare
from osport.evals.golden import GoldenItem, GoldenSet
from osport.evals.record import ItemResult, RunRecord
from osport.evals.runner import run_arm
from osport.evals.scorers import scorer

__all__ = [
    "Comparison",
    "GoldenItem",
    "GoldenSet",
    "ItemResult",
    "Retries",
    "RunRecord",
    "compare",
    "run_arm",
    "scorer",
]

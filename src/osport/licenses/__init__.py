"""``LicensePolicy``: the licence before the benchmark.

Terms are data (``osport/data/licenses``), rules are code: one evaluator for all licences.
"""

from __future__ import annotations

from osport.licenses.policy import LicensePolicy
from osport.licenses.report import Comparison
from osport.licenses.terms import licences
from osport.licenses.use import Use
from osport.licenses.verdict import Assumption, Evidence, Obligation, Outcome, Reason, Verdict

__all__ = [
    "Assumption",
    "Comparison",
    "Evidence",
    "LicensePolicy",
    "Obligation",
    "Outcome",
    "Reason",
    "Use",
    "Verdict",
    "licences",
]

"""The memory of an open model on a runtime: a ledger, judged against devices."""

from osport.vram.budget import ExpertLedger, VramBudget
from osport.vram.devices import Device
from osport.vram.estimate import Estimate
from osport.vram.fit import Fit, Verdict

__all__ = ["Device", "Estimate", "ExpertLedger", "Fit", "Verdict", "VramBudget"]

"""Port one task from a closed model to an open one: plan, run, compare, decide, report."""

from __future__ import annotations

from osport.port.decide import Decision
from osport.port.result import PortResult
from osport.port.run import Port
from osport.port.summary import ArmSummary

__all__ = ["ArmSummary", "Decision", "Port", "PortResult"]

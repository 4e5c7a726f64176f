"""What an evaluation notes on its way: reasons, obligations, and the claims that it relied upon."""

from __future__ import annotations

from attrs import define, field, frozen

from osport.licenses.events import WHEN
from osport.licenses.terms import Claim, Terms
from osport.licenses.use import Reading
from osport.licenses.verdict import Assumption, Obligation, Outcome, Reason

__all__ = ["UNFOUNDED", "Finding", "Subject", "Trace"]

# A claim that rests on these has no text behind it, not even in others' words.
UNFOUNDED = ("recollection", "none")


@frozen
class Subject:
    """The model that a licence is read for: its name, its modality as far as known, the ancestor it stands for."""

    name: str = ""
    modality: str = ""
    via: str = ""


@frozen
class Finding:
    """What one licence says to one use."""

    outcome: Outcome
    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    assumptions: tuple[Assumption, ...]


@define
class Trace:
    """One evaluation of ``terms`` against a use, as ``reading`` reads it."""

    terms: Terms
    reading: Reading
    subject: Subject
    reasons: list[Reason] = field(factory=list)
    obligations: list[Obligation] = field(factory=list)
    relied: list[tuple[str, Claim]] = field(factory=list)

    def say(self, outcome: Outcome, clause: str, text: str, claim: Claim) -> None:
        """Note what a clause does to the use."""
        extra = f" {claim.note}" if claim.note else ""
        self.reasons.append(
            Reason(
                outcome,
                clause,
                text + extra,
                self.terms.key,
                claim.section,
                self.terms.source_of(claim),
                claim.verified,
                self.subject.via,
            )
        )

    def owe(self, kind: str, what: str, trigger: str, claim: Claim, exact: str = "") -> None:
        """Note something to do."""
        self.obligations.append(
            Obligation(
                kind,
                what,
                trigger,
                exact,
                self.terms.key,
                claim.section,
                self.terms.source_of(claim),
                claim.verified,
                self.subject.via,
            )
        )

    def rely(self, name: str, claim: Claim) -> None:
        """Note that the outcome rests on ``claim``."""
        self.relied.append((name, claim))

    @property
    def commercial(self) -> bool:
        """Selling outputs is commerce, unless the licence frees outputs from its limits."""
        sells = self.reading.outputs == "sell" and self.terms.outputs.sell != "allowed"
        return self.reading.commercial or sells

    @property
    def outward(self) -> bool:
        """Whether model or outputs leave the house."""
        return self.reading.serves_others or self.reading.distributes

    def purpose(self, claim: Claim) -> None:
        """Owe to keep to the purposes of the licence."""
        purposes = " or ".join(self.terms.commercial.purposes) or "non-commercial ends"
        self.owe("purpose", f"Keep the use to {purposes}, outside production and any trade", WHEN["any_use"], claim)

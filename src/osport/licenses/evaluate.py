"""One licence held against one use. The rules are the same for all licences; what differs is their data."""

from __future__ import annotations

from osport.licenses.events import WHEN
from osport.licenses.rules_duties import distribution, duties
from osport.licenses.rules_grant import conditions, grant
from osport.licenses.rules_outputs import outputs
from osport.licenses.rules_policy import policy
from osport.licenses.rules_territory import territory
from osport.licenses.terms import Terms
from osport.licenses.trace import UNFOUNDED, Finding, Subject, Trace
from osport.licenses.use import Reading, Use
from osport.licenses.verdict import Outcome

__all__ = ["evaluate"]


def evaluate(terms: Terms, use: Use, subject: Subject | None = None) -> Finding:
    """Hold ``terms`` against ``use``. Never raises: what cannot be decided is ``unknown``."""
    trace = Trace(terms, Reading(use), subject or Subject())
    for rule in (grant, conditions, territory, outputs, distribution, duties, policy, _confidence, _remarks):
        rule(trace)
    owed = [Outcome.ALLOWED_WITH_OBLIGATIONS] if trace.obligations else []
    outcome = Outcome.strictest([*(reason.outcome for reason in trace.reasons), *owed])
    ordered = sorted(trace.reasons, key=lambda reason: -reason.outcome.severity)
    return Finding(outcome, tuple(ordered), tuple(trace.obligations), tuple(trace.reading.noted.values()))


def _confidence(trace: Trace) -> None:
    unread = {name: claim for name, claim in trace.relied if claim.verified == "unverified"}
    if not unread:
        return
    unfounded = [name for name, claim in unread.items() if claim.basis in UNFOUNDED]
    decisive = [name for name in unfounded if name in ("commercial use", "use of outputs")]
    if decisive:
        claim = unread[decisive[0]]
        trace.say(Outcome.UNKNOWN, "confidence", f"Nobody has read the text on: {', '.join(decisive)}.", claim)
    first = next(iter(unread.values()))
    names = ", ".join(dict.fromkeys(unread))
    trace.owe(
        "confirm", f"Read the licence text itself; known from others' words only: {names}", WHEN["any_use"], first
    )


def _remarks(trace: Trace) -> None:
    for remark in trace.terms.remarks:
        trace.say(Outcome.ALLOWED, remark.kind, remark.text[:1].upper() + remark.text[1:] + ".", remark)

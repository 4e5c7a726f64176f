"""Is the use granted at all, and does it trip a condition?"""

from __future__ import annotations

from osport.licenses import application
from osport.licenses.events import WHEN
from osport.licenses.terms import Condition
from osport.licenses.trace import UNFOUNDED, Trace
from osport.licenses.verdict import Outcome

__all__ = ["conditions", "grant"]

_GATES = {"grant": Outcome.NEEDS_GRANT, "terminates": Outcome.NEEDS_GRANT, "ineligible": Outcome.FORBIDDEN}
_UNITS = {"monthly_active_users": "monthly active users", "daily_active_users": "daily active users"}


def grant(trace: Trace) -> None:
    """Hold commerce, or its absence, against what the licence grants."""
    claim, rule = trace.terms.commercial, trace.terms.commercial.rule
    trace.rely("commercial use", claim)
    if rule == "unknown" or (not trace.commercial and claim.noncommercial == "unknown"):
        trace.say(Outcome.UNKNOWN, "commercial", "What the text grants is not known.", claim)
    elif not trace.commercial:
        trace.say(Outcome.ALLOWED, "commercial", "Non-commercial use is granted.", claim)
        if claim.purposes:
            trace.purpose(claim)
    elif rule == "allowed":
        trace.say(Outcome.ALLOWED, "commercial", "Commercial use is granted.", claim)
    elif rule == "own_use":
        outward = trace.reading.serves_others or trace.reading.distributes
        trace.say(
            Outcome.NEEDS_GRANT if outward else Outcome.ALLOWED,
            "commercial",
            "Serving or handing it to others for money needs a separate agreement."
            if outward
            else "Commercial use of one's own is granted.",
            claim,
        )
    elif rule == "forbidden":
        trace.say(Outcome.FORBIDDEN, "commercial", "Commercial use is ruled out.", claim)
    elif claim.proof_of_concept and trace.reading.flag("proof_of_concept", False) and not trace.outward:
        trace.say(Outcome.ALLOWED, "commercial", "Evaluation outside production is granted.", claim)
        trace.purpose(claim)
    else:
        trace.say(Outcome.NEEDS_GRANT, "commercial", "Commercial use needs a separate grant.", claim)


def conditions(trace: Trace) -> None:
    """Hold every threshold and gate against the user."""
    for condition in trace.terms.conditions:
        if condition.applies_to == "commercial" and not trace.commercial:
            continue
        if _exempt(trace, condition):
            trace.say(
                Outcome.ALLOWED, "condition", f"{_condition_text(condition)} Not met: the use is exempt.", condition
            )
            continue
        trace.rely("a condition", condition)
        if _trips(trace, condition):
            _apply(trace, condition)
        elif condition.metric:
            trace.say(Outcome.ALLOWED, "condition", f"{_condition_text(condition)} This use stays below.", condition)


def _exempt(trace: Trace, condition: Condition) -> bool:
    free = {
        "inside_product": lambda: trace.reading.inside_product,
        "internal": lambda: not trace.outward,
        "nonprofit": lambda: trace.reading.flag("nonprofit", False),
    }
    return any(free[kind]() for kind in condition.exempt)


def _trips(trace: Trace, condition: Condition) -> bool:
    reading = trace.reading
    if condition.licensee == "natural_person" and not reading.personal:
        return False
    if condition.competing and not reading.flag("competing_service", False):
        return False
    if condition.businesses and not any(_runs(trace, business) for business in condition.businesses):
        return False
    if not condition.metric:
        return True
    metric = condition.metric
    if metric == "monthly_active_users" and condition.frozen:
        metric = "monthly_active_users_at_release"
    amount = reading.amount(metric, condition.amount, employer="employer" in condition.scope)
    return amount > condition.amount or (condition.op == ">=" and amount == condition.amount)


def _runs(trace: Trace, business: str) -> bool:
    # Whoever competes with the licensor's own service is taken to run the kind of business that it runs.
    if business in ("model_as_a_service", "ai_work_assistant") and trace.reading.flag("competing_service", False):
        return True
    if business == "ai_work_assistant":
        named = trace.reading.use.application
        return named is not None and "ai_work_assistant" in application.categories(named)
    return trace.reading.hosts


def _apply(trace: Trace, condition: Condition) -> None:
    text = _condition_text(condition)
    if condition.basis in UNFOUNDED:
        trace.say(Outcome.UNKNOWN, "condition", f"{text} This use would meet it, if it is in the text.", condition)
    elif condition.effect in _GATES:
        trace.say(_GATES[condition.effect], "condition", f"{text} This use meets it.", condition)
    else:
        trace.say(Outcome.ALLOWED_WITH_OBLIGATIONS, "condition", f"{text} This use meets it.", condition)
        what = condition.what or "Display prominently on the user interface"
        exact = condition.display
        if condition.effect == "display" and not exact:
            what = "Display the model's name prominently on the user interface"
        trace.owe(condition.effect, what, WHEN["commercial_product"], condition, exact)


def _condition_text(condition: Condition) -> str:
    parts = []
    if condition.metric:
        amount = f"{condition.amount:,.0f} {_UNITS.get(condition.metric, 'US$ ' + condition.metric.replace('_', ' '))}"
        sign = "at or above" if condition.op == ">=" else "above"
        frozen = {"": "at any time", "unknown": "on the release date of the version"}.get(
            condition.frozen, f"on the release date {condition.frozen} only"
        )
        parts.append(f"{sign} {amount}, {frozen}, counted over {' + '.join(condition.scope)}")
    if condition.businesses:
        parts.append(
            "for the business of " + " or ".join(business.replace("_", " ") for business in condition.businesses)
        )
    head = "Holds " + ", ".join(parts) if parts else ""
    return (
        ". ".join(part for part in (condition.what, head) if part).rstrip(".") + "."
        if (condition.what or head)
        else "A condition."
    )

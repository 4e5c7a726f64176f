"""Does the application, or the removal of guardrails, meet the use policy?"""

from __future__ import annotations

from osport.licenses import application
from osport.licenses.events import WHEN
from osport.licenses.trace import Trace
from osport.licenses.verdict import Outcome

__all__ = ["policy"]


def policy(trace: Trace) -> None:
    """Owe the policy as a whole; hold guardrails and the named application against its lines."""
    terms, named = trace.terms.policy, trace.reading.use.application
    trace.rely("use policy", terms)
    where = f" ({terms.url})" if terms.url else ""
    unread = terms.kind == "unknown" or (terms.kind in ("incorporated", "separate") and not terms.prohibits)
    if terms.kind == "law":
        trace.owe("policy", "Comply with the law that applies, export control included", WHEN["any_use"], terms)
    elif terms.kind in ("inline", "incorporated", "separate"):
        moving = "; it may change, so watch it" if terms.changes else ""
        trace.owe("policy", f"Keep to the acceptable use policy{where}{moving}", WHEN["any_use"], terms)
    if trace.reading.flag("remove_guardrails", False):
        _held(trace, "remove_guardrails", "Removing guardrails", unread)
    if named is None:
        return
    touched = application.categories(named)
    for category in sorted(touched - application.HARMLESS):
        _held(trace, category, f"The application “{named}” ({category.replace('_', ' ')})", unread)


def _held(trace: Trace, category: str, what: str, unread: bool) -> None:
    terms = trace.terms.policy
    if category in terms.prohibits:
        trace.say(Outcome.FORBIDDEN, "policy", f"{what} is ruled out by the use policy.", terms)
    elif category in terms.restricts:
        trace.say(Outcome.ALLOWED_WITH_OBLIGATIONS, "policy", f"{what} is allowed to those who may practise it.", terms)
        trace.owe(
            "policy",
            "Hold the authority or licence that the profession asks for",
            "the application is used",
            terms,
        )
    elif unread:
        trace.say(
            Outcome.UNKNOWN,
            "policy",
            f"{what} may be ruled out: the lines of the use policy were not read.",
            terms,
        )

"""What must be done when it is handed on, shown, modified or taught from, and under which name?"""

from __future__ import annotations

import fnmatch

from osport.licenses.events import WHEN, events
from osport.licenses.terms import Duty
from osport.licenses.trace import Trace
from osport.licenses.verdict import Assumption, Outcome

__all__ = ["distribution", "duties"]


def distribution(trace: Trace) -> None:
    """Handing it on is unclear where its rules were not read."""
    claim = trace.terms.distribution
    if "distribute" not in events(trace.reading, claim):
        return
    trace.rely("redistribution", claim)
    if not claim.known:
        trace.say(Outcome.UNKNOWN, "distribution", "What handing it on requires was not read.", claim)


def duties(trace: Trace) -> None:
    """Owe every duty whose trigger this use sets off, and check the name that a duty binds."""
    happening = events(trace.reading, trace.terms.distribution)
    for duty in trace.terms.duties:
        met = [trigger for trigger in duty.triggers if trigger in happening]
        if not met or not _concerns(trace, duty):
            continue
        trace.rely("a duty", duty)
        when = "; ".join(WHEN[trigger] for trigger in met)
        what = duty.what + (f" (on a {duty.where})" if duty.where else "")
        trace.owe(duty.kind, what, when, duty, duty.exact)
        if duty.prefix:
            _name(trace, duty, when)


def _concerns(trace: Trace, duty: Duty) -> bool:
    if not duty.only_models or not trace.subject.name:
        return True
    return any(fnmatch.fnmatch(trace.subject.name.lower(), pattern.lower()) for pattern in duty.only_models)


def _name(trace: Trace, duty: Duty, when: str) -> None:
    name = trace.reading.use.student_name
    if name is None:
        trace.reading.noted.setdefault("student_name", Assumption("student_name", "one that the licence accepts"))
        return
    begins = _letters(name.rsplit("/", 1)[-1]).startswith(_letters(duty.prefix))
    trace.say(
        Outcome.ALLOWED if begins else Outcome.FORBIDDEN,
        "name",
        f"“{name}” begins with “{duty.prefix}”, as it must."
        if begins
        else f"Under the name “{name}” it may not go out: it must begin with “{duty.prefix}” when {when}.",
        duty,
    )


def _letters(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())

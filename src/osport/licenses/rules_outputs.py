"""What may the outputs be used for: sold, or to train which model?"""

from __future__ import annotations

from osport.licenses.events import WHEN
from osport.licenses.trace import Trace
from osport.licenses.verdict import Outcome

__all__ = ["outputs"]


def outputs(trace: Trace) -> None:
    """Hold what the outputs are for against the output terms."""
    terms, reading = trace.terms.outputs, trace.reading
    kind = reading.outputs
    if kind == "use":
        return
    trace.rely("use of outputs", terms)
    if kind == "sell":
        effect = terms.sell
        if effect == "forbidden" or (effect == "purpose" and trace.terms.commercial.rule != "allowed"):
            outcome = Outcome.FORBIDDEN if effect == "forbidden" else Outcome.NEEDS_GRANT
            trace.say(outcome, "outputs", "Outputs may not be sold under this licence.", terms)
        elif effect == "allowed":
            trace.say(Outcome.ALLOWED, "outputs", f"Outputs may be sold. {terms.belief}".strip(), terms)
        return
    effect = {
        "train_same_family": terms.train_same_family,
        "train_other_llm": terms.train_other_llm,
        "train_other_model": terms.train_other_model,
    }[kind]
    _train(trace, effect, f" {terms.belief}" if terms.belief else "")


def _train(trace: Trace, effect: str, belief: str) -> None:
    terms, reading = trace.terms.outputs, trace.reading
    what = {
        "train_same_family": "a model of its own family",
        "train_other_llm": "another language model",
        "train_other_model": "another model that is no language model",
    }[reading.outputs]
    when = WHEN["student_trained"]
    if effect == "forbidden":
        trace.say(Outcome.FORBIDDEN, "outputs", f"Outputs may not train {what}.{belief}", terms)
    elif effect == "silent":
        trace.say(
            Outcome.UNKNOWN,
            "outputs",
            f"The text is silent on training {what}; silence is no permission.{belief}",
            terms,
        )
    elif effect == "unknown":
        trace.say(Outcome.UNKNOWN, "outputs", f"Whether outputs may train {what} is not known.{belief}", terms)
    elif effect == "not_if_competing":
        competes = reading.flag("competing_service", reading.outputs == "train_other_llm")
        if competes:
            trace.say(
                Outcome.FORBIDDEN,
                "outputs",
                f"Outputs may not train a model that competes with the licensor's.{belief}",
                terms,
            )
        else:
            trace.say(
                Outcome.ALLOWED_WITH_OBLIGATIONS,
                "outputs",
                f"Outputs may train {what} that does not compete.{belief}",
                terms,
            )
            trace.owe("purpose", "See to it that the student does not compete with the licensor's models", when, terms)
    elif effect == "not_foundation":
        trace.say(
            Outcome.ALLOWED_WITH_OBLIGATIONS,
            "outputs",
            f"Outputs may train {what}, but no foundation model.{belief}",
            terms,
        )
        trace.owe("purpose", "See to it that the student is no foundation or general-purpose model", when, terms)
    elif effect == "purpose":
        outcome = (
            Outcome.NEEDS_GRANT if trace.commercial and trace.terms.commercial.rule != "allowed" else Outcome.ALLOWED
        )
        trace.say(
            outcome, "outputs", f"Outputs may train {what} within the purposes of the licence only.{belief}", terms
        )
        if outcome is Outcome.ALLOWED:
            trace.purpose(terms)
    elif effect == "flow_down":
        trace.say(
            Outcome.ALLOWED_WITH_OBLIGATIONS,
            "outputs",
            f"Outputs may train {what}; the licence goes with the student.{belief}",
            terms,
        )
        trace.owe(
            "flow_down",
            "Treat the student as a derivative: the terms and use restrictions apply to it",
            when,
            terms,
        )
    else:
        trace.say(Outcome.ALLOWED, "outputs", f"Outputs may train {what}.{belief}", terms)

"""What happens in a use, as far as a duty may hang on it."""

from __future__ import annotations

from osport.licenses.terms import Distribution, Trigger
from osport.licenses.use import Reading

__all__ = ["WHEN", "events"]

# How a trigger is said in a report.
WHEN: dict[Trigger, str] = {
    "any_use": "you use the model at all",
    "weights": "the weights reach others",
    "distribute": "you hand the model on",
    "hosted": "others call the model over a network",
    "product": "a product or service with the model is offered",
    "commercial_product": "a commercial product or service uses the model",
    "derivative": "you modify the model",
    "derivative_distributed": "a modified model reaches others",
    "derivative_hosted": "a modified model is made available over a network",
    "modified_distributed": "you hand on what you modified",
    "student_trained": "a model is trained on the outputs",
    "student_distributed": "a model trained on the outputs reaches others",
    "publication": "you publish results",
}


def events(reading: Reading, distribution: Distribution) -> frozenset[Trigger]:
    """The triggers that this use sets off, under what this licence calls distribution."""
    found: set[Trigger] = {"any_use", "publication"}
    distributes, serves = reading.distributes, reading.serves_others
    if distributes:
        found.add("weights")
    if distributes or (distribution.hosted and serves):
        found.add("distribute")
    if reading.hosts:
        found.add("hosted")
    if serves or distributes:
        found.add("product")
    if serves and reading.commercial:
        found.add("commercial_product")
    if reading.fine_tunes:
        found.add("derivative")
        if reading.hosts:
            found.add("derivative_hosted")
        if "distribute" in found:
            found.add("modified_distributed")
        if reading.derivative_distributed:
            found |= {"derivative_distributed", "modified_distributed", "distribute"}
    if reading.trains:
        found.add("student_trained")
        if reading.student_distributed:
            found.add("student_distributed")
            # A student of the model's own family is a modified copy of the model.
            if reading.outputs == "train_same_family":
                found |= {"derivative", "derivative_distributed", "modified_distributed", "distribute"}
    return frozenset(found)

"""From a model with its ancestors to one finding: duties add up, the strictest wins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import evolve

from osport.licenses.evaluate import evaluate
from osport.licenses.identify import AllOf, AnyOf, Expression, Known, Unclear, keys_of
from osport.licenses.resolve import Node
from osport.licenses.terms import licences
from osport.licenses.trace import Finding, Subject
from osport.licenses.use import Use
from osport.licenses.verdict import Assumption, Evidence, Obligation, Outcome, Reason

__all__ = ["evidence_of", "finding_of", "licences_of"]


def finding_of(node: Node, use: Use) -> Finding:
    """What the licences of a model and of all its ancestors say to a use."""
    return _merged(_findings(node, use, ""))


def _findings(node: Node, use: Use, via: str) -> Iterator[Finding]:
    subject = Subject(node.name, node.modality, via)
    asked = _as_teacher(use) if node.relation == "teacher" else use
    for expression in node.expressions:
        yield _evaluated(expression, asked, subject)
    yield Finding(Outcome.ALLOWED, tuple(_about(node, via)), tuple(_to_confirm(node, via)), ())
    for ancestor in node.ancestors:
        label = f"{ancestor.relation} {ancestor.name}"
        yield from _findings(ancestor, asked, f"{via} > {label}" if via else label)


def _as_teacher(use: Use) -> Use:
    """Outputs of a teacher have trained the model: its licence is asked about just that, on top of the use."""
    if use.outputs is not None and use.outputs.startswith("train"):
        return use
    return evolve(use, outputs="train_other_llm")


def _evaluated(expression: Expression, use: Use, subject: Subject) -> Finding:
    if isinstance(expression, Known):
        finding = evaluate(licences()[expression.key], use, subject)
        if expression.note:
            note = Reason(
                Outcome.ALLOWED,
                "resolution",
                expression.note[:1].upper() + expression.note[1:] + ".",
                expression.key,
                via=subject.via,
            )
            finding = evolve(finding, reasons=(*finding.reasons, note))
        return finding
    if isinstance(expression, Unclear):
        return _unclear(expression, use, subject)
    parts = [_evaluated(part, use, subject) for part in expression.parts]
    if isinstance(expression, AllOf):
        return _merged(parts)
    return _chosen(expression, parts)


def _chosen(expression: AnyOf, parts: list[Finding]) -> Finding:
    best = min(parts, key=lambda finding: finding.outcome.severity)
    text = f"The licensee may choose among {len(expression.parts)} licences; the mildest for this use was taken."
    return evolve(best, reasons=(*best.reasons, Reason(Outcome.ALLOWED, "choice", text)))


def _unclear(expression: Unclear, use: Use, subject: Subject) -> Finding:
    """``unknown``; but what every candidate refuses is refused, whichever it is."""
    parts = [evaluate(licences()[key], use, subject) for key in expression.candidates]
    outcome = Outcome.UNKNOWN
    if parts and all(part.outcome.denied for part in parts):
        outcome = min((part.outcome for part in parts), key=lambda candidate: candidate.severity)
    text = f"{expression.said}: {expression.why}."
    if outcome is not Outcome.UNKNOWN:
        text += " Whichever it is, it refuses this use."
    reasons = [Reason(outcome, "resolution", text, via=subject.via)]
    # The candidates' own clauses are told as information: none of them is known to apply.
    for part in parts[:6]:
        worst = part.reasons[0]
        told = f"If it is {worst.licence}: {part.outcome}, because {worst.text[:1].lower()}{worst.text[1:]}"
        reasons.append(evolve(worst, outcome=Outcome.ALLOWED, clause="candidate", text=told))
    assumptions = tuple(assumption for part in parts for assumption in part.assumptions)
    return Finding(outcome, tuple(reasons), (), assumptions)


def _about(node: Node, via: str) -> Iterator[Reason]:
    if node.conflict:
        told = "; ".join(str(evidence) for evidence, _ in node.found)
        yield Reason(Outcome.ALLOWED, "conflict", f"The sources disagree, so the strictest counts: {told}.", via=via)
    for note in node.notes:
        yield Reason(Outcome.ALLOWED, "resolution", note[:1].upper() + note[1:] + ".", via=via)


def _to_confirm(node: Node, via: str) -> Iterator[Obligation]:
    if node.confirmed:
        return
    evidence = node.found[0][0]
    known = f"what is known of it is a claim ({evidence.kind} {evidence.value!r})"
    what = f"Open the licence file of {node.name or 'the model'} and compare: {known}"
    yield Obligation("confirm", what, "before you rely on it", "", "", "", evidence.source, "unverified", via)


def _merged(findings: Iterable[Finding]) -> Finding:
    reasons: dict[tuple[object, ...], Reason] = {}
    obligations: dict[tuple[object, ...], Obligation] = {}
    assumptions: dict[str, Assumption] = {}
    outcomes: list[Outcome] = []
    for finding in findings:
        outcomes.append(finding.outcome)
        for reason in finding.reasons:
            reasons.setdefault((reason.outcome, reason.clause, reason.text, reason.licence), reason)
        for obligation in finding.obligations:
            key = (obligation.kind, obligation.what, obligation.exact, obligation.licence, obligation.trigger)
            obligations.setdefault(key, obligation)
        for assumption in finding.assumptions:
            assumptions.setdefault(assumption.field, assumption)
    if obligations:
        outcomes.append(Outcome.ALLOWED_WITH_OBLIGATIONS)
    ordered = sorted(reasons.values(), key=lambda reason: -reason.outcome.severity)
    return Finding(
        Outcome.strictest(outcomes), tuple(ordered), tuple(obligations.values()), tuple(assumptions.values())
    )


def licences_of(node: Node) -> tuple[str, ...]:
    """The keys that were applied, ancestors included."""
    own = [key for expression in node.expressions if not isinstance(expression, Unclear) for key in keys_of(expression)]
    return tuple(dict.fromkeys([*own, *(key for ancestor in node.ancestors for key in licences_of(ancestor))]))


def evidence_of(node: Node, via: str = "") -> tuple[Evidence, ...]:
    """Everything that was found, ancestors included; theirs say so in the note."""
    own = [
        evolve(evidence, note="; ".join(part for part in (evidence.note, f"of the {via}" if via else "") if part))
        for evidence, _ in node.found
    ]
    return (
        *own,
        *(
            found
            for ancestor in node.ancestors
            for found in evidence_of(ancestor, f"{ancestor.relation} {ancestor.name}")
        ),
    )

"""The decision, by the rule that the port file fixed, and what else a reader should know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import frozen

from osport.evals.compare import Comparison
from osport.port.plan import Limits
from osport.port.summary import ArmSummary
from osport.port.wording import points, seconds

__all__ = ["Decision", "decide", "needed_text"]

LOW_VALID_SHARE = 0.9


@frozen
class Decision:
    """``verdict``: PASS, FAIL or INCONCLUSIVE by Tango's interval against the margin, WITHHELD without an incumbent.

    ``reason`` is one sentence with the figures; ``findings`` are facts beside it that do not decide.
    """

    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE", "WITHHELD"]
    reason: str
    findings: tuple[str, ...]


def decide(
    candidate: str,
    incumbent: str | None,
    arms: Mapping[str, ArmSummary],
    comparisons: Sequence[Comparison],
    *,
    limits: Limits,
    best_constant: float | None,
) -> Decision:
    """Decide whether the candidate is non-inferior to the incumbent."""
    findings = [
        *level_findings(arms[candidate], limits),
        *constant_findings(arms[candidate], best_constant),
        *floor_findings(candidate, arms, comparisons),
        *form_findings(arms, candidate, incumbent),
    ]
    deciding = [c for c in comparisons if (c.candidate, c.reference) == (candidate, incumbent)]
    if not deciding:
        if incumbent is None:
            why, remedy = "there is no incumbent to compare with", "Name one in the port file, or with --incumbent."
        else:
            why, remedy = (
                f"{incumbent} gave no usable answer",
                "The report counts its errors; run again to retry.",
            )
        return Decision("WITHHELD", f"No decision: {why}. {remedy}", tuple(findings))
    comparison = deciding[0]
    if comparison.missing_reference:
        findings.append(
            f"{len(comparison.missing_reference)} items have no answer of the incumbent and are left out of the "
            f"comparison: {', '.join(comparison.missing_reference)}."
        )
    return Decision(comparison.verdict, reason_of(comparison), tuple(findings))


def reason_of(c: Comparison) -> str:
    interval = (
        f"the difference is {points(c.difference)} points, {c.interval.level:.0%} interval "
        f"{points(c.interval.low)} to {points(c.interval.high)}, on {c.pairs} items; "
        f"the margin is {c.margin * 100:g} points"
    )
    if c.verdict == "PASS":
        return f"{c.candidate} is not worse than {c.reference} by more than the margin: {interval}."
    if c.verdict == "FAIL":
        return f"{c.candidate} is worse than {c.reference} by more than the margin: {interval}."
    return f"The items do not settle it: {interval}. {needed_text(c)}"


def needed_text(c: Comparison) -> str:
    """How many items more an inconclusive comparison needs."""
    if c.needed.remaining is None:
        return "The observed difference lies on the margin; no number of items settles that."
    assumed = f"if the difference is {points(c.needed.difference)} and {c.needed.discordance:.1%} of the items flip"
    if c.needed.remaining == 0:
        return f"{c.needed.total} items would have been enough {assumed}; add some and run again."
    return (
        f"About {c.needed.remaining} more items ({c.needed.total} in all) give {c.needed.towards} "
        f"with {c.needed.power:.0%} power, {assumed}."
    )


def level_findings(arm: ArmSummary, limits: Limits) -> list[str]:
    if limits.p95_seconds is None:
        return []
    level = f"the p95 limit of {seconds(limits.p95_seconds)}"
    if arm.latency is None:
        return [f"Whether {arm.name} keeps {level} is unknown: no latency was recorded."]
    p95 = arm.latency.p95
    if p95.high is not None and p95.high <= limits.p95_seconds:
        return [f"{arm.name} keeps {level}: the upper end of p95 is {seconds(p95.high)}."]
    if p95.low is not None and p95.low > limits.p95_seconds:
        return [f"{arm.name} misses {level}: the lower end of p95 is {seconds(p95.low)}."]
    if p95.high is None:
        return [f"{arm.name} is not shown to keep {level}: {p95.n} items give p95 no upper end."]
    return [f"{arm.name} is not shown to keep {level}: its interval reaches beyond it."]


def constant_findings(arm: ArmSummary, best_constant: float | None) -> list[str]:
    if best_constant is None or arm.accuracy.low > best_constant:
        return []
    return [
        f"{arm.name} is not shown to beat a constant: the best single answer would be right on {best_constant:.1%}, "
        f"{arm.name} is on {arm.right / arm.items:.1%} (interval from {arm.accuracy.low:.1%})."
    ]


def floor_findings(candidate: str, arms: Mapping[str, ArmSummary], comparisons: Sequence[Comparison]) -> list[str]:
    """A floor without a model that is non-inferior to the candidate makes the model superfluous."""
    return [
        f"No model may be needed: {c.candidate}, which uses none, is not worse than {candidate} "
        f"by more than the margin ({points(c.difference)} points, from {points(c.interval.low)})."
        for c in comparisons
        if c.reference == candidate and arms[c.candidate].kind == "function" and c.verdict == "PASS"
    ]


def form_findings(arms: Mapping[str, ArmSummary], *names: str | None) -> list[str]:
    return [
        f"Only {arm.valid} of {arm.items} answers of {name} have a valid form; if your program accepts such "
        "answers, the comparison is unfair to it."
        for name in names
        if name is not None and name in arms and (arm := arms[name]).valid < LOW_VALID_SHARE * arm.items
    ]

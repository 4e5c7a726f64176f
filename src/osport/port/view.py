"""The figures of a port as the words and numbers that both reports print."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from pathlib import Path
from typing import Any

from osport.evals.compare import Comparison
from osport.evals.golden import GoldenSet
from osport.port.decide import needed_text
from osport.port.plan import Plan, digest
from osport.port.result import PortResult
from osport.port.summary import ArmSummary
from osport.port.wording import dollars, percent, percents, points, probability, quantile_ends, seconds

__all__ = ["view_of"]

TOOLS = ("osport", "scipy", "statsmodels", "genai-prices", "jsonschema")

METHODS = (
    "Valid form: share of answers that the form's verification accepts, with Wilson's 95 % interval. "
    "A valid answer can still be wrong; a forced one is one where the form took away more than half of the "
    "probability.",
    "Accuracy: share of all items that the scorer finds right; invalid answers and errors count as wrong. "
    "Wilson's 95 % interval.",
    "Latency: end to end, seconds on the client's clock, at the stated concurrency; failed calls count as infinite. "
    "The interval is that of order statistics (exact binomial, 95 %); a dash is an end that so few items do not give.",
    "Cost: a machine's hours at the measured throughput, or list prices of the tokens that the provider counted. "
    "Unknown is never zero.",
    "Comparison: the same items on both sides. A harmful flip is an item that the reference gets right and the "
    "candidate wrong. p is the exact two-sided McNemar test. The interval of the difference is Tango's score interval.",
    "Verdict: PASS when the interval lies above minus the margin, FAIL when it lies below, else INCONCLUSIVE. "
    "Only the candidate against the incumbent decides.",
)


def view_of(result: PortResult, plan: Plan, golden: GoldenSet) -> dict[str, Any]:
    """Everything that the templates print."""
    decision = result.decision
    incumbent = plan.incumbent if any(arm.name == plan.incumbent for arm in result.arms) else None
    roles = {plan.candidate: "candidate", incumbent: "incumbent"}
    return {
        "title": plan.name,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "findings": decision.findings,
        "arms": [arm_row(arm, roles.get(arm.name, "")) for arm in result.arms],
        "with_errors": any(arm.usd_per_1000_with_errors is not None for arm in result.arms),
        "comparisons": [comparison_row(c, plan.candidate, incumbent) for c in result.comparisons],
        "rule": list(rule_rows(plan, golden)),
        "provenance": [(arm.name, list(provenance_rows(arm))) for arm in result.arms],
        "environment": list(environment_rows()),
        "methods": METHODS,
    }


def arm_row(arm: ArmSummary, role: str) -> dict[str, str]:
    latency, tokens = arm.latency, arm.tokens
    timed = "" if latency is None or latency.known == latency.items else f" ({latency.known} of {latency.items} timed)"
    return {
        "name": arm.name,
        "role": role,
        "what": f"{arm.model}, {arm.kind}" if arm.kind != "function" else arm.model,
        "items": str(arm.items),
        "valid": percent(arm.valid / arm.items),
        "valid_interval": percents(arm.valid_share),
        "accuracy": percent(arm.right / arm.items),
        "accuracy_interval": percents(arm.accuracy),
        "p50": seconds(latency.p50.value) if latency else "unknown",
        "p50_interval": quantile_ends(latency.p50) if latency else "",
        "p95": seconds(latency.p95.value) + timed if latency else "unknown",
        "p95_interval": quantile_ends(latency.p95) if latency else "",
        "tokens": tokens_text(arm) if tokens else "no tokens" if arm.kind == "function" else "unknown",
        "cost": dollars(arm.cost.usd_per_1000),
        "cost_basis": arm.cost.basis,
        "cost_with_errors": dollars(arm.usd_per_1000_with_errors),
        "trouble": trouble(arm),
        "valid_but": valid_but(arm),
        "enforcement": ", ".join(f"{name} ({count})" for name, count in arm.enforcement.items()) or "none",
        "busy": f"{arm.busy_seconds:.1f} s",
        "rate": f"{arm.items / arm.busy_seconds:.3g}/s" if arm.busy_seconds else "unknown",
        "when": f"{moment(arm.first)} to {moment(arm.last)}",
        "record": arm.record,
    }


def comparison_row(c: Comparison, candidate: str, incumbent: str | None) -> dict[str, Any]:
    decides = (c.candidate, c.reference) == (candidate, incumbent)
    missing = [f"{c.candidate}: {', '.join(c.missing_candidate)}"] if c.missing_candidate else []
    missing += [f"{c.reference}: {', '.join(c.missing_reference)}"] if c.missing_reference else []
    return {
        "pair": f"{c.candidate} against {c.reference}",
        "decides": decides,
        "pairs": str(c.pairs),
        "worse": c.worse,
        "better": c.better,
        "difference": points(c.difference),
        "interval": f"{points(c.interval.low)} to {points(c.interval.high)}",
        "level": f"{c.interval.level:.0%}",
        "p": probability(c.mcnemar_p),
        "verdict": c.verdict if decides else c.verdict.lower(),
        "needed": needed_text(c) if c.verdict == "INCONCLUSIVE" else "",
        "missing": "; ".join(missing),
    }


def rule_rows(plan: Plan, golden: GoldenSet) -> Iterator[tuple[str, str]]:
    yield "Candidate", plan.candidate
    yield "Incumbent", plan.incumbent or "none"
    yield "Metric", f"scorer {plan.scorer}"
    yield "Margin", f"{plan.margin * 100:g} points of accuracy may be given up"
    yield "Interval", f"{1 - plan.alpha:.1%}, two-sided"
    yield "Golden set", f"{Path(golden.source).name}, {len(golden)} items, SHA-256 {golden.sha256}"
    yield "Rule", f"SHA-256 {digest(plan.rule(golden.sha256))}, written into every record before its first answer"
    yield "Port file", f"{plan.path.name}, SHA-256 {plan.sha256}"
    yield "Calls", f"{plan.concurrency} at a time, order shuffled with seed {plan.seed}"
    if plan.limits.p95_seconds is not None:
        yield "p95 limit", f"{seconds(plan.limits.p95_seconds)}"


def provenance_rows(arm: ArmSummary) -> Iterator[tuple[str, str, str]]:
    yield "run", f"{moment(arm.first)} to {moment(arm.last)}, {arm.busy_seconds:.1f} s busy", f"record {arm.record}"
    for name, fact in arm.facts.items():
        yield name, plain(fact.value), fact.source + (f" ({fact.date})" if fact.date else "")
    for name, value in arm.settings["arm"].items():
        if name not in arm.facts:
            yield name, plain(value), "SHA-256 of the file" if name.endswith("_sha256") else "port file"
    yield "cost", dollars(arm.cost.usd_per_1000), arm.cost.basis


def environment_rows() -> Iterator[tuple[str, str]]:
    yield "Written", moment(datetime.now(UTC).timestamp())
    yield "Machine", f"{cpu_name()}, {cpu_count()} logical cores, {platform.system()} {platform.machine()}"
    yield "Python", platform.python_version()
    for package in TOOLS:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "CPU unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "CPU unknown"


def trouble(arm: ArmSummary) -> str:
    parts = [f"{count} {name} (invalid)" for name, count in arm.invalid.items()]
    parts += [f"{count} {name} (error)" for name, count in arm.errors.items()]
    parts += [f"{arm.retried} answered after retries"] if arm.retried else []
    return ", ".join(parts) or "none"


def valid_but(arm: ArmSummary) -> str:
    """What is wrong with answers whose form is right."""
    forced = "" if arm.forced is None else f", {arm.forced} forced"
    return f"{arm.wrong_but_valid} wrong, {arm.uncertain} uncertain{forced}"


def tokens_text(arm: ArmSummary) -> str:
    tokens = arm.tokens
    if tokens is None:
        return "unknown"
    note = "" if tokens.known == tokens.items else f" ({tokens.known} of {tokens.items} counted)"
    return f"{tokens.prompt / tokens.known:.0f} in, {tokens.completion / tokens.known:.0f} out{note}"


def moment(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=lambda v: plain_value(v))


def plain_value(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)

"""What the report says of one arm: shares, latency, tokens, cost, each with how sure it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from osport.core.facts import Fact
from osport.evals.record import ItemResult
from osport.evals.statistics import Interval, Quantile, quantile, wilson
from osport.port.cost import UnitCost, busy_seconds, closed_cost, local_cost
from osport.port.plan import Arm, Plan

__all__ = ["ArmSummary", "Latency", "Tokens", "summarise"]

PRICED_BY_TOKENS = frozenset({"anthropic", "replay"})
"""Backends whose answers a provider bills by the token; all other arms run on a machine that is paid by the hour."""


FORCED = 0.5
"""An answer is called forced when more than this probability went to what its form does not allow."""


@frozen
class Latency:
    """End-to-end seconds of one call, failed calls at infinity; ``known`` of ``items`` were timed."""

    p50: Quantile
    p95: Quantile
    known: int
    items: int


@frozen
class Tokens:
    """Tokens as the engine counted them, summed over ``known`` of ``items`` items."""

    prompt: int
    completion: int
    known: int
    items: int


@frozen
class ArmSummary:
    """One arm's figures. Shares are of all ``items``; invalid answers and errors count as wrong.

    ``invalid`` and ``errors`` count by class, ``enforcement`` by how the form was enforced. Form is not truth:
    ``wrong_but_valid`` answers have the form and the wrong value, ``uncertain`` ones say that the model does not
    know, and in ``forced`` ones (None: not measured) the form took away more than half of the probability.
    ``busy_seconds`` is the time in which at least one call ran; ``first`` and ``last`` are seconds
    since the epoch. ``record`` is the file name of the record beside the report.
    """

    name: str
    kind: str
    model: str
    items: int
    valid: int
    valid_share: Interval
    right: int
    accuracy: Interval
    invalid: Mapping[str, int]
    errors: Mapping[str, int]
    enforcement: Mapping[str, int]
    wrong_but_valid: int
    uncertain: int
    forced: int | None
    latency: Latency | None
    tokens: Tokens | None
    busy_seconds: float
    retried: int
    cost: UnitCost
    usd_per_1000_with_errors: float | None
    settings: Mapping[str, Any]
    facts: Mapping[str, Fact]
    record: str
    first: float
    last: float


def summarise(
    arm: Arm,
    plan: Plan,
    results: Sequence[ItemResult],
    settings: Mapping[str, Any],
    facts: Mapping[str, Fact],
    record: str,
) -> ArmSummary:
    """The figures of one arm from its finished items (at least one)."""
    n = len(results)
    right = sum(r.right for r in results)
    valid = sum(r.status == "answered" for r in results)
    by_tokens = arm.model is not None and arm.model.partition(":")[0] in PRICED_BY_TOKENS
    cost = closed_cost(results) if by_tokens else local_cost(results, plan.cost.machine_usd_per_hour)
    return ArmSummary(
        name=arm.name,
        kind=arm.kind,
        model=arm.model or arm.function or "",
        items=n,
        valid=valid,
        valid_share=wilson(valid, n),
        right=right,
        accuracy=wilson(right, n),
        invalid=classes(results, "invalid"),
        errors=classes(results, "error"),
        enforcement=dict(Counter(r.enforcement for r in results if r.status != "error")),
        wrong_but_valid=sum(r.status == "answered" and not r.right and not r.uncertain for r in results),
        uncertain=sum(r.uncertain for r in results),
        forced=forced_of(results),
        latency=latency_of(results),
        tokens=tokens_of(results),
        busy_seconds=busy_seconds(results),
        retried=sum(r.attempts > 1 for r in results),
        cost=cost,
        usd_per_1000_with_errors=cost.with_errors(right / n, plan.cost.error_usd),
        settings=settings,
        facts=facts,
        record=record,
        first=min(r.started for r in results),
        last=max(r.ended for r in results),
    )


def classes(results: Sequence[ItemResult], status: str) -> dict[str, int]:
    return dict(Counter(str(r.error) for r in results if r.status == status).most_common())


def forced_of(results: Sequence[ItemResult]) -> int | None:
    known = [r.removed_mass for r in results if r.removed_mass is not None]
    return sum(mass > FORCED for mass in known) if known else None


def latency_of(results: Sequence[ItemResult]) -> Latency | None:
    known = [s for r in results if (s := r.seconds) is not None]
    if not known:
        return None
    return Latency(quantile(known, 0.5), quantile(known, 0.95), len(known), len(results))


def tokens_of(results: Sequence[ItemResult]) -> Tokens | None:
    counted = [
        (r.prompt_tokens, r.completion_tokens)
        for r in results
        if r.prompt_tokens is not None and r.completion_tokens is not None
    ]
    if not counted:
        return None
    prompt, completion = (sum(column) for column in zip(*counted, strict=True))
    return Tokens(prompt, completion, len(counted), len(results))

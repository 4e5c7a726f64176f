"""What one answer costs. What is not known stays unknown; it is never zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version

from attrs import frozen

from osport.evals.optional import optional
from osport.evals.record import ItemResult

__all__ = ["UnitCost", "busy_seconds", "closed_cost", "local_cost"]


@frozen
class UnitCost:
    """US dollars for 1,000 answers, None when unknown; ``basis`` says how it was made, or what is missing."""

    usd_per_1000: float | None
    basis: str

    def with_errors(self, accuracy: float, error_usd: float | None) -> float | None:
        """Dollars for 1,000 answers, the cost of the wrong ones included; None when a part is unknown."""
        if self.usd_per_1000 is None or error_usd is None:
            return None
        return self.usd_per_1000 + 1000 * (1 - accuracy) * error_usd


def busy_seconds(results: Iterable[ItemResult]) -> float:
    """Wall-clock seconds in which at least one item was being worked on; pauses between sessions are left out."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted((r.started, r.ended) for r in results):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total


def local_cost(results: Sequence[ItemResult], machine_usd_per_hour: float | None) -> UnitCost:
    """The machine's hours at the throughput that was measured, as if it did nothing else (reservation cost).

    usd = machine_usd_per_hour x busy seconds / 3600 / items. An idle machine costs more per answer.
    """
    if machine_usd_per_hour is None:
        return UnitCost(None, "unknown: [cost] machine_usd_per_hour is not given")
    if not results:
        return UnitCost(None, "unknown: no items were run")
    seconds = busy_seconds(results)
    usd = machine_usd_per_hour * seconds / 3600 / len(results) * 1000
    return UnitCost(
        usd, f"{machine_usd_per_hour:g} USD/h x {seconds:.1f} busy seconds / {len(results)} items, machine fully used"
    )


def closed_cost(results: Sequence[ItemResult]) -> UnitCost:
    """List price of the tokens that the provider counted (genai-prices, its packaged snapshot).

    Unknown when an answer names no model or no usage, or the snapshot does not list the model.
    Errors, which return no usage, are left out and counted in ``basis``.
    """
    answered = [r for r in results if r.status != "error"]
    if not answered:
        return UnitCost(None, "unknown: no answers")
    models = {r.model for r in answered}
    for result in answered:
        if not result.model or result.prompt_tokens is None or result.completion_tokens is None:
            return UnitCost(None, f"unknown: item {result.id!r} comes without its model or its token counts")
    prices = optional("genai_prices")
    snapshot = f"genai-prices {version('genai-prices')}"
    total = 0.0
    for result in answered:
        usage = prices.Usage(
            input_tokens=result.prompt_tokens,
            output_tokens=result.completion_tokens,
            cache_read_tokens=result.cached_tokens or 0,
        )
        try:
            total += float(prices.calc_price(usage, model_ref=result.model).total_price)
        except LookupError:
            return UnitCost(None, f"unknown: {snapshot} does not list the model {result.model!r}")
    failed = len(results) - len(answered)
    basis = f"tokens returned x list price of {', '.join(sorted(models))} ({snapshot})"
    if failed:
        basis += f"; {failed} failed calls not counted"
    return UnitCost(total / len(answered) * 1000, basis)

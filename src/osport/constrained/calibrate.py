"""Label probabilities with the bias of the prompt taken out.

A model prefers some labels before it has read the item. Contextual calibration (arXiv 2102.09690)
measures the preference on inputs without content; batch calibration (arXiv 2309.17249) takes the
mean over the items themselves. Both subtract it in log space and normalise again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import frozen

from osport.errors import UsageError

__all__ = ["CONTENT_FREE", "LabelScores", "batch", "contextual", "normalised"]

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs without content, as the paper on contextual calibration uses them."""


@frozen
class LabelScores:
    """The log-probability (natural, of the whole label given the prompt) of each label for one item."""

    logs: Mapping[str, float]

    def __attrs_post_init__(self) -> None:
        if len(self.logs) < 2:
            raise UsageError(f"{len(self.logs)} labels: at least two are needed")
        bad = {label: value for label, value in self.logs.items() if not value <= 0}
        if bad:
            raise UsageError(f"log-probabilities are at most 0: {bad}")

    @property
    def mass(self) -> float:
        """The probability that the model itself gave to all labels together; a small one marks a forced answer."""
        return min(1.0, sum(math.exp(value) for value in self.logs.values()))


def normalised(scores: LabelScores) -> dict[str, float]:
    """The probability of each label among the labels."""
    return _softmax(scores.logs)


def contextual(scores: LabelScores, without_content: Sequence[LabelScores]) -> dict[str, float]:
    """The probabilities with the preference on content-free inputs taken out: p divided by their mean, normalised.

    Raises :class:`~osport.errors.UsageError` without content-free scores, or for other labels.
    """
    return _corrected(scores, _mean(without_content))


def batch(items: Sequence[LabelScores]) -> list[dict[str, float]]:
    """The probabilities of each item with the mean over all items taken out.

    Needs items whose true labels are mixed: it pulls towards labels that are equally frequent.
    Raises :class:`~osport.errors.UsageError` for fewer than two items, or different labels.
    """
    if len(items) < 2:
        raise UsageError("batch calibration takes the mean over the items; at least two are needed")
    bias = _mean(items)
    return [_corrected(item, bias) for item in items]


def _mean(scores: Sequence[LabelScores]) -> dict[str, float]:
    """The mean of the normalised probabilities."""
    if not scores:
        raise UsageError("no scores to measure the bias on")
    labels = list(scores[0].logs)
    each = [normalised(score) for score in scores]
    for probabilities in each:
        if probabilities.keys() != set(labels):
            raise UsageError(f"scores of different labels: {sorted(probabilities)} and {sorted(labels)}")
    return {label: sum(probabilities[label] for probabilities in each) / len(each) for label in labels}


def _corrected(scores: LabelScores, bias: Mapping[str, float]) -> dict[str, float]:
    if scores.logs.keys() != bias.keys():
        raise UsageError(f"scores of different labels: {sorted(scores.logs)} and {sorted(bias)}")
    smallest = 1e-300  # a label that never got any probability says nothing about the bias
    return _softmax({label: value - math.log(max(bias[label], smallest)) for label, value in scores.logs.items()})


def _softmax(logs: Mapping[str, float]) -> dict[str, float]:
    top = max(logs.values())
    if top == -math.inf:
        return {label: 1 / len(logs) for label in logs}
    weights = {label: math.exp(value - top) for label, value in logs.items()}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}

"""Repeatability: what the label of an answer promises is so."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from osport.core.types import Determinism
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["DeterminismChecks"]


class DeterminismChecks(Area):
    """What the same question asked again must give."""

    def test_greedy_answers_repeat(self, model: Model) -> None:
        """Temperature 0 twice gives the same text."""
        self._needs(model, "temperature")
        assert self._ask(model).text == self._ask(model).text

    def test_every_answer_has_a_label(self, model: Model) -> None:
        """One of the four that there are."""
        assert self._ask(model).determinism in get_args(Determinism)

    def test_what_is_labelled_repeatable_repeats(self, model: Model) -> None:
        """``exact_replay`` and ``seeded`` are promises, also for sampled answers."""
        drawn: dict[str, Any] = {"temperature": 1.0, "seed": 7}
        drawn = {name: value for name, value in drawn.items() if self._takes(model, name)}
        first = self._ask(model, **drawn)
        if first.determinism not in ("exact_replay", "seeded"):
            pytest.skip(f"the answer is labelled {first.determinism!r}, which promises nothing")
        for _ in range(2):
            assert self._ask(model, **drawn).text == first.text

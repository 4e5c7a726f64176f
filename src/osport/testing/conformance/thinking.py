"""Thinking: switched on and off by the engine's own means, and kept apart from the answer."""

from __future__ import annotations

from typing import Any

import pytest

from osport.core.types import Completion, Thinking
from osport.errors import UnsupportedFeature
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["ThinkingChecks"]

MARKS = ("<think>", "</think>", "[THINK]", "[/THINK]")


class ThinkingChecks(Area):
    """What asking for reasoning, or for none, must come to."""

    def test_thinking_off_is_kept_or_refused(self, model: Model) -> None:
        """Off is off: no reasoning, in no field."""
        if not model.capabilities.thinking:
            with pytest.raises(UnsupportedFeature):
                model.generate(self._request(model, thinking=False))
            return
        answer = self._thinking(model, False)
        if answer is not None:
            assert not answer.reasoning
            assert not any(mark in answer.text for mark in MARKS)

    def test_reasoning_is_kept_apart_from_the_answer(self, model: Model) -> None:
        """No mark of the model's reasoning stands in the text."""
        self._needs(model, "thinking")
        answer = self._thinking(model, True)
        if answer is not None:
            assert answer.reasoning is None or isinstance(answer.reasoning, str)
            assert not any(mark in answer.text for mark in MARKS)

    @pytest.mark.parametrize("asked", [True, False, "low", 64], ids=str)
    def test_every_way_of_thinking_is_taken_or_refused(self, model: Model, asked: Thinking) -> None:
        """A switch, a level, a budget: what the engine cannot do is an UnsupportedFeature, nothing else."""
        self._needs(model, "thinking")
        answer = self._thinking(model, asked)
        assert answer is None or isinstance(answer.text, str)

    def _thinking(self, model: Model, asked: Thinking) -> Completion | None:
        room: dict[str, Any] = {"max_tokens": 128} if self._takes(model, "max_tokens") else {}
        try:
            return model.generate(self._request(model, thinking=asked, **room))
        except UnsupportedFeature:
            return None

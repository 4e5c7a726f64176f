"""Sampling parameters: sent, obeyed, and on record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from osport.core.capabilities import ALL_SAMPLING
from osport.errors import UnsupportedFeature
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["SamplingChecks"]

A_VALUE_OTHER_THAN_THE_DEFAULT: Mapping[str, Any] = {
    "max_tokens": 7,
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 11,
    "min_p": 0.1,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.3,
    "seed": 5,
    "stop": ("\n\n",),
}


class SamplingChecks(Area):
    """What the parameters of a call must come to."""

    def test_effective_records_every_parameter(self, model: Model) -> None:
        """What was sent can be read back, osport's defaults included."""
        assert not set(model.capabilities.sampling) - set(self._ask(model).effective)

    @pytest.mark.parametrize("name", sorted(ALL_SAMPLING))
    def test_a_sampling_parameter_is_sent_or_refused(self, model: Model, name: str) -> None:
        """No parameter is dropped."""
        value = A_VALUE_OTHER_THAN_THE_DEFAULT[name]
        if name in model.capabilities.sampling:
            sent = self._ask(model, **{name: value}).effective[name]
            assert (tuple(sent) if name == "stop" else sent) == value
        else:
            with pytest.raises(UnsupportedFeature, match=name):
                model.generate(self._request(model, **{name: value}))

    def test_max_tokens_is_kept(self, model: Model) -> None:
        """The answer stops where it was told to, and says so."""
        self._needs(model, "max_tokens")
        answer = model.generate(self._request(model, max_tokens=2))
        assert answer.usage.completion_tokens in (None, 1, 2)
        assert answer.finish_reason == "length"

    def test_stop_strings_are_kept(self, model: Model) -> None:
        """The answer ends before the stop string."""
        # Without a temperature no answer repeats, so none can be stopped at a known word.
        self._needs(model, "stop", "temperature")
        words = self._ask(model).text.split()
        if len(words) < 2:
            pytest.skip("the answer is too short to be stopped")
        answer = self._ask(model, stop=(words[1],))
        assert words[1] not in answer.text
        assert answer.finish_reason == "stop"

    def test_temperature_and_seed_reach_the_engine(self, model: Model) -> None:
        """Hot answers under four seeds are not all the same."""
        self._needs(model, "temperature", "seed")
        texts = {self._ask(model, temperature=1.5, seed=seed).text for seed in range(1, 5)}
        assert len(texts) > 1, f"four seeds at temperature 1.5, and always {texts}"

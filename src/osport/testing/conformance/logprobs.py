"""Log-probabilities: natural, of the tokens that were really chosen, and whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from osport.core.types import ContinuationScore, TokenLogprob
from osport.errors import UnsupportedFeature
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["LogprobChecks"]

RAW_TOLERANCE = 0.02
"""Between two computations of the same log-probability: caches and batch sizes move the last bits."""
LIKELY = " The sea is a large body of salt water."
NONSENSE = " Zq xvk jjw 77 pfft gnrk."


class LogprobChecks(Area):
    """What numbers about tokens must be."""

    def test_logprobs_are_given_or_refused(self, model: Model) -> None:
        """One entry for each token of the text, plain floats, at most 0, and where they were taken."""
        if not model.capabilities.logprobs:
            with pytest.raises(UnsupportedFeature):
                model.generate(self._request(model, logprobs=2))
            return
        answer = self._ask(model, logprobs=2)
        tokens = self._checked(answer.logprobs)
        assert "".join(token.token for token in tokens).strip().startswith(answer.text.strip())
        assert answer.logprobs_from in ("model", "sampler")

    def test_as_many_alternatives_as_asked(self, model: Model) -> None:
        """``logprobs=2`` brings two for each token (the chosen one may come on top), ``logprobs=0`` none."""
        self._needs(model, "logprobs")
        for asked in (0, 2):
            tokens = self._checked(self._ask(model, logprobs=asked).logprobs)
            assert all(asked <= len(token.top) <= asked + 1 for token in tokens)
            assert all(_fine(value) for token in tokens for value in token.top.values())

    def test_a_greedy_answer_takes_the_likeliest(self, model: Model) -> None:
        """The number of a token is that of its own place, not of its neighbour's."""
        self._needs(model, "logprobs", "temperature")
        for place, token in enumerate(self._checked(self._ask(model, logprobs=2).logprobs)):
            assert token.logprob >= max(token.top.values()) - RAW_TOLERANCE, f"token {place}: {token}"

    def test_continuations_are_scored_or_that_is_refused(self, model: Model) -> None:
        """One score for each, in order, whose tokens make up the whole continuation."""
        if not model.capabilities.score:
            with pytest.raises(UnsupportedFeature):
                self._scores(model, ["yes"])
            return
        asked = ["yes", "no, not at all", "perhaps"]
        scores = self._scores(model, asked)
        assert [score.text for score in scores] == asked
        for score in scores:
            self._checked(score.tokens)
            assert "".join(token.token for token in score.tokens).strip() == score.text.strip()

    def test_what_is_likely_scores_above_nonsense(self, model: Model) -> None:
        """The sum over all tokens, by sign and by order."""
        self._needs(model, "score")
        likely, nonsense = self._scores(model, [LIKELY, NONSENSE])
        assert likely.logprob > nonsense.logprob

    def test_a_score_is_the_models_own(self, model: Model) -> None:
        """No temperature in it."""
        self._needs(model, "score", "temperature")
        cold, warm = (self._scores(model, [LIKELY], temperature=degree)[0] for degree in (0.0, 1.8))
        assert cold.logprob == pytest.approx(warm.logprob, abs=RAW_TOLERANCE * len(cold.tokens))

    def _scores(self, model: Model, continuations: Sequence[str], **sampling: Any) -> tuple[ContinuationScore, ...]:
        request = self._request(model, **sampling)
        return model.backend.score(self._as_the_backend_gets_it(model, request), continuations)

    def _checked(self, tokens: Sequence[TokenLogprob] | None) -> Sequence[TokenLogprob]:
        assert tokens
        for token in tokens:
            assert isinstance(token, TokenLogprob)
            # A numpy number looks like a float until somebody writes it to JSON.
            assert _fine(token.logprob), f"{token.logprob!r} is no log-probability"
        return tokens


def _fine(value: object) -> bool:
    return type(value) is float and not math.isnan(value) and value <= 1e-6

"""The mask over a vocabulary whose tokens are single bytes."""

import numpy as np
import pytest

from osport.constrained.dialects import to_llguidance
from osport.constrained.masks import LlguidanceMask
from osport.core.types import Constraint
from osport.errors import BackendError, UsageError

llguidance = pytest.importorskip("llguidance")
BYTES = llguidance.LLTokenizer("byte")
END = BYTES.eos_token


def mask_of(*labels):
    return LlguidanceMask(to_llguidance(Constraint("choice", labels)), BYTES)


def allowed(mask, scores=None):
    scores = np.linspace(-5, 5, BYTES.vocab_size, dtype=np.float32) if scores is None else scores
    before = scores.copy()
    mask.apply(scores)
    kept = np.flatnonzero(np.isfinite(scores))
    assert np.array_equal(scores[kept], before[kept]), "an allowed logit must keep its value"
    return set(kept.tolist())


def test_the_mask_follows_the_answer_to_its_end():
    mask = mask_of("no", "nope")
    assert allowed(mask) == {ord("n")}
    mask.advance(ord("n"))
    assert not mask.is_accepting
    mask.advance(ord("o"))
    assert mask.is_accepting
    assert allowed(mask) == {ord("p"), END}
    for byte in b"pe":
        mask.advance(byte)
    assert mask.is_accepting
    assert mask.is_stopped
    assert allowed(mask) == {END}


def test_two_requests_share_a_tokenizer_and_no_state():
    first, second = mask_of("ab"), mask_of("xy")
    first.advance(ord("a"))
    assert allowed(first) == {ord("b")}
    assert allowed(second) == {ord("x")}


def test_scores_beyond_the_vocabulary_are_forbidden():
    assert allowed(mask_of("a"), np.zeros(BYTES.vocab_size + 40, dtype=np.float32)) == {ord("a")}


def test_a_forbidden_token_is_an_error_and_the_mask_stays_failed():
    mask = mask_of("ab")
    with pytest.raises(BackendError, match="forbids"):
        mask.advance(ord("z"))
    with pytest.raises(BackendError, match="midway"):
        mask.apply(np.zeros(BYTES.vocab_size, dtype=np.float32))
    assert not mask.is_accepting


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros(BYTES.vocab_size, dtype=np.float64),
        np.zeros(2 * BYTES.vocab_size, dtype=np.float32)[::2],
        np.zeros((1, BYTES.vocab_size), dtype=np.float32),
        np.zeros(10, dtype=np.float32),
    ],
    ids=["float64", "strided", "2-D", "short"],
)
def test_scores_of_another_shape_are_refused(scores):
    with pytest.raises(UsageError, match="scores"):
        mask_of("a").apply(scores)


def test_a_grammar_that_the_engine_refuses_gives_no_mask():
    with pytest.raises(UsageError, match="does not take the grammar"):
        LlguidanceMask('start: %json {"not": {}}', BYTES)

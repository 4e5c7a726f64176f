"""The mask of one answer over a vocabulary whose tokens are single bytes, by every engine."""

import gc
import json
import weakref

import numpy as np
import pytest

from osport.constrained.engines import ENGINES
from osport.constrained.masks import ModelMasks, TokenMask
from osport.constrained.vocabulary import BYTES, Vocabulary
from osport.core.types import Constraint
from osport.errors import BackendError, UnsupportedFeature, UsageError

PACKAGES = {"llguidance": "llguidance", "xgrammar": "xgrammar", "outlines": "outlines_core"}
SIZE = len(BYTES.pieces)
END = BYTES.ends[0]
# What llama-cpp-python hands over: the logits inside an array of records, twelve bytes apart.
RECORDS = np.dtype([("id", np.intc), ("logit", np.single), ("p", np.single)], align=True)


@pytest.fixture(params=sorted(PACKAGES))
def engine(request):
    pytest.importorskip(PACKAGES[request.param], reason=f"{request.param} is not installed")
    return request.param


def mask_of(engine, *labels, vocabulary=BYTES):
    return ModelMasks(vocabulary).mask(Constraint("choice", labels, engine))


def allowed(mask, scores=None):
    scores = np.linspace(-5, 5, SIZE, dtype=np.float32) if scores is None else scores
    before = scores.copy()
    mask.apply(scores)
    kept = np.flatnonzero(np.isfinite(scores))
    assert np.array_equal(scores[kept], before[kept]), "an allowed logit must keep its value"
    return set(kept.tolist())


def test_the_mask_follows_the_answer_to_its_end(engine):
    mask = mask_of(engine, "no", "nope")
    assert allowed(mask) == {ord("n")}
    mask.advance(ord("n"))
    assert not mask.is_accepting
    mask.advance(ord("o"))
    assert mask.is_accepting
    assert not mask.is_stopped
    assert allowed(mask) == {ord("p"), END}
    for byte in b"pe":
        mask.advance(byte)
    assert mask.is_accepting
    assert mask.is_stopped
    assert allowed(mask) == {END}


def test_a_mask_goes_back_by_tokens(engine):
    mask = mask_of(engine, "no", "nope")
    for byte in b"nope":
        mask.advance(byte)
    mask.rollback(2)
    assert allowed(mask) == {ord("p"), END}
    mask.advance(END)
    mask.rollback(2)
    assert allowed(mask) == {ord("o")}
    mask.advance(ord("o"))
    assert mask.is_accepting


def test_two_requests_share_what_was_compiled_and_no_state(engine):
    masks = ModelMasks(BYTES)
    first, second = (masks.mask(Constraint("choice", ("ab",), engine)) for _ in range(2))
    first.advance(ord("a"))
    assert allowed(first) == {ord("b")}
    assert allowed(second) == {ord("a")}
    assert len(masks._compiled) == 1


@pytest.mark.parametrize(
    ("schema", "many"),
    [({"const": 1}, False), ({"type": "string"}, True), ({"type": "array", "items": {"type": "integer"}}, False)],
)
def test_few_many_and_half_of_the_tokens_are_the_same_to_a_mask(engine, schema, many):
    """Over a vocabulary that is large enough for each of the ways to write a mask."""
    pieces = [bytes([value]) for value in range(256)] + [f"w{n}".encode() for n in range(6000)] + [b""]
    vocabulary = Vocabulary(pieces, [len(pieces) - 1])
    matcher = ENGINES[engine].compile(Constraint("json_schema", schema), vocabulary).start()
    mask = TokenMask(ENGINES[engine].compile(Constraint("json_schema", schema), vocabulary).start(), vocabulary)
    for byte in b'"' if many else b"":
        matcher.advance(byte)
        mask.advance(byte)
    bits = np.zeros(vocabulary.words, dtype=np.int32)
    matcher.fill(bits)
    wanted = np.flatnonzero(np.unpackbits(bits.view(np.uint8), count=len(pieces), bitorder="little"))
    assert (len(wanted) > 5000) == many
    assert allowed(mask, np.zeros(len(pieces), dtype=np.float32)) == set(wanted.tolist())


def test_half_of_the_tokens():
    pytest.importorskip("llguidance")
    pieces = [bytes([value]) for value in range(256)] + [b"a1" if n % 2 else b"1a" for n in range(6000)] + [b""]
    vocabulary = Vocabulary(pieces, [len(pieces) - 1])
    mask = ModelMasks(vocabulary).mask(Constraint("regex", "a[a1]*"))
    assert allowed(mask, np.zeros(len(pieces), dtype=np.float32)) == {ord("a"), *range(257, 6256, 2)}


def test_the_logits_are_masked_where_they_lie(engine):
    records = np.zeros(SIZE + 40, dtype=RECORDS).view(np.recarray)
    records.logit[:] = 1.0
    view = records.logit
    assert not view.flags.c_contiguous
    mask_of(engine, "a").apply(view)
    assert np.flatnonzero(np.isfinite(records["logit"])).tolist() == [ord("a")]
    assert not records["id"].any()
    assert not records["p"].any()


def test_a_forbidden_token_is_an_error_and_the_mask_stays_failed(engine):
    mask = mask_of(engine, "ab")
    with pytest.raises(BackendError, match="forbids"):
        mask.advance(ord("z"))
    with pytest.raises(BackendError, match="midway"):
        mask.apply(np.zeros(SIZE, dtype=np.float32))
    assert not mask.is_accepting
    assert mask.is_stopped


def test_a_mask_that_allows_nothing_is_an_error():
    """A fake matcher: no real engine is known to do this, and greedy sampling would end the answer without a word."""

    class Nothing:
        is_accepting = is_stopped = False

        def fill(self, bits):
            bits.fill(0)

    scores = np.ones(SIZE, dtype=np.float32)
    with pytest.raises(BackendError, match="allows no token"):
        TokenMask(Nothing(), BYTES).apply(scores)
    assert scores.all()


@pytest.mark.parametrize(
    "scores",
    [np.zeros(SIZE, dtype=np.float64), np.zeros((1, SIZE), dtype=np.float32), np.zeros(10, dtype=np.float32)],
    ids=["float64", "2-D", "short"],
)
def test_scores_of_another_shape_are_refused(scores):
    pytest.importorskip("llguidance")
    with pytest.raises(UsageError, match="scores"):
        mask_of("llguidance", "a").apply(scores)


@pytest.mark.parametrize("schema", [{"not": {"pattern": "(?=x)"}}, {"type": "string", "pattern": "(?=x)y"}])
def test_what_an_engine_refuses_gives_no_mask_that_allows_only_the_end(engine, schema):
    with pytest.raises(UnsupportedFeature):
        ModelMasks(BYTES).mask(Constraint("json_schema", schema, engine))


def test_a_mask_keeps_nothing_of_a_model(engine):
    """Pieces of a vocabulary are copied; the vocabulary goes when its masks go."""
    vocabulary = Vocabulary([b"a", b"b", b""], [2])
    gone = weakref.ref(vocabulary)
    mask = mask_of(engine, "ab", vocabulary=vocabulary)
    mask.advance(0)
    del mask, vocabulary
    gc.collect()
    assert gone() is None


def test_every_end_token_ends(engine):
    vocabulary = Vocabulary([b"a", b"", b"b", b""], [1, 3])
    mask = mask_of(engine, "a", vocabulary=vocabulary)
    mask.advance(0)
    assert allowed(mask, np.zeros(4, dtype=np.float32)) == {1, 3}
    assert mask.is_stopped


def test_the_oldest_compiled_form_goes_first(engine):
    masks = ModelMasks(BYTES)
    for number in range(70):
        masks.mask(Constraint("choice", (str(number),), engine))
    assert len(masks._compiled) == 64
    assert (engine, "choice", json.dumps(["69"]), None) in masks._compiled
    assert (engine, "choice", json.dumps(["0"]), None) not in masks._compiled

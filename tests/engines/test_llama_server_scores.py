"""Log-probabilities from the embedded llama.cpp server: whose they are, and that whole texts are counted."""

import math

import pytest

from osport import Model
from osport.backends.llama_server import LlamaServerBackend
from osport.errors import ContextOverflow, UnsupportedFeature, UsageError
from osport.plugin import Constraint, Message, Request, Sampling, Tool

pytestmark = pytest.mark.engine

PROMPT = "Review: I love it.\nSentiment: positive\n\nReview: It broke at once.\nSentiment:"
# A prompt that is in the cache gives logits that differ in their last bits.
CLOSE = {"abs": 0.02}


def raw(prompt: str = PROMPT, *, logprobs: int | None = None, constraint: Constraint | None = None, **sampling: object):
    return Request(
        prompt=prompt, sampling=Sampling(**{"max_tokens": 1, **sampling}), logprobs=logprobs, constraint=constraint
    )


def test_a_text_scores_what_its_tokens_had_when_it_was_generated(server):
    answer = server.generate(raw(max_tokens=8, logprobs=3))
    assert answer.logprobs_from == "model"
    assert len(answer.logprobs) == answer.usage.completion_tokens == 8
    assert "".join(token.token for token in answer.logprobs) == answer.text
    assert all(len(token.top) == 3 and max(token.top.values()) == token.logprob for token in answer.logprobs)
    (score,) = server.score(raw(), [answer.text])
    assert [token.token for token in score.tokens] == [token.token for token in answer.logprobs]
    assert [token.logprob for token in score.tokens] == pytest.approx([t.logprob for t in answer.logprobs], **CLOSE)
    assert score.logprob == pytest.approx(sum(token.logprob for token in answer.logprobs), abs=0.1)


def test_the_scores_of_all_likely_tokens_sum_to_at_most_one(server):
    (top,) = server.generate(raw(logprobs=60)).logprobs
    scores = server.score(raw(), [token for token in top.top if token.isascii()])
    assert {one.text: one.logprob for one in scores} == pytest.approx(
        {text: value for text, value in top.top.items() if text.isascii()}, **CLOSE
    )
    assert 0.5 < math.fsum(math.exp(one.logprob) for one in scores) <= 1


def test_the_whole_label_counts_and_not_its_first_token(server):
    """Two labels with the same beginning are told apart by what follows."""
    bad, terrible, beginning = server.score(raw(), [" very bad", " very xylophone", " very"])
    assert bad.tokens[0] == terrible.tokens[0] == beginning.tokens[0]
    assert bad.logprob > terrible.logprob + 3
    assert bad.logprob < beginning.logprob


def test_neither_a_form_nor_the_temperature_changes_the_log_probabilities(server):
    (positive,) = server.score(raw(), [" positive"])
    forced = server.generate(raw(constraint=Constraint("choice", (" positive",)), logprobs=0, max_tokens=8))
    assert forced.logprobs[0].token in (" positive", " ")
    (space,) = server.score(raw(), [forced.logprobs[0].token])
    assert forced.logprobs[0].logprob == pytest.approx(space.logprob, **CLOSE)
    assert forced.logprobs[0].top == {}
    hot = server.generate(raw(temperature=1.7, seed=3, logprobs=0)).logprobs[0]
    (cold,) = server.score(raw(), [hot.token])
    assert hot.logprob == pytest.approx(cold.logprob, **CLOSE)
    assert positive.logprob < 0


def test_a_stream_carries_the_same_log_probabilities(server):
    whole = server.generate(raw(max_tokens=4, logprobs=2)).logprobs
    *_, last = server.stream(raw(max_tokens=4, logprobs=2))
    streamed = last.completion.logprobs
    assert [token.token for token in streamed] == [token.token for token in whole]
    assert [t.logprob for t in streamed] == pytest.approx([t.logprob for t in whole], **CLOSE)


def test_a_conversation_is_scored_behind_the_opening_of_the_answer(server):
    conversation = (Message.user("Answer with one word: the colour of grass."),)
    text = server.generate(Request(conversation, sampling=Sampling(max_tokens=3))).text
    likely, unlikely = server.score(Request(conversation), [text, "Submarine"])
    assert likely.logprob > unlikely.logprob + 5
    prefilled = (*conversation, Message.assistant("The colour of grass is"))
    green, lost = server.score(Request(prefilled), [" green", " submarine"])
    assert green.logprob > lost.logprob + 3


def test_nobody_asked_and_nothing_is_there(server):
    answer = server.generate(raw())
    assert answer.logprobs is None
    assert answer.logprobs_from is None


def test_a_text_whose_first_token_the_prompt_holds_is_scored_as_it_would_be_written(server):
    (score,) = server.score(raw("Once upon a ti"), ["me"])
    assert "".join(token.token for token in score.tokens) == "me"


def test_what_cannot_be_scored_is_refused(server):
    with pytest.raises(UsageError, match="empty"):
        server.score(raw(), [""])
    with pytest.raises(UsageError, match="without a form"):
        server.score(raw(constraint=Constraint("choice", ("a", "b"))), ["a"])
    with pytest.raises(UsageError, match="without tools"):
        server.score(Request((Message.user("x"),), tools=[Tool("t")]), ["a"])
    with pytest.raises(ContextOverflow):
        server.score(raw("word " * 2000), [" a"])


def test_the_promise_of_repetition_depends_on_the_cache(server, model_path):
    assert server.generate(raw()).determinism == "best_effort"
    with LlamaServerBackend(str(model_path), context=256, threads=1, prompt_cache=False) as alone:
        hot = {"temperature": 1.5, "seed": 4, "max_tokens": 12}
        first, again = alone.generate(raw("Once", **hot)), alone.generate(raw("Once", **hot))
        assert first.determinism == "seeded"
        assert first.text == again.text


def test_items_are_classified_and_calibrated(server):
    shots = "".join(
        f"Review: {text}\nSentiment: {label}\n\n"
        for text, label in (("Great.", "positive"), ("Bad.", "negative"), ("I love it.", "positive"))
    )
    reviews = ("What a wonderful film, the best of all!", "Broken, awful, a waste of money.")
    prompts = [Request(prompt=f"{shots}Review: {review}\nSentiment:") for review in reviews]
    labels = {"pos": " positive", "neg": " negative"}
    model = Model(server)
    good, bad = model.classify(prompts, labels, calibration="batch")
    assert (good.label, bad.label) == ("pos", "neg")
    assert good.mass > 0.5
    assert good.confidence == good.probabilities["pos"] > 0.5
    forced = model.classify(Request(prompt="The capital of France is"), labels)
    assert forced.removed_mass > 0.95
    with pytest.raises(UnsupportedFeature, match="llama_server"):
        Model("echo:").classify("x", ["a", "b"])


def test_an_item_that_cannot_be_scored_stops_no_other(server):
    model = Model(server)
    first, second = model.classify([raw(), raw("word " * 2000)], [" positive", " negative"])
    assert first.label in (" positive", " negative")
    assert isinstance(second, ContextOverflow)

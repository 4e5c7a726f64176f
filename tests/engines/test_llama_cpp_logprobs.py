"""Log-probabilities of answers and of given continuations, against the numbers of llama-cpp-python itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from asking import ask

from osport.backends.llama_cpp import LlamaCppBackend
from osport.errors import ContextOverflow, UsageError
from osport.plugin import Constraint, Message, Request, Sampling

pytestmark = pytest.mark.engine

QUESTION = Request((Message.user("Is the sea wet?"),))


@pytest.fixture(scope="module", params=["child", "in-process"])
def backend(request, model_path):
    # Without the prompt cache a text is always read in the same batches, and its numbers are the same.
    alone = request.param == "in-process"
    with LlamaCppBackend(str(model_path), context=512, threads=1, prompt_cache=False, in_process=alone) as made:
        yield made


@pytest.fixture(scope="module")
def rows(model_path):
    """The package's own way, which keeps every logit: given a prompt and what follows it, the tokens that follow
    and the log-probabilities at the place of each. They follow one by one, as in an answer, or at once."""
    from llama_cpp import Llama

    llama = Llama(str(model_path), n_ctx=512, n_threads=1, logits_all=True, verbose=False)

    def of(prompt: str, text: str, *, at_once: bool = False) -> tuple[list[int], np.ndarray]:
        before = llama.tokenize(prompt.encode(), add_bos=True, special=True)
        tokens = llama.tokenize((prompt + text).encode(), add_bos=True, special=True)[len(before) :]
        llama.reset()
        llama.eval(before)
        for part in [tokens] if at_once else [[token] for token in tokens]:
            llama.eval(part)
        places = slice(len(before) - 1, len(before) + len(tokens) - 1)
        logits = np.array(llama.scores[places], dtype=np.float64)
        return tokens, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    yield of
    llama.close()


def test_an_answer_tells_the_models_own_log_probabilities(backend, rows):
    prompt = "The capital of France is"
    # Hot and filtered: what the sampler made of the numbers must not show.
    sampling = Sampling(max_tokens=6, temperature=1.5, top_k=10, seed=3)
    answer = backend.generate(Request(prompt=prompt, sampling=sampling, logprobs=3))
    assert answer.logprobs_from == "model"
    assert "".join(token.token for token in answer.logprobs) == answer.text
    tokens, expected = rows(prompt, answer.text)
    assert len(tokens) == len(answer.logprobs) == 6
    for told, token, row in zip(answer.logprobs, tokens, expected, strict=True):
        assert told.logprob == pytest.approx(row[token], abs=1e-3)
        assert list(told.top.values()) == pytest.approx(sorted(row)[:-4:-1], abs=1e-3)


def test_the_mask_does_not_show_in_the_log_probabilities(backend):
    answer = backend.generate(ask("Is the sea wet?", constraint=Constraint("choice", ("zebra",)), logprobs=1))
    first = answer.logprobs[0]
    assert first.logprob < -5
    assert first.token not in first.top


def test_streamed_log_probabilities_are_those_of_the_whole(backend):
    request = ask("Name a colour.", logprobs=2)
    *_, last = backend.stream(request)
    assert [token.token for token in last.completion.logprobs] == [
        token.token for token in backend.generate(request).logprobs
    ]
    assert backend.generate(ask("Name a colour.")).logprobs is None


def test_there_are_no_more_alternatives_than_tokens(backend):
    (token,) = backend.generate(ask("Say hi", max_tokens=1, logprobs=10**6)).logprobs
    assert 40_000 < len(token.top) < 50_000
    assert math.fsum(math.exp(logprob) for logprob in token.top.values()) == pytest.approx(1, abs=0.01)


def test_a_stop_string_cuts_the_tokens_as_it_cuts_the_text(backend):
    whole = backend.generate(ask("Count from one to ten.", max_tokens=24))
    cut = backend.generate(ask("Count from one to ten.", max_tokens=24, stop=(whole.text[9:14],), logprobs=0))
    assert "".join(token.token for token in cut.logprobs[:-1]) in cut.text
    assert "".join(token.token for token in cut.logprobs).startswith(cut.text)


def test_bytes_that_are_no_character_stay_apart(backend):
    (score,) = backend.score(Request(prompt="Repeat:", logprobs=20), [" 😀 日本語"])
    assert all(len(token.top) == 20 for token in score.tokens)
    assert any("\\x" in token.token for token in score.tokens)


def test_continuations_are_scored_as_the_package_scores_them(backend, rows):
    prompt, labels = "The capital of France is", (" Paris", " London, of course", " a")
    for text, score in zip(labels, backend.score(Request(prompt=prompt), labels), strict=True):
        tokens, expected = rows(prompt, text, at_once=True)
        assert score.text == text == "".join(token.token for token in score.tokens)
        assert [token.logprob for token in score.tokens] == pytest.approx(
            [row[token] for token, row in zip(tokens, expected, strict=True)], abs=1e-3
        )
        assert score.logprob == pytest.approx(math.fsum(token.logprob for token in score.tokens))


def test_the_order_of_the_continuations_does_not_matter(backend):
    labels = ["yes", "no", "perhaps it is", "yes, very"]
    assert backend.score(QUESTION, labels) == backend.score(QUESTION, labels[::-1])[::-1]


def test_the_prompt_that_was_scored_need_not_be_read_again(model_path):
    with LlamaCppBackend(str(model_path), context=256, threads=1) as caching:
        caching.score(QUESTION, ["yes", "perhaps it is"])
        usage = caching.generate(QUESTION).usage
    assert usage.cached_tokens == usage.prompt_tokens - 1


def test_scoring_leaves_answers_what_they_are(backend):
    before = backend.generate(ask("Is the sea wet?")).text
    backend.score(QUESTION, ["no", "never in my life"])
    assert backend.generate(ask("Is the sea wet?")).text == before


def test_a_long_continuation_is_scored_in_parts(backend, rows):
    text = " upon a time. " + "The sea is wide and deep, and ships sail over it from one land to the other. " * 6
    (score,) = backend.score(Request(prompt="Once"), [text])
    tokens, expected = rows("Once", text, at_once=True)
    assert len(score.tokens) == len(tokens) > 100
    # Other batches, other roundings of the activations; a token at a wrong place would cost several units.
    differences = [told.logprob - row[token] for told, token, row in zip(score.tokens, tokens, expected, strict=True)]
    assert max(map(abs, differences)) < 1.0


def test_alternatives_are_told_where_asked_for(backend):
    (score,) = backend.score(Request(prompt="The capital of France is", logprobs=2), [" Paris"])
    assert max(score.tokens[0].top.values()) >= score.tokens[0].logprob
    assert len(score.tokens[0].top) == 2


def test_what_cannot_be_scored_is_refused(backend):
    with pytest.raises(UsageError, match="empty continuation"):
        backend.score(QUESTION, ["yes", ""])
    with pytest.raises(ContextOverflow, match="continuation"):
        backend.score(QUESTION, ["word " * 600])


def test_repeatability_is_promised_only_where_it_is_kept(backend, model_path):
    with LlamaCppBackend(str(model_path), context=256, threads=1) as caching:
        assert caching.generate(ask()).determinism == "best_effort"
    request = ask(temperature=1.5, seed=4, logprobs=0)
    first = backend.generate(request)
    backend.generate(ask("Something else, to be read in between"))
    again = backend.generate(request)
    assert first.determinism == "seeded"
    assert again.logprobs == first.logprobs

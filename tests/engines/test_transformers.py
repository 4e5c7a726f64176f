"""Hugging Face transformers on torch, on a CPU: the contract, on real weights."""

from __future__ import annotations

import threading
import time
from importlib.util import find_spec

import pytest
from asking import SCHEMA, ask

from osport.backends._interruption import Interruption
from osport.backends.transformers import TransformersBackend
from osport.errors import ContextOverflow, ModelNotFound, TimedOut, UnsupportedFeature, UsageError
from osport.plugin import Completion, Constraint
from osport.testing import BackendConformance

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed: make test-vllm installs and tests"),
]

SMALL = {"context": 512, "dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def backend(hf_model):
    with TransformersBackend(str(hf_model), **SMALL) as made:
        yield made


class TestTransformers(BackendConformance):
    overflow = "word " * 600
    options = SMALL

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def weights(cls, hf_model):
        cls.reference = f"transformers:{hf_model}"


def test_what_is_wrong_is_said_before_anything_is_loaded(hf_model):
    with pytest.raises(ModelNotFound):
        TransformersBackend("no/such-model")
    for wrong in ({"dtype": "int3"}, {"context": 10**6}, {"device": 3}, {"devise": "cpu"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            TransformersBackend(str(hf_model), **wrong)


def test_a_score_is_the_sum_of_the_log_probabilities_that_sampling_saw(backend):
    answer = backend.generate(ask("Is the sea wet?", max_tokens=6, logprobs=0))
    (score,) = backend.score(ask("Is the sea wet?"), [answer.text])
    assert score.logprob == pytest.approx(sum(token.logprob for token in answer.logprobs), abs=0.01)


def test_greedy_answers_repeat_and_seeds_matter(backend):
    request = ask("Name a fish.", max_tokens=12, temperature=1.0, seed=3)
    assert backend.generate(request).text == backend.generate(request).text
    other = ask("Name a fish.", max_tokens=12, temperature=1.0, seed=4)
    assert backend.generate(request).text != backend.generate(other).text


def left_to_the_answer(backend, monkeypatch, timeout):
    """Seconds that are left of the timeout when the model begins to answer."""
    left = []
    monkeypatch.setattr(
        backend,
        "_answer",
        lambda request, prompt, deadline, hand_on: left.append(deadline.left) or Completion("", "stop"),
    )
    backend.generate(ask(timeout=timeout))
    list(backend.stream(ask(timeout=timeout)))
    return left


def test_waiting_in_the_queue_is_part_of_the_timeout(hf_model, monkeypatch):
    backend = TransformersBackend(str(hf_model), **SMALL)
    monkeypatch.setattr(backend, "_loaded", "a fake")
    backend._prompt(ask())  # reads the template, which takes its time once
    held = threading.Event()

    def hold():
        with backend._queue.turn(9, Interruption()):
            held.set()
            time.sleep(0.5)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    assert left_to_the_answer(backend, monkeypatch, 60)[0] <= 59.6
    holder.join()


def test_loading_is_no_part_of_the_timeout(hf_model, monkeypatch):
    backend = TransformersBackend(str(hf_model), **SMALL)
    monkeypatch.setattr(backend, "_generator", lambda: time.sleep(0.5))
    assert all(left > 59.6 for left in left_to_the_answer(backend, monkeypatch, 60))


def test_a_fault_inside_the_mask_is_raised(backend, monkeypatch):
    from osport.backends import _hf_generation

    def explode(self, tokens, scores):
        raise UsageError("inside the processor")

    monkeypatch.setattr(_hf_generation._Mask, "__call__", explode)
    with pytest.raises(UsageError, match="inside the processor"):
        backend.generate(ask(constraint=Constraint("json_schema", SCHEMA), max_tokens=40))


def test_limits_are_kept(backend):
    with pytest.raises(TimedOut):
        backend.generate(ask("Write a long story.", max_tokens=300, timeout=0.2))
    with pytest.raises(ContextOverflow, match="never trims"):
        backend.generate(ask("word " * 600))
    assert backend.generate(ask()).text


def test_penalties_that_the_package_lacks_are_refused(hf_model):
    from osport import Model

    with Model(f"transformers:{hf_model}", **SMALL) as model, pytest.raises(UnsupportedFeature, match="presence"):
        model.generate("hi", presence_penalty=0.5)

"""Hugging Face transformers on torch, on a CPU: the contract, on real weights."""

from __future__ import annotations

import threading
import time
from importlib.util import find_spec

import pytest
from asking import SCHEMA, ask

from osport.backends.transformers import TransformersBackend
from osport.errors import ContextOverflow, ModelNotFound, TimedOut, UnsupportedFeature, UsageError
from osport.plugin import Constraint
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


def test_waiting_in_the_queue_is_part_of_the_timeout(backend):
    backend.load()
    held = threading.Event()

    def hold():
        with backend._queue.turn(9):
            held.set()
            time.sleep(0.8)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    began = time.perf_counter()
    with pytest.raises(TimedOut, match=r"within 1 s"):
        backend.generate(ask("Tell me a very long story.", max_tokens=400, temperature=1.0, timeout=1))
    assert time.perf_counter() - began < 1.6
    holder.join()


def test_loading_is_no_part_of_the_timeout(hf_model, monkeypatch):
    load = TransformersBackend._generator

    def slowly(self):
        if self._loaded is None:
            time.sleep(0.6)
        return load(self)

    monkeypatch.setattr(TransformersBackend, "_generator", slowly)
    with TransformersBackend(str(hf_model), **SMALL) as fresh:
        assert fresh.generate(ask("Say hi", max_tokens=1, timeout=0.6)).usage.completion_tokens == 1


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


def test_loading_takes_nothing_of_the_time_of_a_call(hf_model, backend, monkeypatch):
    backend.generate(ask(max_tokens=1))
    loaded = backend._loaded

    def slowly(*arguments, **options):
        time.sleep(4.0)
        return loaded

    monkeypatch.setattr("osport.backends.transformers.HfGenerator", slowly)
    with TransformersBackend(str(hf_model), **SMALL) as fresh:
        assert fresh.generate(ask(max_tokens=1, timeout=3.0)).usage.completion_tokens == 1


def test_waiting_in_the_queue_takes_from_the_time_of_a_call(backend):
    took: list[float] = []

    def call() -> None:
        started = time.monotonic()
        with pytest.raises(TimedOut, match=r"2\.5 s"):
            backend.generate(ask("Write a long story.", max_tokens=400, timeout=2.5))
        took.append(time.monotonic() - started)

    pieces = backend.stream(ask("Write a long story.", max_tokens=400))
    next(pieces)
    second = threading.Thread(target=call)
    second.start()
    time.sleep(2.0)
    pieces.close()
    second.join()
    assert took[0] < 4.0


def test_penalties_that_the_package_lacks_are_refused(hf_model):
    from osport import Model

    with Model(f"transformers:{hf_model}", **SMALL) as model, pytest.raises(UnsupportedFeature, match="presence"):
        model.generate("hi", presence_penalty=0.5)

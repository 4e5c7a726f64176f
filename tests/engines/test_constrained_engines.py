"""Every mask engine on a real model: what it lets through conforms, and nothing it does wrong goes unnoticed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from osport import ConstrainedOutput, Message, Model, Tool
from osport.backends._llama_cpp_engine import LlamaCppEngine
from osport.backends.llama_cpp import LlamaCppBackend
from osport.constrained.engine_llguidance import LlguidanceEngine
from osport.constrained.masks import ModelMasks
from osport.constrained.vocabulary import llama_vocabulary
from osport.core.call_form import CallForm
from osport.errors import BackendError, Truncated, UnsupportedFeature
from osport.plugin import Constraint, Request

pytestmark = pytest.mark.engine

PACKAGES = {"llguidance": "llguidance", "xgrammar": "xgrammar", "outlines": "outlines_core"}
RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "kind": {"enum": ["tool", "food"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "kind", "tags"],
    "additionalProperties": False,
}
WEATHER = Tool(
    "get_weather",
    "Weather of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "minLength": 1, "maxLength": 20}, "days": {"enum": [1, 7]}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
)
TIME = Tool("get_time", "The time now", {"type": "object", "properties": {}, "additionalProperties": False})
HERMES = CallForm(begin="<tool_call>\n", end="\n</tool_call>")


@pytest.fixture(params=sorted(PACKAGES))
def engine(request):
    pytest.importorskip(PACKAGES[request.param], reason=f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="module")
def model(model_path):
    with Model(f"llama_cpp:{model_path}", context=1024, threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def served(model_path):
    with Model(f"llama_server:{model_path}", context=1024, threads=1) as made:
        yield made


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_schema(model, engine, temperature):
    output = ConstrainedOutput.json_schema(RECORD, engine=engine)
    answer = model.generate("Describe one thing.", output=output, max_tokens=80, temperature=temperature, seed=3)
    assert set(answer.parsed) == {"name", "kind", "tags"}
    assert answer.enforcement.by == "sampling"
    assert answer.enforcement.verified
    assert engine in answer.enforcement.engine


def test_a_choice_and_a_regex(model, engine):
    assert model.generate("Say no.", output=ConstrainedOutput.choice(["yes", "yesterday"], engine=engine)).parsed in (
        "yes",
        "yesterday",
    )
    number = ConstrainedOutput.regex("[1-9][0-9]{2}", engine=engine)
    assert 100 <= int(model.generate("A number?", output=number, temperature=1.0).parsed) <= 999


def test_the_embedded_server_takes_llguidance_and_its_own_grammar(served):
    for engine, named in (("llguidance", "llguidance"), ("native", "llama.cpp-gbnf")):
        answer = served.generate(
            "Describe.", output=ConstrainedOutput.json_schema(RECORD, engine=engine), max_tokens=80
        )
        assert set(answer.parsed) == {"name", "kind", "tags"}
        assert named in answer.enforcement.engine
    with pytest.raises(UnsupportedFeature, match="the engine xgrammar: it has llama.cpp-gbnf, llguidance"):
        served.generate("x", output=ConstrainedOutput.json_schema(RECORD, engine="xgrammar"))
    with pytest.raises(UnsupportedFeature, match="minimum at"):
        served.generate("x", output=ConstrainedOutput.json_schema({"type": "number", "minimum": 0}, engine="native"))


def test_a_native_grammar_in_this_process_goes_through_a_mask_when_asked(model):
    answer = model.generate("x", output=ConstrainedOutput.grammar('root ::= "a" [bc]{3}', engine="llguidance"))
    assert len(answer.parsed) == 4
    assert "llguidance" in answer.enforcement.engine


@pytest.mark.parametrize("place", ["model", "served"])
@pytest.mark.parametrize("form", [None, HERMES, CallForm(begin="<function={name}>", end="</function>")])
def test_tool_calls(request, place, form):
    """The model is far too small to know tools: whatever it wants to say, only a call comes out."""
    which = request.getfixturevalue(place)
    output = ConstrainedOutput.tools([WEATHER, TIME], "required", form=form)
    answer = which.generate("What is the weather in Rome?", output=output, max_tokens=80, temperature=1.0, seed=1)
    (call,) = answer.tool_calls
    assert answer.parsed == answer.tool_calls
    assert answer.finish_reason == "tool_calls"
    assert answer.text == ""
    assert call.name in ("get_weather", "get_time")
    assert call.name == "get_time" or call.arguments["days"] in (1, 7)


def test_calls_side_by_side_and_free_text_before_them(model, served):
    several = ConstrainedOutput.tools([TIME], "required", parallel=True, form=CallForm(begin="!{name}", between=";"))
    calls = model.generate("Call the tool often.", output=several, max_tokens=200).tool_calls
    assert 1 <= len(calls) <= 16
    assert [call.id for call in calls] == [f"call_{at}" for at in range(len(calls))]
    auto = ConstrainedOutput.tools([WEATHER], "auto", form=HERMES)
    for which in (model, served):
        told = which.generate("Say hello.", output=auto, max_tokens=200)
        assert told.text
        assert told.tool_calls == ()
        assert told.finish_reason == "stop"


def test_a_call_that_does_not_fit_is_truncated_not_half(model):
    with pytest.raises(Truncated):
        model.generate("Weather?", output=ConstrainedOutput.tools([WEATHER]), max_tokens=6)


# What llama-cpp-python does in silence.


def test_a_fault_in_a_mask_engine_is_raised(model_path, engine, monkeypatch):
    from osport.constrained.masks import TokenMask

    with LlamaCppBackend(str(model_path), context=512, threads=1, in_process=True) as backend:
        asked = Request((Message.user("hi"),), constraint=Constraint("choice", ("yes", "no"), engine))
        assert backend.generate(asked).text in ("yes", "no")
        calls = []

        def broken(self, scores):
            calls.append(1)
            raise ZeroDivisionError("inside the callback")

        monkeypatch.setattr(TokenMask, "apply", broken)
        with pytest.raises((BackendError, ZeroDivisionError), match="inside the callback"):
            backend.generate(asked)
        assert calls == [1], "generation must not go on unconstrained"


def test_penalties_and_samplers_leave_the_form_alone(model, engine):
    output = ConstrainedOutput.choice(["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"], engine=engine)
    wild = {"temperature": 5.0, "repeat_penalty": 1.9, "frequency_penalty": 1.5, "presence_penalty": 1.5, "top_p": 0.1}
    for options in (wild, {**wild, "top_p": 1.0, "min_p": 0.9}, {"top_k": 1}):
        assert model.generate("x", output=output, max_tokens=40, **options).parsed[0] in "ab"


@pytest.mark.parametrize("engine_name", sorted(PACKAGES))
def test_a_mask_may_outlive_its_model(model_path, engine_name):
    """In a process of its own: the fault that this guards against ended the process."""
    pytest.importorskip(PACKAGES[engine_name])
    code = """
import gc, sys
import numpy as np
from osport.backends._llama_cpp_engine import LlamaCppEngine, MaskedLogits
from osport.core.types import Constraint
from pathlib import Path
engine = LlamaCppEngine(Path(sys.argv[1]), context=64, threads=1, gpu_layers=0)
integers = {"type": "array", "items": {"type": "integer"}}
masked = MaskedLogits(engine.masks.mask(Constraint("json_schema", integers, sys.argv[2])), engine.masks.vocabulary.ends)
size = engine._llama.n_vocab()
engine.close()
del engine
gc.collect()
for token in (0,):
    scores = np.zeros(size, dtype=np.float32)
    masked(None, scores)
    assert masked.fault is None, masked.fault
    assert 0 < np.isfinite(scores).sum() < 100
print("alive")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_path), engine_name], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == "alive", done.stderr[-800:]


@pytest.fixture
def loaded(model_path):
    engine = LlamaCppEngine(model_path, context=64, threads=1, gpu_layers=0)
    yield engine
    engine.close()


def test_the_vocabulary_spells_what_the_model_says(loaded):
    vocabulary = llama_vocabulary(loaded._llama)
    text = 'Grüße, {"a": [1, 2]}'.encode()
    tokens = loaded._llama.tokenize(text, add_bos=False, special=False)
    assert b"".join(vocabulary.pieces[token] for token in tokens) == text
    assert all(loaded.is_end(token) for token in vocabulary.ends)
    assert len(vocabulary.pieces) == loaded._llama.n_vocab()


def test_an_answer_is_taken_token_by_token(loaded, engine):
    masks = ModelMasks(llama_vocabulary(loaded._llama))
    text = json.dumps({"name": "saw", "kind": "tool", "tags": [True]}, separators=(",", ":"))
    mask = masks.mask(Constraint("json_schema", RECORD, engine))
    for token in loaded._llama.tokenize(text.encode(), add_bos=False, special=False):
        mask.advance(token)
    assert mask.is_accepting


@pytest.mark.parametrize("in_process", [True, False])
def test_a_refusal_comes_out_of_the_child_process_as_itself(model_path, engine, in_process):
    schema = {"type": "array", "items": {"type": "string", "pattern": "(?=x)y"}}
    with LlamaCppBackend(str(model_path), context=64, threads=1, in_process=in_process) as backend:
        with pytest.raises(UnsupportedFeature, match=r"pattern at \$\.items\.pattern") as caught:
            backend.generate(Request((Message.user("hi"),), constraint=Constraint("json_schema", schema, engine)))
        assert caught.value.reason


def test_a_lark_grammar_on_both_llama_backends(model, served):
    lark = 'start: greeting " " /[a-z]{3}/\ngreeting: "hi" | "ho"'
    for one in (model, served):
        answer = one.generate("Greet Bob.", output=ConstrainedOutput.grammar(lark), max_tokens=20)
        assert answer.parsed[:3] in ("hi ", "ho ")
        assert "llguidance" in answer.enforcement.engine


def test_a_form_that_takes_long_to_compile_holds_up_no_other_call(model_path, monkeypatch):
    """A slow engine is a fake here: real ones are stopped too soon, or not slow enough."""
    slow, compile_ = threading.Event(), LlguidanceEngine.compile

    def compile_slowly(self, constraint, vocabulary, thought=None):
        if constraint.value == ("slow",):
            assert slow.wait(60)
        return compile_(self, constraint, vocabulary, thought)

    monkeypatch.setattr(LlguidanceEngine, "compile", compile_slowly)
    with LlamaCppBackend(str(model_path), context=64, threads=1, in_process=True) as backend:

        def ask(*labels):
            constraint = Constraint("choice", labels, "llguidance")
            return backend.generate(Request((Message.user("hi"),), constraint=constraint)).text

        backend.load()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ask, "slow")
            assert ask("quick") == "quick"
            assert not waiting.done()
            slow.set()
            assert waiting.result(60) == "slow"

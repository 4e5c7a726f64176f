"""Models that think before a constrained answer, by two templates of ours, on real weights."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from asking import SCHEMA
from thinkers import OPENED_BY_MODEL, OPENED_BY_PROMPT, with_template

from osport import ConstrainedOutput, Model
from osport.chat_template import ChatTemplate
from osport.constrained.masks import ModelMasks
from osport.constrained.thoughts import behind_thought
from osport.constrained.vocabulary import llama_vocabulary
from osport.core.thought import Thought
from osport.errors import Truncated, UnsupportedFeature
from osport.plugin import Constraint

pytestmark = pytest.mark.engine

FORM = ConstrainedOutput.json_schema(SCHEMA)
QUESTION = "Is 'Service was slow' pos or neg?"
TEMPLATES = {"opened by the prompt": OPENED_BY_PROMPT, "opened by the model": OPENED_BY_MODEL}
BUDGET = 9


@pytest.fixture(scope="module", params=["llama_cpp", "llama_server"])
def backend(request, model_path):
    """Loaded once; a model with another template is another ``Model`` around it."""
    with Model(f"{request.param}:{model_path}", context=1024, threads=1) as made:
        yield made.backend


@pytest.fixture(params=sorted(TEMPLATES))
def template(request):
    return ChatTemplate.from_text(TEMPLATES[request.param])


@pytest.fixture(scope="module")
def vocabulary(model_path):
    import llama_cpp

    model = llama_cpp.Llama(str(model_path), vocab_only=True, verbose=False)
    yield llama_vocabulary(model)
    model.close()


def test_the_budget_is_counted_in_the_tokens_of_the_model(vocabulary):
    mask = ModelMasks(vocabulary).mask(Constraint("choice", ("pos", "neg")), Thought("</think>", budget=4))

    def allowed():
        scores = np.zeros(len(vocabulary.pieces), dtype=np.float32)
        mask.apply(scores)
        return {vocabulary.pieces[at] for at in np.flatnonzero(np.isfinite(scores))}

    for word in (b" the", b" service", b" was", b" slow"):
        free = allowed()
        assert len(free) > 0.99 * len(set(vocabulary.pieces))
        assert b"" not in free  # neither the end nor a control token
        mask.advance(vocabulary.pieces.index(word))
    assert allowed() == {b"</", b"<"}
    for word in (b"</", b"think", b">"):
        mask.advance(vocabulary.pieces.index(word))
    assert allowed() == {b"p", b"pos", b"po", b"n", b"ne", b"neg", b"\n", b"\n\n"}


def test_control_tokens_are_marks_of_their_own(vocabulary):
    opens, closes = sorted(vocabulary.controls, key=vocabulary.controls.__getitem__)[-2:]
    mask = ModelMasks(vocabulary).mask(Constraint("choice", ("pos",)), Thought(closes, opens, budget=1))
    mask.advance(vocabulary.controls[opens])
    mask.advance(vocabulary.pieces.index(b" slow"))
    scores = np.zeros(len(vocabulary.pieces), dtype=np.float32)
    mask.apply(scores)
    assert np.flatnonzero(np.isfinite(scores)).tolist() == [vocabulary.controls[closes]]


def test_the_thought_keeps_to_its_budget_and_the_form_holds_behind_it(backend, template):
    model = Model(backend, template=template)
    answer = model.generate(QUESTION, output=FORM, thinking=BUDGET, max_tokens=60)
    assert FORM.verify(answer.text) == answer.parsed
    assert answer.reasoning
    assert "think>" not in answer.reasoning
    assert answer.enforcement.verified
    assert answer.enforcement.by == "sampling"
    assert "llguidance" in answer.enforcement.engine
    thought, rest = (model.count_tokens(text) - model.count_tokens("") for text in (answer.reasoning, answer.text))
    assert thought <= BUDGET
    assert answer.usage.completion_tokens >= BUDGET + rest  # the thought counts as what was generated


def test_a_stream_shows_the_form_alone(backend, template):
    model = Model(backend, template=template)
    *pieces, last = model.stream(QUESTION, output=FORM, thinking=BUDGET, max_tokens=60)
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == last.completion.text
    assert last.completion.parsed["label"] in ("pos", "neg")
    assert last.completion.reasoning


def test_the_order_of_the_stages_does_not_matter(backend, template):
    completions = []
    for model in (Model(backend, template=template), Model(backend, stages=[template])):
        with pytest.raises(Truncated, match="inside its reasoning") as caught:
            model.generate(QUESTION, output=FORM, thinking=True, max_tokens=12)
        completions.append(caught.value.completion)
    first, second = completions
    assert (first.text, first.usage.completion_tokens) == ("", 12)
    assert first.reasoning
    assert (second.reasoning, second.effective) == (first.reasoning, first.effective)


def test_without_thinking_the_form_holds_at_once(backend):
    model = Model(backend, template=ChatTemplate.from_text(OPENED_BY_MODEL))
    answer = model.generate(QUESTION, output=FORM, thinking=False, max_tokens=40)
    assert answer.reasoning is None
    assert answer.parsed["label"] in ("pos", "neg")
    with pytest.raises(UnsupportedFeature, match="always think"):
        Model(backend, template=ChatTemplate.from_text(OPENED_BY_PROMPT)).generate(
            QUESTION, output=FORM, thinking=False
        )


@pytest.mark.parametrize(
    ("output", "right"),
    [
        (ConstrainedOutput.choice([" pos", " neg"]), {" pos", " neg"}),
        (ConstrainedOutput.grammar('root ::= "pos" | "neg"'), {"pos", "neg"}),
        (ConstrainedOutput.grammar('start: "p" start | "!"'), None),
    ],
)
def test_other_forms_behind_a_thought(backend, template, output, right):
    answer = Model(backend, template=template).generate(QUESTION, output=output, thinking=3, max_tokens=60)
    assert right is None or answer.text in right
    assert output.verify(answer.text) == answer.parsed
    assert "llguidance" in answer.enforcement.engine


def test_log_probabilities_cover_the_thought_and_the_form(backend, template):
    answer = Model(backend, template=template).generate(
        QUESTION, output=ConstrainedOutput.choice(["pos", "neg"]), thinking=3, max_tokens=40, logprobs=0
    )
    said = "".join(token.token for token in answer.logprobs)
    assert "</think>" in said
    assert said.endswith(answer.text)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_embedded_server_takes_the_marks_from_the_models_own_template(model_path, tmp_path, name):
    path = with_template(model_path, tmp_path / "thinks.gguf", TEMPLATES[name])
    with Model(f"llama_server:{path}", context=1024, threads=1) as model:
        answer = model.generate(QUESTION, output=FORM, thinking=BUDGET, max_tokens=60)
        assert answer.reasoning
        assert answer.parsed["label"] in ("pos", "neg")
        assert answer.effective["route"] == "/v1/completions"
        *pieces, last = model.stream(QUESTION, output=FORM, thinking=BUDGET, max_tokens=60)
        assert "".join(piece.text for piece in pieces) == last.completion.text == answer.text
        if name == "opened by the prompt":  # it thinks though nobody asked
            with pytest.raises(Truncated, match="inside its reasoning"):
                model.generate(QUESTION, output=FORM, max_tokens=6)
        else:
            assert model.generate(QUESTION, output=FORM, max_tokens=40).reasoning is None


def test_llama_cpp_sees_that_the_models_own_template_opens_the_reasoning(model_path, tmp_path):
    path = with_template(model_path, tmp_path / "thinks.gguf", OPENED_BY_PROMPT)
    with Model(f"llama_cpp:{path}", context=1024, threads=1) as model:
        with pytest.raises(Truncated, match="inside its reasoning"):
            model.generate(QUESTION, output=FORM, max_tokens=6)
        with pytest.raises(UnsupportedFeature, match="thinking"):
            model.generate(QUESTION, output=FORM, thinking=True)


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed: make test-vllm installs and tests")
@pytest.mark.parametrize(("name", "own"), [("opened by the prompt", True), ("opened by the model", False)])
def test_transformers_masks_the_thought_too(hf_model, tmp_path, name, own):
    folder = tmp_path / "thinks"
    folder.mkdir()
    for file in hf_model.iterdir():
        if not (own and file.name == "chat_template.jinja"):
            (folder / file.name).symlink_to(file)
    if own:
        (folder / "chat_template.jinja").write_text(TEMPLATES[name])
    template = None if own else ChatTemplate.from_text(TEMPLATES[name])
    with Model(f"transformers:{folder}", context=512, dtype="float32", device="cpu", template=template) as model:
        answer = model.generate(QUESTION, output=FORM, thinking=BUDGET, max_tokens=60)
        assert answer.reasoning
        assert answer.parsed["label"] in ("pos", "neg")
        *pieces, last = model.stream(QUESTION, output=FORM, thinking=BUDGET, max_tokens=60)
        assert "".join(piece.text for piece in pieces) == last.completion.text == answer.text


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed: make test-vllm installs and tests")
@pytest.mark.parametrize(("opens", "closes"), [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<mull>", "</mull>")])
def test_added_tokens_of_a_hugging_face_tokenizer_are_marks_of_their_own(hf_model, opens, closes):
    import llguidance
    import llguidance.hf
    import llguidance.numpy as masks
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(hf_model)
    tokenizer.add_tokens(["<think>", "</think>"])  # as Qwen3 has them: not called special
    tokenizer.add_tokens(["[THINK]", "[/THINK]"], special_tokens=True)  # as Mistral has them; the third are text
    known = llguidance.hf.from_tokenizer(tokenizer, len(tokenizer))
    added = {token.content: at for at, token in tokenizer.added_tokens_decoder.items()}
    form = behind_thought('%llguidance {}\nstart: "yes"', Thought(closes, opens, budget=3), added)
    matcher = llguidance.LLMatcher(known, form, log_level=0)
    bits = masks.allocate_token_bitmask(1, known.vocab_size)

    def take(text):
        for token in tokenizer.encode(text):
            masks.fill_next_token_bitmask(matcher, bits, 0)
            assert np.unpackbits(bits.view(np.uint8), bitorder="little")[token], tokenizer.decode([token])
            assert matcher.consume_token(token), matcher.get_error()

    take(opens)
    take(" slow slow slow")
    masks.fill_next_token_bitmask(matcher, bits, 0)
    left = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
    assert all(closes.startswith(tokenizer.decode([token])) for token in left)
    take(closes)
    take("yes")
    assert matcher.is_accepting()


CONTROL_MARKS = OPENED_BY_MODEL.replace("</think>", "<file_sep>").replace("<think>", "<filename>")


def test_marks_that_are_control_tokens(backend):
    model = Model(backend, template=ChatTemplate.from_text(CONTROL_MARKS))
    asked = {"output": FORM, "thinking": BUDGET, "max_tokens": 60}
    if backend.capabilities().constraint_engines >= {"llama.cpp-gbnf"}:
        with pytest.raises(UnsupportedFeature, match="does not show the control token <file"):
            model.generate(QUESTION, **asked)
        return
    answer = model.generate(QUESTION, **asked)
    assert answer.reasoning
    assert "<file" not in answer.reasoning
    assert answer.parsed["label"] in ("pos", "neg")
    assert answer.usage.completion_tokens >= BUDGET + 2

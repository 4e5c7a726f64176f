"""ConstrainedOutput as a stage: what goes down, what comes up."""

import pytest
from attrs import evolve

from osport import ConstrainedOutput, Message, Model
from osport.core.capabilities import Capabilities
from osport.core.types import Completion, Constraint, Enforcement, Request, Sampling
from osport.errors import ConstraintViolated, Refused, Truncated, UnsupportedFeature, UsageError

SENTIMENT = {
    "type": "object",
    "properties": {"sentiment": {"enum": ["pos", "neg", "neutral"]}, "score": {"type": "number"}},
    "required": ["sentiment", "score"],
    "additionalProperties": False,
}
KINDS = frozenset({"json_schema", "choice", "regex", "grammar"})
LLGUIDANCE = Capabilities(constraints=KINDS, constraint_engine="llguidance", enforced_by="sampling")
GBNF = evolve(LLGUIDANCE, constraint_engine="llama.cpp-gbnf", enforced_by="server")
ASK = Request([Message.user("How was it?")])
ANSWER = Completion('{"sentiment":"pos","score":0.5}', "stop", enforcement=Enforcement("sampling", "llguidance"))


@pytest.fixture(scope="module")
def sentiment():
    return ConstrainedOutput.json_schema(SENTIMENT)


@pytest.mark.parametrize("capabilities", [LLGUIDANCE, GBNF], ids=["llguidance", "gbnf"])
def test_the_request_carries_the_constraint_down(sentiment, capabilities):
    prepared = sentiment.prepare(ASK, capabilities)
    assert prepared == evolve(ASK, constraint=Constraint("json_schema", SENTIMENT))


def test_finish_parses_and_says_that_it_verified(sentiment):
    finished = sentiment.finish(ANSWER)
    assert finished.parsed == {"sentiment": "pos", "score": 0.5}
    assert finished.enforcement == Enforcement("sampling", "llguidance", verified=True)


def test_an_answer_cut_at_max_tokens_is_truncated_even_when_it_happens_to_be_valid(sentiment):
    cut = evolve(ANSWER, finish_reason="length")
    with pytest.raises(Truncated) as caught:
        sentiment.finish(cut)
    assert caught.value.completion is cut


def test_a_refusal_is_no_violation(sentiment):
    with pytest.raises(Refused):
        sentiment.finish(Completion("I cannot.", "refusal"))


def test_a_violation_carries_path_keyword_and_completion(sentiment):
    wrong = evolve(ANSWER, text='{"sentiment":"great","score":0.5}')
    with pytest.raises(ConstraintViolated) as caught:
        sentiment.finish(wrong)
    assert (caught.value.path, caught.value.keyword) == ("$.sentiment", "enum")
    assert caught.value.completion is wrong
    assert caught.value.enforcement.by == "sampling"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"sentiment":"pos","score":1', "delimiter"),
        ('{"sentiment":"pos","score":1,"score":2}', "'score' stands twice"),
        ('{"sentiment":"pos","score":NaN}', "NaN"),
        ("[" * 100_000, "recursion"),
        ("1" * 10_000, "not JSON"),
        ("", "not JSON"),
    ],
)
def test_what_is_no_json_is_a_violation(sentiment, text, word):
    with pytest.raises(ConstraintViolated, match=word) as caught:
        sentiment.verify(text)
    assert caught.value.keyword == ("repeated name" if "twice" in word else "json")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("output", "good", "bad"),
    [
        (ConstrainedOutput.choice(["pos", "neg"]), "pos", "pos "),
        (ConstrainedOutput.regex("[0-9]{3}|x"), "123", "1234"),
        (ConstrainedOutput.grammar('root ::= "a" b+\nb ::= "b" | "c"'), "abc", "ab!"),
    ],
    ids=["choice", "regex", "grammar"],
)
def test_each_kind_verifies_the_whole_text(output, good, bad):
    assert output.verify(good) == good
    with pytest.raises(ConstraintViolated) as caught:
        output.verify(bad)
    assert caught.value.keyword == output.constraint.kind
    assert output.finish(Completion(good, "stop")).parsed == good


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (evolve(ASK, sampling=Sampling(stop=("}",))), "stop"),
        (evolve(ASK, constraint=Constraint("choice", ("a",))), "constraint already"),
        (Request([Message.user("?"), Message.assistant("{")]), "prefill"),
    ],
    ids=["stop", "other constraint", "prefill"],
)
def test_what_cannot_go_together_with_a_constraint_is_refused(sentiment, request_, word):
    with pytest.raises(UsageError, match=word):
        sentiment.prepare(request_, LLGUIDANCE)


def test_a_kind_that_the_engine_does_not_take_is_refused():
    with pytest.raises(UnsupportedFeature, match="kind regex"):
        ConstrainedOutput.regex("a+").prepare(ASK, evolve(GBNF, constraints=frozenset({"json_schema"})))


@pytest.mark.parametrize("labels", [[], ["a", ""], ["a", "a"], ["a", 1], "abc"])
def test_labels_that_are_no_choice_are_refused(labels):
    with pytest.raises(UsageError, match="labels="):
        ConstrainedOutput.choice(labels)


@pytest.mark.parametrize("pattern", ["(a", "a{99999999999999}", 5])
def test_a_pattern_that_does_not_compile_is_refused(pattern):
    with pytest.raises(UsageError, match="pattern="):
        ConstrainedOutput.regex(pattern)


def test_a_grammar_may_be_lark_which_llguidance_alone_enforces():
    lark = 'start: greeting " " /[a-z]{3}/\ngreeting: "hi" | "ho"'
    output = ConstrainedOutput.grammar(lark)
    assert output.constraint.engine == "llguidance"
    assert output.verify("ho bob") == "ho bob"
    assert not output.matcher().accepts("hey bob")
    for engine in ("xgrammar", "native"):
        with pytest.raises(UsageError, match="Lark"):
            ConstrainedOutput.grammar(lark, engine=engine)


@pytest.mark.parametrize("grammar", ["root ::= item", "root := x", 'root ::= "a', 'start ::= "a"', ""])
def test_a_grammar_with_a_fault_is_refused(grammar):
    with pytest.raises(UsageError, match="grammar"):
        ConstrainedOutput.grammar(grammar)


def test_the_hash_tells_forms_apart_and_counts_the_order_of_properties(sentiment):
    turned = {**SENTIMENT, "properties": dict(reversed(SENTIMENT["properties"].items()))}
    hashes = {
        sentiment.hash,
        ConstrainedOutput.json_schema(turned).hash,
        ConstrainedOutput.choice(["a", "b"]).hash,
        ConstrainedOutput.choice(["b", "a"]).hash,
        ConstrainedOutput.regex("a").hash,
    }
    assert len(hashes) == 5
    assert sentiment.hash == ConstrainedOutput.json_schema(dict(SENTIMENT)).hash
    assert len(sentiment.hash) == 64


def test_through_a_model(sentiment):
    with Model("echo:", script=['{"sentiment":"neg","score":1}', "sorry"]) as model:
        answer = model.generate("too slow", output=sentiment)
        assert answer.parsed == {"sentiment": "neg", "score": 1}
        assert answer.enforcement.verified
        assert answer.enforcement.by == "none"
        with pytest.raises(ConstraintViolated):
            model.generate("too slow", output=sentiment)


DISTINCT = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}


@pytest.fixture
def distinct():
    output = ConstrainedOutput.json_schema(DISTINCT, on_unsupported="check")
    output.prepare(ASK, LLGUIDANCE)
    return output


def failed(output, text, *, effective=("seed", "temperature")):
    answer = evolve(ANSWER, text=text, effective=dict.fromkeys(effective, 0))
    with pytest.raises(ConstraintViolated) as caught:
        output.finish(answer)
    return caught.value


def test_an_answer_that_broke_what_is_only_checked_is_asked_for_again_with_something_changed(distinct):
    error = failed(distinct, "[1,1]")
    first = distinct.again(ASK, error, 1)
    second = distinct.again(first, error, 2)
    assert (first.sampling.seed, first.sampling.temperature) == (1, 0.3)
    assert (second.sampling.seed, second.sampling.temperature) == (2, 0.5)
    assert first.messages == ASK.messages
    assert distinct.again(second, error, 3) is None
    warm = evolve(ASK, sampling=Sampling(temperature=0.9, seed=7))
    assert distinct.again(warm, error, 1).sampling == Sampling(temperature=0.9, seed=8)


def test_it_is_not_asked_for_again_where_that_could_not_help(distinct, sentiment):
    assert distinct.again(ASK, failed(distinct, "[1,1]", effective=("seed",)), 1) is None
    assert distinct.again(ASK, Truncated("cut", ANSWER), 1) is None
    assert sentiment.again(ASK, failed(sentiment, "{}"), 1) is None
    enforced = ConstrainedOutput.json_schema(SENTIMENT, on_unsupported="check")
    enforced.prepare(ASK, LLGUIDANCE)
    assert enforced.again(ASK, failed(enforced, "{}"), 1) is None
    # No mask keeps an object from repeating a name.
    assert enforced.again(ASK, failed(enforced, '{"a":1,"a":1}'), 1) is not None


def test_through_a_model_the_answer_that_passes_is_labelled_checked(distinct):
    with Model("echo:", script=["[1,1]", "[2,2]", "[1,2]"]) as model:
        answer = model.generate("numbers", output=distinct)
    assert answer.parsed == [1, 2]
    with Model("echo:", script=["[1,1]", "[2,2]", "[3,3]", "[1,2]"]) as model, pytest.raises(ConstraintViolated):
        model.generate("numbers", output=distinct)


def test_a_format_that_nobody_verifies_is_never_called_checked():
    schema = {"type": "object", "properties": {"v": {"type": "string", "format": "semver"}}}
    output = ConstrainedOutput.json_schema(schema, on_unsupported="check")
    assert output.notes[0].startswith("the format 'semver' at $.properties.v.format is enforced and verified by nobody")
    assert [(row.keyword, row.path) for row in output.support("llguidance") if row.status == "unknown"] == [
        ("format", "$.properties.v.format")
    ]
    sent = output.prepare(ASK, LLGUIDANCE).constraint.value
    assert sent == {"type": "object", "properties": {"v": {"type": "string"}}}
    assert output.finish(evolve(ANSWER, text='{"v":"x"}')).enforcement.checked == ()


def test_thinking_cannot_go_before_a_mask_that_begins_with_the_first_token(sentiment):
    with pytest.raises(UnsupportedFeature, match="thinking before a constrained answer"):
        sentiment.prepare(evolve(ASK, thinking=True), LLGUIDANCE)
    assert sentiment.prepare(evolve(ASK, thinking=False), LLGUIDANCE).constraint is not None


@pytest.mark.parametrize(
    "output",
    [
        ConstrainedOutput.json_schema({"type": "string"}),
        ConstrainedOutput.choice(["a"]),
        ConstrainedOutput.regex("[^x]+"),
        ConstrainedOutput.grammar('start: "a"'),
    ],
    ids=lambda output: output.constraint.kind,
)
def test_what_is_no_text_is_an_error_of_the_tree(output):
    for half in ('"\ud800"', '"\\ud800"') if output.constraint.kind == "json_schema" else ("\ud800",):
        with pytest.raises(ConstraintViolated):
            output.verify(half)
        assert not output.matcher().accepts(half)
    with pytest.raises(UsageError, match="a text, not int"):
        output.verify(5)

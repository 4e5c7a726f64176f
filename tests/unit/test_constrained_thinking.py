"""A thought before a form: what the mask lets through, who is asked for it, and how the answer is parted."""

import numpy as np
import pytest
from attrs import evolve
from thinkers import OPENED_BY_MODEL, OPENED_BY_PROMPT

from osport import ConstrainedOutput, Message, Request, Sampling, Tool
from osport.backends._thought_text import ThoughtText
from osport.chat_template import ChatTemplate
from osport.constrained.masks import ModelMasks
from osport.constrained.vocabulary import Vocabulary
from osport.core import stage as stages_of
from osport.core.capabilities import Capabilities, negotiate
from osport.core.thought import Thought
from osport.core.types import Completion, Constraint
from osport.errors import Truncated, UnsupportedFeature, UsageError

WORDS = (b"</think>", b"</", b"think", b">yes", b"\n\n", b" a", b" b")
END, OPENS, CLOSES, OTHER = range(256 + len(WORDS), 260 + len(WORDS))
VOCABULARY = Vocabulary(
    (*(bytes([value]) for value in range(256)), *WORDS, b"", b"", b"", b""),
    (END,),
    {"[THINK]": OPENS, "[/THINK]": CLOSES, "[OTHER]": OTHER},
)
YES = Constraint("choice", ("yes", "no"))
FREE = Thought("</think>")
ABLE = Capabilities(
    raw_prompt=True,
    thinking=True,
    constrained_thinking=True,
    constraints=frozenset({"choice", "json_schema", "grammar"}),
    constraint_engine="llguidance",
    constraint_engines=frozenset({"llguidance", "xgrammar"}),
    enforced_by="sampling",
)
ASK = Request((Message.user("Well?"),), sampling=Sampling(max_tokens=40))


def token(word):
    return 256 + WORDS.index(word)


def mask_of(thought, constraint=YES):
    return ModelMasks(VOCABULARY).mask(constraint, thought)


def allowed(mask):
    scores = np.zeros(len(VOCABULARY.pieces), dtype=np.float32)
    mask.apply(scores)
    return set(np.flatnonzero(np.isfinite(scores)).tolist())


def take(mask, *tokens):
    for one in tokens:
        assert one in allowed(mask), VOCABULARY.pieces[one]
        mask.advance(one)
    return mask


def begins(text):
    """The tokens that such a text may begin with."""
    return {at for at, piece in enumerate(VOCABULARY.pieces) if piece and text.encode().startswith(piece)}


def test_a_thought_is_free_but_for_the_end_and_the_control_tokens():
    mask = mask_of(FREE)
    free = allowed(mask)
    assert {token(b" a"), token(b"</"), ord("{"), ord("\n"), 0xC3} <= free
    assert not {END, OPENS, CLOSES, OTHER} & free
    assert allowed(take(mask, token(b" a"), 0xC3, 0xBC)) == free


@pytest.mark.parametrize(
    "closing",
    [
        (token(b"</think>"),),
        (token(b"</"), token(b"think"), ord(">")),
        tuple(b"</think>"),
        (*b"</</thin", *b"</think>"),
    ],
)
def test_the_form_begins_behind_the_first_closing_mark_however_it_is_written(closing):
    mask = take(mask_of(FREE), token(b" a"), *closing)
    assert allowed(mask) == begins("yes") | begins("no") | {ord("\n"), token(b"\n\n")}
    assert allowed(take(mask, token(b"\n\n"))) == begins("yes") | begins("no")
    assert allowed(take(mask, *b"yes")) == {END}


def test_a_token_may_hold_the_end_of_the_mark_and_the_beginning_of_the_form():
    mask = take(mask_of(FREE), token(b"</"), token(b"think"), token(b">yes"))
    assert allowed(mask) == {END}


@pytest.mark.parametrize("budget", [1, 2, 7])
@pytest.mark.parametrize("mark", ["</think>", "</mull>"])
def test_a_spent_budget_forces_the_closing_mark(budget, mark):
    mask = mask_of(Thought(mark, budget=budget))
    for _ in range(budget):
        assert token(b" b") in allowed(mask)
        mask.advance(token(b" a"))
    # A mark that is a token of its own is written as that, the other in whatever tokens spell it.
    assert allowed(mask) == ({token(b"</think>")} if mark == "</think>" else begins("</mull>"))
    assert allowed(take(mask, *VOCABULARY.tokens_of(mark.encode()))) >= begins("yes")


def test_a_thought_may_end_before_its_budget():
    mask = take(mask_of(Thought("</think>", budget=5)), token(b" a"), token(b"</think>"), *b"no")
    assert allowed(mask) == {END}


def test_a_budget_that_ends_inside_the_mark_forces_a_whole_one():
    mask = take(mask_of(Thought("</think>", budget=3)), token(b" a"), token(b"</"), token(b"think"))
    assert allowed(mask) == {token(b"</think>")}


def test_the_model_writes_the_opening_mark_where_the_prompt_has_not():
    mask = mask_of(Thought("</think>", "<mull>", budget=2))
    assert allowed(mask) == {ord("<")}
    mask = take(mask, *b"<mull>", token(b" a"), token(b" a"))
    assert allowed(mask) == {token(b"</think>")}
    assert allowed(mask_of(Thought("</mull>", "</think>"))) == {token(b"</think>")}


@pytest.mark.parametrize("budget", [None, 2])
def test_marks_that_are_control_tokens_are_those_tokens_and_no_text(budget):
    mask = mask_of(Thought("[/THINK]", "[THINK]", budget))
    assert allowed(mask) == {OPENS}
    free = allowed(take(mask, OPENS))
    assert {CLOSES, ord("[")} <= free
    assert not {END, OPENS, OTHER} & free
    mask = take(mask, ord("["), ord("/"))
    assert allowed(mask) == ({CLOSES} if budget else free)
    assert allowed(take(mask, CLOSES)) >= begins("yes")


def test_a_form_that_was_compiled_behind_a_thought_is_not_taken_for_the_form_alone():
    masks = ModelMasks(VOCABULARY)
    masks.mask(YES, FREE)
    assert allowed(masks.mask(YES)) == begins("yes") | begins("no")


NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        (ConstrainedOutput.json_schema(NUMBER), b'{"n":12}'),
        (ConstrainedOutput.choice([" yes", "\tno"]), b" yes"),
        (ConstrainedOutput.regex(r"[{}]{2}\d+"), b"{}7"),
        (ConstrainedOutput.grammar('root ::= "[" thought "]"\nthought ::= [0-9]+ | root'), b"[[1]]"),
        (ConstrainedOutput.grammar('start: "a" start "}" | cut // {\ncut: "b"'), b"aab}}"),
        (ConstrainedOutput.tools([Tool("f", "", NUMBER)]), b'{"name": "f", "arguments": {"n":1}}'),
    ],
)
def test_behind_the_thought_every_kind_of_form_has_the_mask_that_it_has_alone(output, answer):
    behind = take(mask_of(Thought("</think>", budget=3), output.constraint), token(b" a"), token(b"</think>"))
    alone = mask_of(None, output.constraint)
    assert allowed(behind) == allowed(alone) | {ord("\n"), token(b"\n\n")}
    for byte in answer:
        behind.advance(byte)
        alone.advance(byte)
        assert allowed(behind) == allowed(alone)
    assert behind.is_accepting


@pytest.mark.parametrize(("engine", "package"), [("xgrammar", "xgrammar"), ("outlines", "outlines_core")])
def test_the_other_engines_refuse_a_thought_by_name(engine, package):
    pytest.importorskip(package)
    with pytest.raises(UnsupportedFeature, match="thinking before a constrained answer.*llguidance"):
        mask_of(FREE, evolve(YES, engine=engine))


def test_a_thought_whose_end_nobody_knows_is_refused():
    with pytest.raises(UnsupportedFeature, match="does not tell by which mark"):
        mask_of(Thought(""))
    with pytest.raises(UsageError, match="budget=0"):
        Thought("</think>", budget=0)


def sent(template, request=ASK, *, template_first=False, capabilities=ABLE, output=None):
    output = output or ConstrainedOutput.choice(["yes", "no"])
    template = ChatTemplate.from_text(template)
    stages = [template, output] if template_first else [output, template]
    last = stages_of.prepare(stages, request, capabilities)[-1]
    return negotiate(last, capabilities, backend="made")


@pytest.mark.parametrize("template_first", [True, False])
@pytest.mark.parametrize(
    ("template", "thinking", "thought"),
    [
        (OPENED_BY_PROMPT, None, Thought("</think>")),
        (OPENED_BY_PROMPT, True, Thought("</think>")),
        (OPENED_BY_MODEL, True, Thought("</think>", "<think>")),
        (OPENED_BY_MODEL, None, None),
        (OPENED_BY_MODEL, False, None),
        (OPENED_BY_MODEL, 0, None),
    ],
)
def test_the_template_tells_what_comes_before_the_form_in_either_order(template, thinking, thought, template_first):
    request = sent(template, evolve(ASK, thinking=thinking), template_first=template_first)
    assert request.thought == thought
    assert (request.thinking, request.messages) == (None, ())
    assert request.prompt.endswith("<think>\n") == (template is OPENED_BY_PROMPT)


@pytest.mark.parametrize("template", [OPENED_BY_PROMPT, OPENED_BY_MODEL])
def test_a_budget_needs_no_variable_in_the_template_where_the_mask_keeps_it(template):
    assert sent(template, evolve(ASK, thinking=30)).thought.budget == 30
    with pytest.raises(UnsupportedFeature, match="a thinking budget of 30 tokens"):
        sent(template, evolve(ASK, thinking=30), template_first=True)  # no constraint yet that could keep it
    with pytest.raises(UnsupportedFeature, match="a thinking budget of 30 tokens"):
        ChatTemplate.from_text(template).prepare(evolve(ASK, thinking=30), ABLE)


def test_only_the_form_has_to_fit_into_max_tokens():
    assert sent(OPENED_BY_MODEL, evolve(ASK, thinking=39)).thought.budget == 39
    long = ConstrainedOutput.choice(["y" * 500])
    with pytest.raises(UsageError, match="the shortest answer of this form"):
        sent(OPENED_BY_MODEL, evolve(ASK, thinking=True), output=long)


@pytest.mark.parametrize("template_first", [True, False])
@pytest.mark.parametrize(("template", "thinking"), [(OPENED_BY_PROMPT, None), (OPENED_BY_MODEL, True)])
def test_a_backend_that_cannot_part_the_thought_refuses_it(template, thinking, template_first):
    unable = evolve(ABLE, constrained_thinking=False)
    for capabilities in (unable, evolve(unable, enforced_by="server", constraint_engine="own")):
        with pytest.raises(UnsupportedFeature, match="thinking before a constrained answer"):
            sent(template, evolve(ASK, thinking=thinking), template_first=template_first, capabilities=capabilities)


@pytest.mark.parametrize("template_first", [True, False])
def test_another_engine_is_refused_and_never_chosen(template_first):
    insisting = ConstrainedOutput.choice(["yes"], engine="xgrammar")
    request = evolve(ASK, thinking=True)
    with pytest.raises(UnsupportedFeature, match="engine='llguidance'"):
        sent(OPENED_BY_MODEL, request, template_first=template_first, output=insisting)
    unique = ConstrainedOutput.json_schema({"type": "array", "items": {"type": "integer"}, "uniqueItems": True})
    with pytest.raises(UnsupportedFeature, match="uniqueItems"):
        sent(OPENED_BY_MODEL, request, template_first=template_first, output=unique)
    native = ConstrainedOutput.grammar('root ::= "a"')
    assert (
        sent(OPENED_BY_MODEL, request, template_first=template_first, output=native).constraint.engine == "llguidance"
    )


def test_channels_are_no_pair_of_marks():
    gpt = ChatTemplate.from_text(
        "{% for m in messages %}<|start|>{{ m.role }}<|channel|>final<|message|>{{ m.content }}<|end|>{% endfor %}"
        "Reasoning: {{ reasoning_effort }}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    )
    assert gpt.writing.calls == "harmony"
    assert gpt.thought("<|start|>assistant", "low") == Thought("")
    assert gpt.thought("<|start|>assistant") is None


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_pieces_of_an_answer_are_parted_where_the_thought_ends(size):
    text = "<think>\nIs it?\nIt is.\n</think>\n\n\nyes</think>"
    parted = ThoughtText(Thought("</think>", "<think>"))
    pieces = [parted.push(text[at : at + size]) for at in range(0, len(text), size)]
    assert "".join(pieces) == parted.shown == "\nyes</think>"  # two line breaks are nobody's, the third is the form's
    assert (parted.reasoning, parted.raw, parted.over) == ("Is it?\nIt is.", text, True)


def test_an_answer_without_a_thought_and_one_that_is_all_thought():
    plain, cut = ThoughtText(None), ThoughtText(Thought("</think>"))
    assert plain.push("\n\nyes") == "\n\nyes"
    assert (plain.reasoning, plain.over) == (None, True)
    assert cut.push("Is it</thi") == ""
    assert (cut.reasoning, cut.shown, cut.over) == ("Is it</thi", "", False)


def test_a_thought_that_is_cut_off_says_what_bounds_it():
    output = ConstrainedOutput.choice(["yes", "no"])
    with pytest.raises(Truncated, match="inside its reasoning.*thinking=<tokens>") as caught:
        output.finish(Completion("", "length", reasoning="Is it"))
    assert caught.value.completion.reasoning == "Is it"

"""Tool calls as a form: the mask and the verification allow the same, and nothing but calls of known tools."""

import json

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from osport import Capabilities, Completion, ConstrainedOutput, Message, Request, Tool, ToolCall
from osport.core.call_form import CallForm
from osport.core.types import Enforcement
from osport.errors import ConstraintViolated, Truncated, UnsupportedFeature, UsageError

pytest.importorskip("llguidance")

WEATHER = Tool(
    "get_weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "minLength": 1}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
# Its name begins the other's, and its schema leaves out that it is an object.
GET = Tool("get", parameters={"properties": {"n": {"type": "integer", "minimum": 2}}, "required": ["n"]})
FORMS = {
    "plain": CallForm(),
    "hermes": CallForm(begin="<tool_call>\n", end="\n</tool_call>"),
    "named": CallForm(begin="<function={name}>", end="</function>"),
    "listed": CallForm(opening="[TOOL_CALLS][", closing="]", between=", "),
    "parameters": CallForm(arguments="parameters", between="; "),
    "slashes": CallForm(begin='\n"/call/"\\ ', end="/end"),
}


def form_text(form, *calls):
    compact = [(name, json.dumps(arguments, separators=(",", ":"))) for name, arguments in calls]
    each = (form.before(name) + arguments + form.after() for name, arguments in compact)
    return form.opening + form.between.join(each) + form.closing


def written(form, *calls):
    return form_text(form, *calls).lstrip()


ROME = ("get_weather", {"city": "Rome"})
THREE = ("get", {"n": 3})


def outcome(output, text):
    """How many calls the verification finds; None when it refuses the text. The mask must agree."""
    try:
        found = len(output.verify(text))
    except ConstraintViolated:
        found = None
    if output.matcher().accepts(text) != (found is not None):
        pytest.fail(f"mask and verification disagree on {text!r}")
    return found


@pytest.mark.parametrize("name", sorted(FORMS))
@pytest.mark.parametrize("mode", ["required", "one", "auto"])
@pytest.mark.parametrize("parallel", [False, True])
def test_what_each_mode_allows(name, mode, parallel):
    form = FORMS[name]
    output = ConstrainedOutput.tools([WEATHER, GET], mode, parallel=parallel, form=form)
    several = parallel and mode != "one"
    head = form.opening + (form.begin.split("{name}")[0])
    shown = {
        "one": outcome(output, written(form, ROME) if mode == "auto" else form_text(form, ROME)),
        "two": outcome(output, form_text(form, ROME, THREE)),
        "free": outcome(output, "Hello there, <b>"),
        "unknown": outcome(output, form_text(form, ("delete_all", {"n": 3}))),
        "bad arguments": outcome(output, form_text(form, ("get", {"n": 1}))),
        "no arguments": outcome(output, form_text(form, ("get_weather", {}))),
        "begun": outcome(output, (head.strip() or '{"name":') + "zzz"),
    }
    assert shown == {
        "one": 1,
        "two": 2 if several else None,
        "free": 0 if mode == "auto" else None,
        "unknown": None,
        "bad arguments": None,
        "no arguments": None,
        "begun": None,
    }


@pytest.mark.parametrize("name", sorted(FORMS))
def test_free_text_may_stand_before_calls_and_nothing_behind_them(name):
    form = FORMS[name]
    output = ConstrainedOutput.tools([WEATHER, GET], "auto", parallel=True, form=form)
    assert outcome(output, "I look it up. " + written(form, THREE)) == 1
    assert outcome(output, written(form, THREE) + " Done.") is None
    assert outcome(ConstrainedOutput.tools([GET], form=form), "I look. " + written(form, THREE)) is None


def test_at_most_sixteen_calls():
    output = ConstrainedOutput.tools([GET], parallel=True)
    assert outcome(output, written(CallForm(), *[THREE] * 16)) == 16
    assert outcome(output, written(CallForm(), *[THREE] * 17)) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_without_a_mark_is_free_text(text):
    assert outcome(ConstrainedOutput.tools([GET], "auto", form=FORMS["hermes"]), text.replace("<tool_call>", "")) == 0


def test_the_completion_carries_the_calls():
    output = ConstrainedOutput.tools([WEATHER, GET], "auto", form=FORMS["hermes"])
    done = output.finish(Completion("Let me see. " + written(FORMS["hermes"], THREE), "stop"))
    assert done.tool_calls == done.parsed == (ToolCall("call_0", "get", {"n": 3}),)
    assert (done.text, done.finish_reason, done.enforcement.verified) == ("Let me see.", "tool_calls", True)
    talked = output.finish(Completion("No tool needed.", "stop"))
    assert (talked.text, talked.tool_calls, talked.finish_reason) == ("No tool needed.", (), "stop")
    with pytest.raises(Truncated):
        output.finish(Completion("<tool_call>", "length"))


def test_calls_that_a_template_has_read_already_are_verified_too():
    output = ConstrainedOutput.tools([GET])
    read = Completion("", "tool_calls", tool_calls=(ToolCall("x", "get", {"n": 2}),))
    assert output.finish(read).parsed == read.tool_calls
    with pytest.raises(ConstraintViolated) as caught:
        output.finish(Completion("", "tool_calls", tool_calls=(ToolCall("x", "get", {"n": 1}),)))
    assert (caught.value.path, caught.value.keyword) == ("$[0].arguments.n", "minimum")
    with pytest.raises(ConstraintViolated, match="no tool is named 'no'"):
        output.finish(Completion("", "tool_calls", tool_calls=(ToolCall("x", "no", {}),)))
    with pytest.raises(ConstraintViolated, match="2 calls, at most 1"):
        output.finish(Completion("", "tool_calls", tool_calls=read.tool_calls * 2))


def test_what_is_not_enforced_of_a_tool_is_checked_on_request():
    marks = Tool(
        "mark", parameters={"properties": {"n": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}}}
    )
    with pytest.raises(UnsupportedFeature, match="tool 'mark': the keyword uniqueItems"):
        ConstrainedOutput.tools([marks]).matcher()
    output = ConstrainedOutput.tools([marks, GET], on_unsupported="check")
    assert output.matcher().accepts(written(CallForm(), ("mark", {"n": [1, 2]})))
    assert not output.matcher().accepts(written(CallForm(), ("mark", {"n": ["a"]})))
    twice = Completion(written(CallForm(), ("mark", {"n": [1, 1]})), "stop")
    with pytest.raises(ConstraintViolated, match="uniqueItems"):
        output.finish(twice)
    sent = output.prepare(
        Request([Message.user("x")]),
        Capabilities(constraints={"tools"}, constraint_engine="llguidance", enforced_by="sampling"),
    )
    answer = evolve(
        twice, text=written(CallForm(), ("mark", {"n": [1]})), enforcement=Enforcement("sampling", engine="llguidance")
    )
    assert "uniqueItems" not in str(sent.constraint.value)
    assert output.finish(answer).enforcement.checked == ("mark: uniqueItems at $.properties.n.uniqueItems",)


def test_a_tool_is_refused_with_its_name():
    odd = Tool("odd", parameters={"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}})
    with pytest.raises(UnsupportedFeature, match=r"tool 'odd': the keyword pattern at \$\.properties\.a\.pattern"):
        ConstrainedOutput.tools([GET, odd]).prepare(
            Request([Message.user("x")]), Capabilities(constraints={"tools"}, constraint_engine="llguidance")
        )


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: ConstrainedOutput.tools([]), "at least one"),
        (lambda: ConstrainedOutput.tools([GET, GET]), "twice"),
        (lambda: ConstrainedOutput.tools([GET], "maybe"), "mode='maybe'"),
        (lambda: ConstrainedOutput.tools([Tool("a", parameters={"type": "array"})]), "'a': .* of type object"),
        (lambda: ConstrainedOutput.tools([Tool("a", parameters={"propertys": {}})]), "'a': .*propertys"),
        (lambda: CallForm(begin="{name}"), "something must stand before"),
        (lambda: CallForm(begin="{name} {name}"), "once"),
        (lambda: CallForm(name="x", arguments="x"), "two different keys"),
    ],
)
def test_what_is_no_form_is_said_at_once(call, complaint):
    with pytest.raises(UsageError, match=complaint):
        call()


def test_a_backend_without_the_kind_refuses():
    with pytest.raises(UnsupportedFeature, match="kind tools"):
        ConstrainedOutput.tools([GET]).prepare(
            Request([Message.user("x")]), Capabilities(constraints={"json_schema"}, constraint_engine="ollama")
        )

"""Who enforces a form: the engine that was asked for, or the first of the backend's that takes all of it."""

import pytest
from attrs import evolve

from osport import Capabilities, ConstrainedOutput, Message, Request
from osport.constrained.choose import first_that_takes
from osport.core.capabilities import negotiate
from osport.core.types import Constraint
from osport.errors import UnsupportedFeature, UsageError

KINDS = frozenset({"json_schema", "choice", "regex", "grammar", "tools"})
IN_PROCESS = Capabilities(
    constraints=KINDS,
    constraint_engine="llguidance",
    constraint_engines=frozenset({"llguidance", "xgrammar", "outlines"}),
)
SERVER = Capabilities(
    constraints=KINDS, constraint_engine="llguidance", constraint_engines=frozenset({"llguidance", "llama.cpp-gbnf"})
)
VLLM = Capabilities(
    constraints=KINDS, constraint_engine="llguidance", constraint_engines=frozenset({"llguidance", "vllm-xgrammar"})
)
WEAK = Capabilities(constraints=KINDS, constraint_engine="llama.cpp-gbnf")
ASKED = Request([Message.user("x")])
PLAIN = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
BOUNDED = {"type": "number", "minimum": 0}


def chosen(output, capabilities):
    return output.prepare(ASKED, capabilities).constraint.engine


def test_without_a_wish_the_backend_decides():
    pytest.importorskip("llguidance")
    assert chosen(ConstrainedOutput.json_schema(PLAIN), IN_PROCESS) is None
    assert chosen(ConstrainedOutput.choice(["a"]), SERVER) is None


def test_a_schema_goes_over_to_no_engine_that_writes_white_space_but_the_error_names_it():
    def enforce(engine):
        if engine in ("llguidance", "xgrammar", "outlines"):
            raise UnsupportedFeature("this", engine)

    assert first_that_takes(SERVER, "grammar", enforce) == "llama.cpp-gbnf"
    with pytest.raises(UnsupportedFeature, match="this") as caught:
        first_that_takes(SERVER, "json_schema", enforce)
    assert caught.value.alternatives == ("engine='native'",)
    with pytest.raises(UnsupportedFeature, match="this") as caught:
        first_that_takes(IN_PROCESS, "json_schema", enforce)
    assert caught.value.alternatives == ()
    assert first_that_takes(VLLM, "json_schema", enforce) == "vllm-xgrammar"


@pytest.mark.parametrize("engine", ["llguidance", "xgrammar", "outlines"])
def test_a_wish_reaches_the_backend(engine):
    pytest.importorskip("llguidance")
    assert chosen(ConstrainedOutput.json_schema(PLAIN, engine=engine), IN_PROCESS) == engine
    assert chosen(ConstrainedOutput.choice(["a"], engine=engine), IN_PROCESS) == engine


def test_native_and_a_servers_own_xgrammar_are_found():
    assert chosen(ConstrainedOutput.json_schema(PLAIN, engine="native"), SERVER) == "llama.cpp-gbnf"
    assert chosen(ConstrainedOutput.json_schema(PLAIN, engine="native"), VLLM) == "vllm-xgrammar"
    assert chosen(ConstrainedOutput.json_schema(PLAIN, engine="xgrammar"), VLLM) == "vllm-xgrammar"


@pytest.mark.parametrize(("engine", "capabilities"), [("outlines", SERVER), ("native", IN_PROCESS), ("xgrammar", WEAK)])
def test_an_engine_that_the_backend_has_not_is_refused_by_name(engine, capabilities):
    with pytest.raises(UnsupportedFeature, match=f"the engine {engine}: it has .*l"):
        chosen(ConstrainedOutput.json_schema(PLAIN, engine=engine), capabilities)
    with pytest.raises(UsageError, match="engine='magic'"):
        ConstrainedOutput.json_schema(PLAIN, engine="magic")


def test_a_request_that_was_not_prepared_is_checked_at_the_door():
    request = Request([Message.user("x")], constraint=Constraint("choice", ("a",), "xgrammar"))
    assert negotiate(request, IN_PROCESS, backend="b").constraint.engine == "xgrammar"
    with pytest.raises(UnsupportedFeature, match="b does not support the engine xgrammar: it has llama.cpp-gbnf"):
        negotiate(request, WEAK, backend="b")


def test_what_the_own_engine_drops_goes_to_another_that_enforces_it():
    pytest.importorskip("llguidance")
    both = Capabilities(
        constraints=KINDS, constraint_engine="llama.cpp-gbnf", constraint_engines=frozenset({"llguidance"})
    )
    assert chosen(ConstrainedOutput.json_schema(BOUNDED), both) == "llguidance"
    assert chosen(ConstrainedOutput.json_schema(PLAIN), both) is None
    assert chosen(ConstrainedOutput.regex("[ab]"), both) == "llguidance"


@pytest.mark.parametrize("engine", ["native", "xgrammar"])
@pytest.mark.parametrize("bound", [{"minimum": 10**30}, {"exclusiveMaximum": 2**63}, {"minimum": -(2**63)}])
def test_a_bound_of_64_bits_is_refused_for_the_engines_that_fail_on_it(engine, bound):
    pytest.importorskip("llguidance")
    both = evolve(SERVER, constraint_engines=SERVER.constraint_engines | {"xgrammar"})
    with pytest.raises(UnsupportedFeature, match="64 bits"):
        chosen(ConstrainedOutput.json_schema({"type": "integer", **bound}, engine=engine), both)


def test_a_refusal_names_no_engine_that_would_fail():
    pytest.importorskip("llguidance")
    with pytest.raises(UnsupportedFeature, match="64 bits") as caught:
        chosen(ConstrainedOutput.json_schema({"type": "integer", "minimum": 10**30}), SERVER)
    assert caught.value.alternatives == ()


def test_a_refusal_names_the_engines_that_would_do():
    pytest.importorskip("llguidance")
    with pytest.raises(UnsupportedFeature, match="minimum at") as caught:
        chosen(ConstrainedOutput.json_schema(BOUNDED), WEAK)
    assert "llama_cpp" in caught.value.alternatives or "engine='llguidance'" in caught.value.alternatives
    with pytest.raises(UnsupportedFeature) as caught:
        chosen(ConstrainedOutput.json_schema(BOUNDED, engine="outlines"), IN_PROCESS)
    assert "minimum" in str(caught.value)


def test_a_kind_that_an_engine_does_not_take_is_refused_before_the_call():
    pytest.importorskip("llguidance")
    with pytest.raises(UnsupportedFeature, match="kind grammar.*engine='llguidance'"):
        chosen(ConstrainedOutput.grammar('root ::= "a"', engine="outlines"), IN_PROCESS)
    with pytest.raises(UnsupportedFeature, match="kind regex"):
        chosen(ConstrainedOutput.regex("a", engine="native"), SERVER)


def test_what_only_the_verification_ensures_is_found_under_the_engine_asked_for():
    pytest.importorskip("llguidance")
    output = ConstrainedOutput.json_schema(BOUNDED, on_unsupported="check", engine="outlines")
    sent = output.prepare(ASKED, IN_PROCESS).constraint
    assert (sent.engine, sent.value) == ("outlines", {"type": "number"})
    assert output._enforceable.left_by("outlines-core 0.2.14") == ("minimum at $.minimum",)

import attrs
import pytest

from osport import Message, Request, Sampling
from osport.core.capabilities import ALL_SAMPLING, Capabilities, negotiate
from osport.core.facts import ModelFacts
from osport.core.types import DEFAULT_SAMPLING, Constraint
from osport.errors import UnsupportedFeature, UsageError

HELLO = (Message.user("hello"),)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 1),
        ("repeat_penalty", 0),
        ("presence_penalty", float("inf")),
        ("seed", -1),
        ("seed", 2**32 - 1),  # llama.cpp reads this one as "draw a seed yourself"
        ("stop", [""]),
        ("stop", [3]),
    ],
)
def test_a_parameter_outside_its_range_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=name):
        Sampling(**{name: value})


def test_a_lone_stop_string_is_not_taken_apart():
    with pytest.raises(UsageError, match="stop"):
        Sampling(stop="END")


def test_filled_keeps_what_was_given_and_leaves_nothing_to_the_engine():
    filled = Sampling(temperature=0.7, stop=["x"]).filled()
    assert filled.temperature == 0.7
    assert filled.stop == ("x",)
    assert set(filled.given) == ALL_SAMPLING
    assert attrs.evolve(filled, temperature=0.0, stop=()) == DEFAULT_SAMPLING


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5", True])
def test_a_timeout_is_seconds(timeout):
    with pytest.raises(UsageError, match="timeout"):
        Request(HELLO, timeout=timeout)


@pytest.mark.parametrize("make", [
    lambda text: Message.user(text), lambda text: Message("assistant", "", reasoning=text),
    lambda text: Request(prompt=text), lambda text: Sampling(stop=[text]),
], ids=["message", "reasoning", "prompt", "stop"])  # fmt: skip
def test_half_a_surrogate_pair_is_no_text(make):
    make("a\U0001d11e")
    with pytest.raises(UsageError, match="character at 1 is half of a surrogate pair"):
        make("a\ud834")


@pytest.mark.parametrize("arguments", [{}, {"messages": HELLO, "prompt": "raw"}, {"messages": HELLO, "timeout": 0}])
def test_a_request_is_either_messages_or_a_raw_prompt(arguments):
    with pytest.raises(UsageError):
        Request(**arguments)


def test_an_empty_raw_prompt_is_a_prompt():
    assert Request(prompt="").prompt == ""


def test_roles_are_checked():
    with pytest.raises(UsageError, match="role='developer'.*system, user"):
        Message("developer", "x")
    with pytest.raises(UsageError, match="content=3"):
        Message.user(3)


NOTHING = Capabilities(chat=False, sampling=frozenset())


@pytest.mark.parametrize(
    ("request_", "feature"),
    [
        (Request(HELLO), "chat"),
        (Request(prompt="x"), "raw_prompt"),
        (Request([*HELLO, Message.assistant("and")]), "prefill"),
        (Request([*HELLO, Message.tool("42", tool_call_id="1"), *HELLO]), "tools"),
        (Request(HELLO, sampling=Sampling(top_k=3)), "top_k"),
        (Request(HELLO, constraint=Constraint("choice", ("a", "b"))), "choice"),
    ],
)
def test_what_a_backend_does_not_promise_is_refused_by_name(request_, feature):
    able = {"chat": True, "sampling": frozenset()} if feature != "chat" else {"chat": False}
    with pytest.raises(UnsupportedFeature) as caught:
        negotiate(request_, Capabilities(**able), backend="meek")
    assert caught.value.feature == feature
    assert caught.value.backend == "meek"


def test_streaming_is_refused_where_there_is_none():
    with pytest.raises(UnsupportedFeature, match="stream"):
        negotiate(Request(HELLO), Capabilities(), backend="meek", stream=True)


def test_negotiation_fills_in_just_what_the_backend_takes():
    ready = negotiate(Request(HELLO), Capabilities(sampling=frozenset({"max_tokens"})), backend="meek")
    assert ready.sampling.given == {"max_tokens": 512}


def test_facts_keep_their_sources_when_merged():
    facts = ModelFacts.of("header", architecture="llama", license=None).merged(
        ModelFacts.of("catalogue", "2026-01-01", architecture="other", license="mit")
    )
    assert (facts["architecture"], facts.fact("architecture").source) == ("llama", "header")
    assert (facts["license"], facts.fact("license").date) == ("mit", "2026-01-01")
    assert facts.get("context_length") is None
    assert "context_length" not in facts

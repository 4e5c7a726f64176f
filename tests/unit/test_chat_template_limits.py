import time

import pytest

from osport.chat_template import ChatTemplate, Conversation, adapt, audits, deadline
from osport.core.types import Message
from osport.errors import TemplateError

TALK = [Message.user("hi")]
GROW = "{{% set ns = namespace(x='ab', y=[1]) %}}{{% for i in range(60) %}}{}{{% endfor %}}{{{{ ns.x }}}}"


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'A' * 10**10 }}",
        "{{ 2 ** (10 ** 9) }}",
        "{{ '%999999999999d' % 1 }}",
        GROW.format("{% set ns.x = ns.x ~ ns.x %}"),
        GROW.format("{% set ns.x = ns.x + ns.x %}"),
        GROW.format("{% set ns.y = ns.y + ns.y %}"),
        GROW.format("{% set ns.x = ns.x | replace('b', 'bb') %}"),
        GROW.format("{% set ns.x = [ns.x, ns.x] | join %}"),
        GROW.format("{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "1+" * 20000 + "1 }}",
        "x" * 300_000,
    ],
)
def test_a_bomb_is_refused_while_it_grows(bomb):
    started = time.monotonic()
    with pytest.raises(TemplateError):
        ChatTemplate.from_text(bomb).render(TALK)
    assert time.monotonic() - started < 5


def test_an_endless_loop_is_stopped_and_the_thread_goes_on():
    loop = "{% set a = range(99999) | list %}{% for i in a %}{% for j in a %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError, match="longer than 3 s"):
        ChatTemplate.from_text(loop).render(TALK)
    assert ChatTemplate.from_text("{{ messages[0].content }}").render(TALK).text == "hi"


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'a' | center(10000000000) }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ [1] | tojson(indent=9999999999) }}",
        GROW.format("{% set ns.y = [ns.y, ns.y] %}") + "{{ ns.y | tojson }}",
    ],
)
def test_what_no_budget_bounds_is_stopped_in_a_child(bomb):
    with pytest.raises(TemplateError):
        ChatTemplate.from_text(bomb).render(TALK)


def test_the_child_renders_the_same_text():
    text = "{{ messages[0].content | center(6) }}|{{ tools }}|{{ add_generation_prompt }}"
    assert ChatTemplate.from_text(text).render(TALK).text == "  hi  |None|True"


@pytest.mark.parametrize(
    "reach",
    [
        "{{ ''.__class__ }}",
        "{{ messages['__class__'] }}",
        "{{ 'x' | attr('__init__') }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ messages | map(attribute='__class__') | list }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
    ],
)
def test_what_reaches_for_the_interpreter_is_refused_before_it_runs(reach):
    with pytest.raises(TemplateError, match=r"internals of Python and is refused: line 1"):
        ChatTemplate.from_text(reach).render(TALK)


def test_a_megabyte_of_text_is_no_bomb():
    big = "x" * 1_000_000
    text = (
        ChatTemplate.from_text("{% for m in messages %}{{ '<' + m.content + '>' }}{% endfor %}")
        .render([Message.user(big)])
        .text
    )
    assert text == f"<{big}>"


@pytest.mark.parametrize("ask", ["audit", "adapt", "capabilities"])
def test_what_renders_many_times_stays_in_time_too(ask, monkeypatch):
    monkeypatch.setattr(deadline, "SECONDS", 0.3)
    monkeypatch.setattr(audits, "SECONDS", 0.6)
    monkeypatch.setattr(adapt, "SECONDS", 0.9)
    slow = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + ask
    template, started = ChatTemplate.from_text(slow), time.monotonic()
    if ask == "audit":
        assert "stopped" in template.audit(TALK).errors[0].message
    else:
        with pytest.raises(TemplateError, match="stopped: it ran longer than"):
            _ = template.capabilities if ask == "capabilities" else Conversation(TALK).adapt(template)
    assert time.monotonic() - started < 3

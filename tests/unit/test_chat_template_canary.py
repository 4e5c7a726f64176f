"""A template that loses something, one place at a time, and what the canary says to it."""

import pytest
from plain_template import GOOD, TALK, rules

from osport.chat_template import Conversation
from osport.core.types import Message, Tool, ToolCall


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "{% for m in messages %}",
            "{% for m in messages if m.role != 'system' %}",
            ("dropped", "messages[0].content"),
        ),
        ("{% if tools %}", "{% if false %}", ("dropped", "tools[0].description")),
        ("in m.tool_calls or []", "in (m.tool_calls or [])[:1]", ("dropped", "messages[2].tool_calls[1].name")),
        ("{{ m.content }}", "{% if not m.tool_calls %}{{ m.content }}{% endif %}", ("dropped", "messages[2].content")),
        ("{{ m.content }}", "{{ m.content | e }}", ("html-escaped", "messages[1].content")),
        ("{{ m.content }}", "{{ [m.content] }}", ("python-repr", "messages[1].content")),
        ("{{ m.content }}", "{{ m.content[:-2] }}", ("truncated", "messages[1].content")),
        ("{{ m.content }}", "{{ m.content }}{{ m.content }}", ("repeated", "messages[1].content")),
        (
            "{{ c.function | tojson }}",
            "{{ c.function | tojson | tojson }}",
            ("double-encoded", "messages[2].tool_calls[0].arguments.city"),
        ),
        ("in messages %}", "in messages | reverse %}", ("reordered", "messages[2].content")),
    ],
)
def test_the_canary_finds(old, new, found):
    assert old in GOOD
    assert found in rules(GOOD.replace(old, new, 1))


def loss(old, new, conversation=TALK):
    assert old in GOOD
    assert rules(GOOD, conversation) == set()
    return rules(GOOD.replace(old, new, 1), conversation)


NUMBERS = Conversation(
    [
        Message.user("?"),
        Message.assistant("", tool_calls=[ToolCall("a", "weather", {"days": 5, "hourly": True})]),
        Message.tool("3", tool_call_id="a"),
    ]
)


@pytest.mark.parametrize(
    ("printed", "rule"),
    [
        ('{"name": c.function.name} | tojson', "dropped"),
        ('{"name": c.function.name, "arguments": c.function.arguments | tojson} | tojson', "double-encoded"),
        ('{"name": c.function.name, "arguments": c.function.arguments | tojson | tojson} | tojson', "double-encoded"),
        ('c.function.name ~ " " ~ c.function.arguments', "python-repr"),
    ],
)
def test_arguments_in_which_no_text_stands(printed, rule):
    found = loss("c.function | tojson", printed, NUMBERS)
    assert (rule, "messages[1].tool_calls[0].arguments.days") in found
    assert (rule, "messages[1].tool_calls[0].arguments.hourly") in found


def test_calls_that_come_out_in_another_order_or_twice():
    assert ("reordered", "messages[2].tool_calls[0]") in loss("m.tool_calls or []", "(m.tool_calls or []) | reverse")
    bare = Conversation([Message.user("?"), Message.assistant("", tool_calls=[ToolCall(i, "w", {}) for i in "ab"])])
    assert ("reordered", "messages[1].tool_calls[0]") in loss(
        "m.tool_calls or []", "(m.tool_calls or []) | reverse", bare
    )
    again = loss("m.tool_calls or []", "(m.tool_calls or []) * 2", NUMBERS)
    assert ("repeated", "messages[1].tool_calls[0].arguments.days") in again


@pytest.mark.parametrize(
    ("key", "value"),
    [("hourly", "not v"), ("never", "v | int"), ("zero", "none"), ("none", "false"), ("days", "v | string")],
)
def test_a_value_that_becomes_another(key, value):
    arguments = {"hourly": True, "never": False, "zero": 0, "none": None, "days": 5}
    turns = [Message.user("?"), Message.assistant("", tool_calls=[ToolCall("a", "weather", arguments)])]
    printed = (
        "{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k | tojson }}: "
        f"{{{{ (({value}) if k.startswith('{key}') else v) | tojson }}}}, {{% endfor %}})"
    )
    assert rules(GOOD.replace("{{ c.function | tojson }}", printed), turns) == {
        ("altered", f"messages[1].tool_calls[0].arguments.{key}")
    }


def test_a_number_that_changes():
    turns = [Message.user("?"), Message.assistant("", tool_calls=[ToolCall("a", "weather", {"degrees": 3.5})])]
    printed = "c.function.name ~ '(degrees_' ~ (c.function.arguments | list)[0] ~ (c.function.arguments.values() | "
    cut = GOOD.replace("c.function | tojson", printed + "map('int') | list | tojson)")
    assert ("dropped", "messages[1].tool_calls[0].arguments.degrees") in rules(cut, turns)


def test_arguments_that_are_empty_or_false_are_not_left_out_unseen():
    turns = [Message.user("?"), Message.assistant("", tool_calls=[ToolCall("a", "weather", {"days": 0, "city": ""})])]
    some = "{% for k, v in c.function.arguments.items() if v %}{{ k }}={{ v }}{% endfor %}{{ c.function.name }}"
    assert {place for _, place in rules(GOOD.replace("{{ c.function | tojson }}", some), turns)} == {
        "messages[1].tool_calls[0].arguments.days",
        "messages[1].tool_calls[0].arguments.city",
    }


PICKS = Tool("pick", "", {"type": "object", "properties": {"unit": {"enum": ["c", "f"]}}, "required": ["unit"]})


@pytest.mark.parametrize(
    ("printed", "rule", "place"),
    [
        ("t.function.name", "dropped", "tools[0].parameters.properties.unit"),
        ("t", "python-repr", "tools[0].name"),
        (
            "t.function.name ~ (t.function.parameters.properties | list | tojson)",
            "dropped",
            "tools[0].parameters.properties.unit.enum[1]",
        ),
        ("t | tojson | lower", "altered", "tools[0].name"),
    ],
)
def test_tools_that_nobody_describes(printed, rule, place):
    name = "Pick" if "lower" in printed else "pick"
    talk = Conversation([Message.user("?")], tools=[Tool(name, "", PICKS.parameters)])
    assert (rule, place) in loss("t | tojson", printed, talk)


def test_what_published_templates_leave_out_of_a_schema_is_a_warning():
    """Like gpt-oss and Gemma 4: numbers of an enum, members for the items of a list, and what is referred to."""
    schema = {
        "type": "object",
        "properties": {
            "days": {"enum": [1, 7]},
            "units": {"type": "array", "items": {"enum": ["c"]}},
            "place": {"$ref": "#/$defs/place"},
        },
        "$defs": {"place": {"properties": {"street": {}}}},
    }
    talk = Conversation([Message.user("?")], tools=[Tool("pick", "", schema)])
    names = GOOD.replace("t | tojson", "t.function.name ~ t.function.parameters.properties.keys() | list | tojson")
    assert rules(names, talk) == set()
    assert rules(names, talk, "warnings") == {
        ("schema-dropped", "tools[0].parameters.properties.days.enum[0]"),
        ("schema-dropped", "tools[0].parameters.properties.days.enum[1]"),
        ("schema-dropped", "tools[0].parameters.properties.units.items.enum[0]"),
        ("schema-dropped", "tools[0].parameters.$defs.place.properties.street"),
    }


@pytest.mark.parametrize(
    "changed",
    [
        "m.content[:12] ~ m.content[-12:]",
        "m.content.split() | join(' ')",
        "m.content | lower",
        "m.content | replace('{', '(')",
        "m.content.split('\\n') | reverse | join('\\n')",
        "m.content | list | select('lt', '\x7f') | join",
    ],
)
@pytest.mark.parametrize("text", ["plain", "Größe {a}\n\n    x = 1\n" * 9])
def test_a_text_that_changes_in_its_middle(changed, text):
    assert ("altered", "messages[0].content") in loss("m.content", changed, [Message.user(text)])


@pytest.mark.parametrize("kept", ["m.content | trim", "m.content | tojson", "m.content | tojson(ensure_ascii=True)"])
def test_a_text_that_is_trimmed_or_quoted_is_not_lost(kept):
    assert rules(GOOD.replace("m.content", kept), [Message.user(' Ä "x"\n\n y ')]) == set()


def test_blank_lines_that_go_are_a_warning():
    one = GOOD.replace("m.content", "m.content | replace('\n\n', '\n')")
    assert rules(one, [Message.user("a\nb")]) == rules(one, [Message.user("a\n\nb")]) == set()
    assert ("blank-lines", "messages[0].content") in rules(one, [Message.user("a\n\nb")], "warnings")


PICTURE = Message("user", "What?", images=("https://example.org/a.png",))
PARTS = "(m.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join)"


def test_an_image_must_change_the_prompt():
    texts = GOOD.replace("m.content", PARTS)
    assert ("dropped", "messages[0].content[0]") in rules(texts, [PICTURE])
    assert ("dropped", "messages[0].content[0]") in rules(
        texts, [{"role": "user", "content": [{"type": "input_audio"}, {"type": "text", "text": "a"}]}]
    )
    assert rules(GOOD.replace("m.content", "'<image>' * (m.content | length - 1) ~ " + PARTS), [PICTURE]) == set()


def test_a_tool_result_before_its_call():
    assert ("reordered", "messages[2].content") in loss("in messages %}", "in messages | reverse %}", NUMBERS)


def test_a_tool_result_before_its_call_that_names_the_tool_again():
    talk = Conversation(
        [
            Message.user("Weather?"),
            Message.assistant("", tool_calls=[ToolCall("a", "weather", {"days": 3})]),
            Message.tool("cold", tool_call_id="a"),
        ],
        tools=TALK.tools,
    )
    backwards = "{% set messages = messages[:1] + (messages[1:] | reverse | list) %}" + GOOD.replace(
        "{{ m.role }}", "{{ m.role }} {% if m.role == 'tool' %}{{ messages[2].tool_calls[0].function.name }}{% endif %}"
    )
    assert ("reordered", "messages[2].content") in rules(backwards, talk)

import pytest

from osport.chat_template.answers import read_answer
from osport.chat_template.families import families
from osport.chat_template.tool_call_forms import FORMS
from osport.chat_template.tool_calls import parse_tool_calls
from osport.core.types import Tool
from osport.errors import OutputError, UsageError

CITY = {"city": "Oslo"}
WRITTEN = {
    "hermes": '<tool_call>\n{"name": "wx", "arguments": {"city": "Oslo"}}\n</tool_call>',
    "granite": '<|tool_call|>[{"name": "wx", "arguments": {"city": "Oslo"}}]',
    "phi4_mini": '<|tool_call|>[{"name": "wx", "arguments": {"city": "Oslo"}}]<|/tool_call|>',
    "nemotron": '<TOOLCALL>[{"name": "wx", "arguments": {"city": "Oslo"}}]</TOOLCALL>',
    "hunyuan": '<tool_calls>[{"name": "wx", "arguments": {"city": "Oslo"}}]</tool_calls>',
    "cohere": '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "wx", "parameters": {"city": "Oslo"}}]'
    "<|END_ACTION|>",
    "command_r": 'Action:\n```json\n[{"tool_name": "wx", "parameters": {"city": "Oslo"}}]```',
    "llama_json": '{"name": "wx", "parameters": {"city": "Oslo"}}',
    "mistral": '[TOOL_CALLS]wx[ARGS]{"city": "Oslo"}',
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.wx:0<|tool_call_argument_begin|>"
    '{"city": "Oslo"}<|tool_call_end|><|tool_calls_section_end|>',
    "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>wx\n```json\n"
    '{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "deepseek_v31": '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>wx<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜>',
    "harmony": '<|start|>assistant to=functions.wx<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>',
    "functionary": '<function=wx>{"city": "Oslo"}</function>',
    "qwen_xml": "<tool_call>\n<function=wx>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>",
    "seed": "<seed:tool_call>\n<function=wx>\n<parameter=city>Oslo</parameter>\n</function>\n</seed:tool_call>",
    "minimax": '<minimax:tool_call>\n<invoke name="wx">\n<parameter name="city">Oslo</parameter>\n'
    "</invoke>\n</minimax:tool_call>",
    "dsml": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="wx">\n<｜DSML｜parameter name="city" string="true">Oslo'
    "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
    "glm": "<tool_call>wx\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>",
    "pythonic": "<|tool_call_start|>[wx(city='Oslo')]<|tool_call_end|>",
    "gemma4": '<|tool_call>call:wx{city:<|"|>Oslo<|"|>}<tool_call|>',
    "functiongemma": "<start_function_call>call:wx{city:<escape>Oslo<escape>}<end_function_call>",
    "gigachat": '<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "wx", "arguments": {"city": "Oslo"}}'
    "<|message_sep|>\n\n",
    "internlm": '<|action_start|><|plugin|>\n{"name": "wx", "parameters": {"city": "Oslo"}}<|action_end|>',
    "olmo": "<function_calls>\nwx(city='Oslo')\n</function_calls>",
    "marked_json": '<|function_call|>{"name": "wx", "arguments": {"city": "Oslo"}}',
}


def test_every_form_has_an_example_and_every_family_a_form():
    assert set(WRITTEN) == set(FORMS)
    assert {family.calls for family in families()} - {""} <= set(FORMS)


@pytest.mark.parametrize("form", WRITTEN)
def test_a_call_is_read(form):
    text, calls = parse_tool_calls(WRITTEN[form], form)
    assert text == ""
    assert [(call.name, dict(call.arguments)) for call in calls] == [("wx", CITY)]


@pytest.mark.parametrize("form", WRITTEN)
def test_text_without_a_call_is_left_alone(form):
    assert parse_tool_calls("It is cold in Oslo.", form) == ("It is cold in Oslo.", ())


@pytest.mark.parametrize("form", sorted(set(WRITTEN) - {"llama_json"}))
def test_a_call_that_breaks_off_is_an_error_with_the_text(form):
    broken = WRITTEN[form][: WRITTEN[form].index("Oslo") + 2]
    with pytest.raises(OutputError, match="Os"):
        parse_tool_calls(broken, form)


@pytest.mark.parametrize(
    "text",
    [
        '[wx(city="Oslo")]',
        '<|python_tag|>wx.call(city="Oslo")',
        '<|python_tag|>{"type": "function", "name": "wx", "parameters": {"city": "Oslo"}}<|eom_id|>',
        '[{"name": "wx", "arguments": {"city": "Oslo"}}]<|eot_id|>',
        '<|python_start|>[wx(city="Oslo")]<|python_end|><|eot|>',
    ],
)
def test_the_ways_of_llama(text):
    _, calls = parse_tool_calls(text, "llama_json")
    assert [(call.name, dict(call.arguments)) for call in calls] == [("wx", CITY)]


def test_an_unknown_form_is_a_usage_error():
    with pytest.raises(UsageError, match="no form"):
        parse_tool_calls("x", "nobody")


def test_the_schema_tells_the_type_of_bare_text():
    tool = Tool("wx", "", {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}})
    text = "<tool_call><function=wx><parameter=city>7</parameter><parameter=days>7</parameter></function></tool_call>"
    assert dict(parse_tool_calls(text, "qwen_xml", [tool])[1][0].arguments) == {"city": "7", "days": 7}


def test_two_calls_and_the_text_before_them():
    text = 'I look.\n[TOOL_CALLS][{"name": "a", "arguments": {}, "id": "x"}, {"name": "b", "arguments": {}}]'
    content, calls = parse_tool_calls(text, "mistral")
    assert (content, [call.id for call in calls]) == ("I look.", ["x", "call_1"])


@pytest.mark.parametrize("form", sorted(set(WRITTEN) - {"pythonic"}))
def test_text_behind_a_call_is_kept(form):
    text, calls = parse_tool_calls(WRITTEN[form] + "\nI shall tell you.", form)
    assert (text, [dict(call.arguments) for call in calls]) == ("I shall tell you.", [CITY])


@pytest.mark.parametrize("form", sorted(set(WRITTEN) - {"llama_json"}))
def test_a_second_call_that_is_not_well_formed_does_not_vanish(form):
    half = WRITTEN[form][: WRITTEN[form].index("Oslo") + 2]
    with pytest.raises(OutputError, match="Os"):
        parse_tool_calls(WRITTEN[form] + "\n" + half, form)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", '<tool_call>{"name": "wx", "arguments": {}} oops</tool_call>'),
        ("hermes", '<tool_call>{"name": "wx", "args": {"city": "Oslo"}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "wx", "arguments": {"city": "a", "city": "b"}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "wx", "arguments": {"days": NaN}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "other", "arguments": {}}</tool_call>'),
        ("hermes", "<tool_call>" + "[" * 100_000),
        ("qwen_xml", WRITTEN["qwen_xml"] + "\n<tool_call>\nwx(city=Rome)\n</tool_call>"),
        ("qwen_xml", WRITTEN["qwen_xml"].replace("</function>", "<parameter=city>Rome</parameter></function>")),
        ("kimi", WRITTEN["kimi"] + '<|tool_call_begin|>functions.wx:1 {"city": "Rome"}<|tool_call_end|>'),
        ("deepseek_v31", WRITTEN["deepseek_v31"] + '<｜tool▁call▁begin｜>wx{"city": "Rome"}<｜tool▁call▁end｜>'),
        ("pythonic", "[wx(city='Oslo'), wx(**{'city': 'Rome'})]"),
        ("pythonic", "[wx(city='Oslo', city='Rome')]"),
        ("pythonic", "[wx(city='Oslo')] I shall tell you."),
    ],
)
def test_what_could_be_meant_otherwise_is_malformed(form, text):
    with pytest.raises(OutputError, match="cannot be read"):
        parse_tool_calls(text, form, [Tool("wx", "", {"type": "object"})])


def test_marks_inside_an_argument_are_text():
    for form, mark in (("hermes", "</tool_call>"), ("mistral", "[TOOL_CALLS]")):
        _, calls = parse_tool_calls(WRITTEN[form].replace("Oslo", mark), form)
        assert dict(calls[0].arguments) == {"city": mark}


def test_an_answer_in_json_is_no_call_of_an_unknown_tool():
    text = '{"name": "Oslo", "population": 700000}'
    assert parse_tool_calls(text, "llama_json", [Tool("wx", "", {"type": "object"})]) == (text, ())


THINKER = next(family for family in families() if family.name.startswith("Hermes"))
HARMONY = next(family for family in families() if family.name == "gpt-oss")


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("<think>\nhm\n</think>\n\nYes.", "", ("hm", "Yes.", True)),
        ("hm\n</think>\nYes.", "<|im_start|>assistant\n<think>\n", ("hm", "Yes.", True)),
        ("hm hm", "<|im_start|>assistant\n<think>\n", ("hm hm", "", False)),
        ("<think>hm hm", "", ("hm hm", "", False)),
        ("Yes.", "<|im_start|>assistant\n<think>\n\n</think>\n\n", (None, "Yes.", True)),
        ("Yes.", "", (None, "Yes.", True)),
    ],
)
def test_reasoning_is_parted_from_the_answer(text, prompt, expected):
    answer = read_answer(text, THINKER, prompt=prompt)
    assert (answer.reasoning, answer.content, answer.complete) == expected


def test_channels_of_gpt_oss():
    text = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"
    answer = read_answer(text, HARMONY)
    assert (answer.reasoning, answer.content) == ("hm", "Yes.")

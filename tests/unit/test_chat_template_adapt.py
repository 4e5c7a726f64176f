import pytest

from osport.chat_template import (
    ChatTemplate,
    Conversation,
    deverbalise,
    few_shot_turns,
    to_anthropic,
    trim_system,
    with_few_shot,
)
from osport.core.types import Completion, Message, Tool, ToolCall, Usage
from osport.errors import OutputError, UnsupportedFeature, UsageError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('role') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
ONE_CALL = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}"
    "<tool_call>{{ m.tool_calls[0].function | tojson }}</tool_call>{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHORT_IDS = ONE_CALL.replace(
    "{% if m.tool_calls %}",
    "{% if m.tool_calls %}{% if m.tool_calls[0].id | length != 9 %}{{ raise_exception('id') }}{% endif %}",
)

CLAUDE = {
    "model": "claude-x",
    "max_tokens": 100,
    "metadata": {"user_id": "u"},
    "system": [
        {"type": "text", "text": "One."},
        {"type": "text", "text": "Two.", "cache_control": {"type": "ephemeral"}},
    ],
    "tools": [{"name": "weather", "description": "In a city", "input_schema": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "title": "Notes",
                    "source": {"type": "text", "media_type": "text/plain", "data": "Rain."},
                },
                {"type": "text", "text": "Weather?"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Tool it is.", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {"city": "Bergen"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Here."},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3"},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "content": [{"type": "text", "text": "down"}],
                    "is_error": True,
                },
            ],
        },
        {"role": "system", "content": "Norwegian from now on."},
        {"role": "user", "content": "And tomorrow?"},
    ],
}


def test_a_whole_claude_request():
    talk = Conversation.from_anthropic(CLAUDE)
    assert [m.role for m in talk.messages] == ["system", "user", "assistant", "tool", "tool", "user", "system", "user"]
    assert talk.messages[1].content == '<document title="Notes">\nRain.\n</document>\nWeather?'
    assert talk.messages[2].reasoning == "Tool it is."
    assert talk.messages[4] == Message.tool("Error: down", tool_call_id="toolu_2")
    assert talk.messages[5].content == "Here."
    assert (talk.tool_choice, talk.parallel_tools, talk.constraint.kind) == ("required", False, "json_schema")
    lost = {loss.field for loss in talk.losses}
    assert {"model", "metadata", "cache_control", "tools[0].strict", "messages[1].content[1]"} <= lost


@pytest.mark.parametrize(
    ("thinking", "ours"),
    [
        ({"type": "enabled", "budget_tokens": 2048}, 2048),
        ({"type": "disabled"}, False),
        ({"type": "adaptive"}, True),
        (None, None),
    ],
)
def test_thinking_of_a_claude_request(thinking, ours):
    assert Conversation.from_anthropic({**CLAUDE, "thinking": thinking}).thinking is ours or ours == 2048


def test_effort_is_a_level():
    request = {**CLAUDE, "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
    assert Conversation.from_anthropic(request).thinking == "high"


def test_images_of_a_claude_request():
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}}
    talk = Conversation.from_anthropic({**CLAUDE, "messages": [{"role": "user", "content": [image]}]})
    assert talk.messages[1].images == ("data:image/png;base64,QQ==",)
    with pytest.raises(UnsupportedFeature, match="image"):
        talk.adapt(ChatTemplate.from_text(CHATML))


def test_server_tools_are_refused():
    with pytest.raises(UnsupportedFeature, match="web_search"):
        Conversation.from_anthropic({**CLAUDE, "tools": [{"type": "web_search_20250305", "name": "web_search"}]})


@pytest.mark.parametrize("source", [CHATML, STRICT, ONE_CALL, SHORT_IDS], ids=["chatml", "strict", "one call", "ids"])
def test_adapting_loses_nothing(source):
    template = ChatTemplate.from_text(source)
    plan = Conversation.from_anthropic(CLAUDE).adapt(template)
    text = template.render(plan.conversation).text
    for part in (
        "One.",
        "Rain.",
        "I look.",
        "Oslo",
        "Bergen",
        "Error: down",
        "Here.",
        "Norwegian",
        "In a city",
        "tomorrow?",
    ):
        assert text.count(part) == 1, part
    assert not [finding for finding in plan.findings if finding.severity == "error"]
    assert plan.changes


def test_call_ids_are_mapped_there_and_back():
    plan = Conversation.from_anthropic(CLAUDE).adapt(ChatTemplate.from_text(SHORT_IDS))
    answer = Completion("", "tool_calls", tool_calls=(ToolCall("000000001", "weather", {}),))
    assert plan.restore(answer).tool_calls[0].id == "toolu_2"


def test_calls_written_as_text_are_parsed_on_the_way_back():
    plan = Conversation.from_anthropic(CLAUDE).adapt(ChatTemplate.from_text(STRICT))
    assert plan.tools_as_text
    text = 'Yes.\n<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
    answer = plan.restore(Completion(text, "stop"))
    assert (answer.text, answer.tool_calls[0].arguments) == ("Yes.", {"city": "Oslo"})
    with pytest.raises(OutputError, match="cannot be read"):
        plan.restore(Completion('<tool_call>{"name": "weather", "argu', "stop"))


def test_thinking_that_nobody_asked_for_is_switched_off():
    thinks = CHATML + "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
    plan = Conversation([Message.user("a")]).adapt(ChatTemplate.from_text(thinks))
    assert plan.conversation.thinking is False


def test_an_answer_as_claude_would_give_it():
    answer = Completion(
        "Cold.",
        "tool_calls",
        model="m",
        usage=Usage(5, 7),
        reasoning="hm",
        tool_calls=(ToolCall("x", "weather", {"a": 1}),),
    )
    message = to_anthropic(answer, ids={"x": "toolu_9"})
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][2]["id"] == "toolu_9"
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("tool_use", 7)


def test_trimming_takes_whole_blocks_from_the_end():
    system = "Who you are.\n\n<rules>\nA\n\nB\n</rules>\n\nSteps:\n\n- one\n\n- two\n\nThe end."
    talk = Conversation([Message.system(system), Message.user("x")])
    trimmed = trim_system(talk, 9, lambda text: len(text.split()))
    assert trimmed.removed == ("Steps:\n\n- one\n\n- two", "The end.")
    assert trimmed.conversation.messages[0].content.endswith("</rules>")
    with pytest.raises(UsageError, match="first block"):
        trim_system(talk, 1, lambda text: len(text.split()))


def test_rules_become_a_schema_and_a_diff():
    system = "You sort reviews.\nThe sentiment must be one of pos, neg or neutral.\nAnswer only with JSON.\nBe kind."
    proposal = deverbalise(Conversation([Message.system(system), Message.user("x")]))
    assert proposal.constraint.value["properties"] == {"sentiment": {"enum": ["pos", "neg", "neutral"]}}
    assert proposal.conversation.messages[0].content == "You sort reviews.\nBe kind."
    assert "-Answer only with JSON." in proposal.diff


@pytest.mark.parametrize(
    ("sentence", "values"),
    [
        ("The mood is one of: positive, very negative or neutral.", ["positive", "very negative", "neutral"]),
        ("mood must be either `a, b` or 'not c'", ["a, b", "not c"]),
        ("mood must be one of the following values: a, b, and c.", ["a", "b", "c"]),
        ("The mood is one of the most important fields.", None),
        ("The mood is one of our best, or worst, ideas.", None),
    ],
)
def test_values_are_told_from_prose(sentence, values):
    found = deverbalise(Conversation([Message.system(sentence), Message.user("x")]))
    if values is None:
        assert (found.constraint, found.removed) == (None, ())
    else:
        assert found.constraint.value["properties"] == {"mood": {"enum": values}}


@pytest.mark.parametrize("sentence", ["Answer only with JSON.", "Do not include explanations of internal tools."])
def test_a_sentence_stays_where_no_constraint_takes_its_place(sentence):
    assert deverbalise(Conversation([Message.system(sentence), Message.user("x")])).removed == ()
    rule = "The mood is one of a, b. " + sentence
    assert (sentence in deverbalise(Conversation([Message.system(rule)])).removed) == ("JSON" in sentence)


def test_a_pair_of_tags_that_opens_inside_a_line_is_not_cut():
    talk = Conversation([Message.system("Be.\n\nSee: <ex>\n\na\n\nb\n\n</ex>\n\nA <br> here.\n\nlast")])
    trimmed = trim_system(talk, 9, lambda text: len(text.split()))
    assert trimmed.conversation.messages[0].content == "Be.\n\nSee: <ex>\n\na\n\nb\n\n</ex>\n\nA <br> here."
    assert trim_system(talk, 5, lambda text: len(text.split())).conversation.messages[0].content == "Be."


def test_there_is_nothing_to_trim_in_an_empty_conversation():
    with pytest.raises(UsageError, match="no system prompt"):
        trim_system(Conversation([]), 9, len)


def test_the_blanks_around_a_prefill_are_a_change():
    trims = CHATML.replace("m.content", "m.content | trim")
    talk = Conversation([Message.user("a"), Message.assistant("Answer: ")])
    assert talk.adapt(ChatTemplate.from_text(CHATML)).changes == ()
    plan = talk.adapt(ChatTemplate.from_text(trims))
    assert plan.conversation.messages[1].content == "Answer:"
    assert [change.place for change in plan.changes] == ["messages[1]"]
    assert plan.findings == talk.adapt(ChatTemplate.from_text(CHATML)).findings


def test_few_shot_turns_stand_behind_the_system_prompt():
    talk = Conversation([Message.system("s"), Message.user("q")])
    shown = with_few_shot(talk, [("a", "b")], k=1).messages
    assert shown == (talk.messages[0], *few_shot_turns([("a", "b")], 1), talk.messages[1])


def test_tools_reach_a_raw_prompt():
    from osport.core.capabilities import Capabilities
    from osport.core.types import Request

    tool = Tool("weather", "In a city")
    request = Request(messages=(Message.user("x"),), tools=(tool,))
    prepared = ChatTemplate.from_text(ONE_CALL).prepare(request, Capabilities(raw_prompt=True))
    assert '"description": "In a city"' in prepared.prompt
    assert prepared.tools == ()


def test_a_number_that_nobody_counted_is_not_nought():
    usage = to_anthropic(Completion("x", "stop", usage=Usage(completion_tokens=0)))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["cache_read_input_tokens"]) == (None, 0, None)

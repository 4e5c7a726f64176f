import pytest

from osport.chat_template import Conversation, few_shot_turns, request_from_anthropic
from osport.core.types import Message
from osport.errors import UnsupportedFeature, UsageError

MINIMAL = {"model": "claude-x", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}


def test_a_whole_request_comes_over():
    request = request_from_anthropic(
        {
            **MINIMAL,
            "system": "You sort reviews.",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
                {"role": "assistant", "content": "{"},
            ],
            "stop_sequences": ["}"],
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
        }
    )
    assert request.messages == (
        Message.system("You sort reviews."),
        Message.user("one\ntwo"),
        Message.assistant("{"),
    )
    assert request.sampling.given == {"max_tokens": 50, "stop": ("}",), "temperature": 0.5, "top_p": 0.9, "top_k": 40}


def test_system_blocks_are_joined_by_a_blank_line():
    blocks = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    assert request_from_anthropic({**MINIMAL, "system": blocks}).messages[0] == Message.system("A\n\nB")


def test_neighbouring_turns_of_one_role_become_one():
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert request_from_anthropic({**MINIMAL, "messages": turns}).messages == (Message.user("a\nb"),)


def test_what_is_about_the_call_is_left_behind():
    payload = {**MINIMAL, "metadata": {"user_id": "u"}, "stream": True}
    assert request_from_anthropic(payload) == request_from_anthropic(MINIMAL)


@pytest.mark.parametrize("name", ["container", "mcp_servers", "context_management", "invented"])
def test_other_fields_are_refused_by_name(name):
    with pytest.raises(UnsupportedFeature, match=f"'{name}'"):
        request_from_anthropic({**MINIMAL, name: {}})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([{"type": "image", "source": {"type": "file"}}], r"'image' at messages\[0\]\.content\[0\]"),
        ([{"type": "text", "text": "x", "invented": 1}], "'invented'"),
        ([{"type": "container_upload", "file_id": "f"}], "'container_upload'"),
        ([{"type": "document", "source": {"type": "base64", "data": "x"}}], "'document'"),
    ],
)
def test_other_blocks_are_refused_by_name(content, named):
    with pytest.raises(UnsupportedFeature, match=named):
        request_from_anthropic({**MINIMAL, "messages": [{"role": "user", "content": content}]})


def test_a_role_or_a_key_that_is_not_known_is_refused():
    with pytest.raises(UnsupportedFeature, match="the role 'critic' at messages"):
        request_from_anthropic({**MINIMAL, "messages": [{"role": "critic", "content": "x"}]})
    with pytest.raises(UnsupportedFeature, match="'name' at messages"):
        request_from_anthropic({**MINIMAL, "messages": [{"role": "user", "content": "x", "name": "n"}]})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"messages": []}, "at least one turn"),
        ({"messages": "Hi"}, "at least one turn"),
        ({"messages": ["Hi"]}, "role and content"),
        ({"messages": [{"role": "user", "content": 3}]}, "string or a list of blocks, got int"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "block with a type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "needs a text"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": "warm"}, "temperature='warm'"),
        ({"output_config": "x"}, "output_config: expected an object, got str"),
        ({"stop_sequences": 5}, "stop=5"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": []}]}]},
            "answers no tool_use block",
        ),
    ],
)
def test_what_is_no_messages_request_is_a_usage_error(change, complaint):
    with pytest.raises(UsageError, match=complaint):
        request_from_anthropic({**MINIMAL, **change})


def test_callers_of_a_tool_that_are_no_list():
    tool = {"name": "w", "input_schema": {}, "allowed_callers": None}
    with pytest.raises(UnsupportedFeature, match=r"'allowed_callers' at tools\[0\]"):
        request_from_anthropic({**MINIMAL, "tools": [tool]})


def test_not_even_a_mapping():
    with pytest.raises(UsageError, match="mapping"):
        request_from_anthropic("{}")


def conversation_of(*blocks, role="user"):
    turns = [{"role": "user", "content": "Hi"}, {"role": role, "content": list(blocks)}]
    return Conversation.from_anthropic({**MINIMAL, "messages": turns})


def test_where_a_search_result_comes_from_is_written_down():
    block = {"type": "search_result", "source": "https://s", "title": "t", "content": [{"type": "text", "text": "x"}]}
    assert '<search_result source="https://s" title="t">' in conversation_of(block).messages[-1].content


def test_thoughts_that_change_their_place_are_told():
    turn = [{"type": "thinking", "thinking": "a", "signature": "s"}, {"type": "text", "text": "b"}]
    assert not [loss for loss in conversation_of(*turn, role="assistant").losses if "thinking behind" in loss.why]
    told = conversation_of(*turn, *turn, role="assistant").losses
    assert [loss.field for loss in told if "thinking behind" in loss.why] == ["messages[1].content[2]"]


@pytest.mark.parametrize("name", ["none", "auto", "required"])
def test_a_forced_tool_with_the_name_of_a_choice_is_refused(name):
    tools = {"tools": [{"name": name, "input_schema": {"type": "object"}}]}
    with pytest.raises(UsageError, match="another name"):
        request_from_anthropic({**MINIMAL, **tools, "tool_choice": {"type": "tool", "name": name}})


def test_few_shot_turns():
    turns = few_shot_turns([("a", "1"), ("b", {"n": "ü"}), ("c", "3")], k=2)
    assert turns == (Message.user("a"), Message.assistant("1"), Message.user("b"), Message.assistant('{"n": "ü"}'))


def test_few_shot_turns_never_gives_fewer_than_asked():
    with pytest.raises(UsageError, match="only 1 examples"):
        few_shot_turns([("a", "1")], k=2)
    with pytest.raises(UsageError, match="negative"):
        few_shot_turns([], k=-1)

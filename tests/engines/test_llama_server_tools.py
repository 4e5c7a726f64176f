"""Tools and thinking on the embedded llama.cpp server, with a chat template of ours that has both."""

import pytest
from thinkers import with_template

from osport import Model
from osport.backends.llama_server import LlamaServerBackend
from osport.errors import UnsupportedFeature, UsageError
from osport.plugin import Constraint, Message, Request, Sampling, Tool, ToolCall

pytestmark = pytest.mark.engine

TEMPLATE = """{%- if tools %}<|im_start|>system
You may call these functions: <tools>{% for t in tools %}{{ t | tojson }}
{% endfor %}</tools>
Answer with <tool_call>
{"name": ..., "arguments": ...}
</tool_call><|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>{% else %}{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking %}<think>
{% endif %}{% endif %}"""

WEATHER = Tool(
    "get_weather",
    "weather of a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TIME = Tool(
    "get_time", "The time", {"type": "object", "properties": {"zone": {"enum": ["CET", "UTC"]}}, "required": ["zone"]}
)


def asked_before(city: str) -> list[Message]:
    call = ToolCall(f"call_{city}", "get_weather", {"city": city})
    return [
        Message.user(f"What is the weather in {city}?"),
        Message.assistant("", tool_calls=[call]),
        Message.tool("sunny", tool_call_id=call.id),
        Message.assistant("Sunny."),
    ]


HISTORY = [message for city in ("Rome", "Oslo", "Lima") for message in asked_before(city)]
QUESTION = [*HISTORY, Message.user("What is the weather in Paris?")]


# llama.cpp thinks unless it is told not to.
def ask(messages: list[Message] = QUESTION, *, max_tokens: int = 60, **fields: object) -> Request:
    return Request(
        messages, sampling=Sampling(max_tokens=max_tokens), **{"tools": [WEATHER], "thinking": False, **fields}
    )


@pytest.fixture(scope="module")
def with_tools(model_path, tmp_path_factory):
    path = with_template(model_path, tmp_path_factory.mktemp("tools") / "tools.gguf", TEMPLATE)
    with LlamaServerBackend(str(path), context=2048, threads=1) as backend:
        yield backend


def test_a_call_is_parsed_whole_and_streamed(with_tools):
    required = ask(tool_choice="required", max_tokens=200)
    answer = with_tools.generate(required)
    *pieces, last = with_tools.stream(required)
    for completion in (answer, last.completion):
        (call,) = completion.tool_calls
        assert (call.name, call.arguments) == ("get_weather", {"city": "Paris"})
        assert call.id
        assert completion.finish_reason == "tool_calls"
    assert last.completion.text == answer.text == "".join(piece.text for piece in pieces)
    assert answer.usage.prompt_tokens > 300


def test_the_history_of_calls_reaches_the_template(with_tools):
    model = Model(with_tools)
    assert model.count_tokens(QUESTION) > model.count_tokens("What is the weather in Paris?") + 200


def test_a_tool_chosen_by_name_is_the_only_one_offered(with_tools):
    answer = with_tools.generate(
        ask(tools=[WEATHER, TIME], tool_choice="get_time", parallel_tools=False, max_tokens=200)
    )
    assert {call.name for call in answer.tool_calls} <= {"get_time"}
    assert answer.effective["tool_choice"] == "required"
    assert answer.effective["parallel_tool_calls"] is False
    assert answer.tool_calls or answer.finish_reason == "length"
    with pytest.raises(UsageError, match="no such tool"):
        with_tools.generate(ask(tool_choice="get_tim"))


def test_tools_that_may_not_be_called_are_not_sent(with_tools):
    answer = with_tools.generate(ask(tool_choice="none", max_tokens=4))
    assert "tool_choice" not in answer.effective
    assert answer.tool_calls == ()


def test_what_would_be_lost_beside_tools_is_refused(with_tools, server):
    with pytest.raises(UsageError, match="not both"):
        with_tools.generate(ask(constraint=Constraint("choice", ("a", "b"))))
    with pytest.raises(UnsupportedFeature, match="prefill"):
        with_tools.generate(ask([Message.user("x"), Message.assistant("y")]))
    # The server drops tools without a word where the template has no place for them.
    assert not server.capabilities().tools
    with pytest.raises(UnsupportedFeature, match="template"):
        server.generate(ask(thinking=None))


def test_a_server_by_url_is_asked_for_its_template(with_tools, server):
    by_url = {
        backend: LlamaServerBackend(backend.endpoint.url, api_key=lambda b=backend: b.endpoint.api_key)
        for backend in (with_tools, server)
    }
    assert by_url[with_tools].generate(ask(tool_choice="required", max_tokens=200)).tool_calls
    with pytest.raises(UnsupportedFeature, match="template"):
        by_url[server].generate(ask(thinking=None))


def test_thinking_is_switched_by_the_names_of_template_and_server(with_tools):
    on = with_tools.generate(ask([Message.user("Count to three.")], tools=(), thinking=True, max_tokens=24))
    assert on.effective["chat_template_kwargs"] == {"enable_thinking": True}
    assert on.reasoning
    assert on.text == ""
    off = with_tools.generate(ask([Message.user("Count to three.")], tools=(), thinking=False, max_tokens=24))
    assert off.effective["chat_template_kwargs"] == {"enable_thinking": False}
    assert off.reasoning is None
    assert off.text


def test_a_thinking_budget_ends_the_reasoning(with_tools):
    answer = with_tools.generate(ask([Message.user("Count to three.")], tools=(), thinking=6, max_tokens=40))
    assert answer.effective["thinking_budget_tokens"] == 6
    assert 0 < len(answer.reasoning.split()) <= 6
    assert answer.text


def test_a_switch_that_the_template_does_not_have_is_refused(server):
    with pytest.raises(UnsupportedFeature, match="thinking"):
        server.generate(ask([Message.user("x")], tools=(), thinking=True))
    with pytest.raises(UnsupportedFeature, match="raw prompt"):
        server.generate(Request(prompt="x", thinking=True))

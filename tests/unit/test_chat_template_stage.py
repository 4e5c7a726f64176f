"""What the template does with the answer to a prompt that it wrote."""

import pytest
from attrs import evolve

from osport.chat_template import ChatTemplate
from osport.chat_template import stage as stage_module
from osport.core.capabilities import Capabilities
from osport.core.types import Completion, Constraint, Message, Request, Tool, ToolCall
from osport.errors import OutputError, TemplateError, Truncated, UnsupportedFeature

RAW = Capabilities(raw_prompt=True)
TOOL = Tool(
    "wx", "Weather", {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
)
# Written like no family that osport knows: its marks must be read off its own renders.
UNKNOWN = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
    "{% for m in messages %}§{{ m.role }}\n"
    "{% if m.reasoning_content %}[MUSE]{{ m.reasoning_content }}[/MUSE]{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}<fn_tool_call>"
    '{{ {"name": c.function.name, "arguments": c.function.arguments} | tojson }}</fn_tool_call>{% endfor %}'
    "\n{% endfor %}{% if add_generation_prompt %}§assistant\n{% endif %}"
)
HERMES = (
    "{% if tools %}<tool_call>{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>"
    '{{ {"name": c.function.name, "arguments": c.function.arguments} | tojson }}</tool_call>{% endfor %}<|im_end|>\n'
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
)
PLAIN = HERMES + "{% endif %}"
THINKS = HERMES + "<think>\n{% endif %}"
CALL = '<tool_call>\n{"name": "wx", "arguments": {"city": "Oslo"}}\n</tool_call>'


def asked(**more):
    return Request(messages=(Message.user("Weather?"),), **more)


def finished(text, answer, *, request=None, capabilities=RAW, reason="stop", **known):
    template = ChatTemplate.from_text(text)
    request = request or asked(tools=(TOOL,))
    sent = template.prepare(request, capabilities)
    return template.finish(Completion(answer, reason, **known), request, sent)


def test_calls_and_the_text_before_them():
    done = finished(PLAIN, "I look.\n" + CALL)
    assert (done.text, done.finish_reason) == ("I look.", "tool_calls")
    assert [(call.name, dict(call.arguments)) for call in done.tool_calls] == [("wx", {"city": "Oslo"})]


def test_reasoning_that_the_template_opened():
    done = finished(THINKS, "hm\n</think>\n\n" + CALL)
    assert (done.reasoning, done.text, len(done.tool_calls)) == ("hm", "", 1)


def test_an_answer_that_stops_inside_the_reasoning():
    done = finished(THINKS, "hm <tool_call>", reason="length")
    assert (done.reasoning, done.text, done.tool_calls, done.finish_reason) == ("hm <tool_call>", "", (), "length")


def test_a_prefill_that_opens_the_reasoning():
    request = Request(messages=(Message.user("?"), Message.assistant("<think>so")))
    done = finished(PLAIN, " hm</think>Yes", request=request)
    assert (done.reasoning, done.text) == ("hm", "Yes")


@pytest.mark.parametrize(("reason", "kind"), [("stop", OutputError), ("length", Truncated)])
def test_a_malformed_call_is_an_error_with_the_text(reason, kind):
    with pytest.raises(OutputError, match="Os") as caught:
        finished(PLAIN, CALL[:54], reason=reason)
    assert type(caught.value) is kind
    assert caught.value.completion.text == CALL[:54]


def test_without_tools_a_call_is_text():
    assert finished(PLAIN, CALL, request=asked()).text == CALL
    assert finished(PLAIN, CALL, request=asked(tools=(TOOL,), tool_choice="none")).tool_calls == ()


def test_an_enforced_form_is_left_whole():
    request = asked(tools=(TOOL,), constraint=Constraint("json_schema", {}))
    assert finished(THINKS, '{"a": 1}', request=request).text == '{"a": 1}'
    assert finished(THINKS, 'hm</think>{"a": 1}', request=request).text == '{"a": 1}'


def test_what_the_backend_parted_stays():
    done = finished(THINKS, "Yes.", reasoning="hm")
    assert (done.text, done.reasoning) == ("Yes.", "hm")


def test_a_server_parses_by_itself():
    done = finished(PLAIN, CALL, capabilities=Capabilities())
    assert (done.text, done.tool_calls) == (CALL, ())
    assert finished(PLAIN, "<think>hm</think>Yes", capabilities=Capabilities()).reasoning == "hm"
    assert finished(THINKS, "hm", capabilities=Capabilities()).text == "hm"


def test_the_prompt_of_the_caller_is_not_ours():
    request = Request(prompt="x<think>")
    template = ChatTemplate.from_text(THINKS)
    completion = Completion("hm", "stop")
    assert template.finish(completion, request, template.prepare(request, RAW)) is completion


def test_a_family_that_nobody_knows_is_read_off_its_renders():
    template = ChatTemplate.from_text(UNKNOWN)
    assert template.family is None
    assert (template.writing.calls, template.writing.reasoning) == ("marked_json", ("[MUSE]", "[/MUSE]"))
    answer = '[MUSE]hm[/MUSE]I look.<fn_tool_call>{"name": "wx", "arguments": {"city": "Oslo"}}</fn_tool_call>'
    done = finished(UNKNOWN, answer)
    assert (done.reasoning, done.text, done.tool_calls[0].name) == ("hm", "I look.", "wx")


def test_tools_are_refused_where_the_calls_could_not_be_read():
    mute = UNKNOWN.replace("<fn_tool_call>", "¤").replace("</fn_tool_call>", "¤")
    with pytest.raises(UnsupportedFeature, match="cannot read the calls"):
        ChatTemplate.from_text(mute).prepare(asked(tools=(TOOL,)), RAW)


def test_a_forced_call_points_to_the_constraint():
    with pytest.raises(UnsupportedFeature, match=r"ConstrainedOutput\.tools"):
        ChatTemplate.from_text(PLAIN).prepare(asked(tools=(TOOL,), tool_choice="required"), RAW)


WORDS = PLAIN + "{# /think and /no_think #}{% if '/no_think' in messages[0].content or '/think' in '' %}{% endif %}"


def test_a_word_that_switches_thinking_goes_into_the_text_for_a_server():
    template, asked_off = ChatTemplate.from_text(WORDS), asked(thinking=False)
    assert template.capabilities.thinking.kind == "word"
    sent = template.prepare(asked_off, Capabilities(thinking=True))
    assert (sent.messages[0].content, sent.thinking) == ("Weather? /no_think", None)
    with pytest.raises(UnsupportedFeature, match="word"):
        template.switches(False, "vllm")


def test_a_variable_that_switches_thinking_is_the_servers_field():
    template = ChatTemplate.from_text(PLAIN + "{% if enable_thinking is false %}<think></think>{% endif %}")
    request = asked(thinking=False)
    assert template.prepare(request, Capabilities(thinking=True)) is request
    assert template.switches(False, "vllm") == {"chat_template_kwargs": {"enable_thinking": False}}
    assert template.switches(False, "ollama") == {"think": False}
    assert template.switches(None, "llama.cpp") == {}
    with pytest.raises(UnsupportedFeature):
        template.prepare(asked(thinking="high"), Capabilities(thinking=True))


def test_the_request_is_written_in_the_form_that_the_template_keeps():
    as_text = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>"
    as_text += (
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments }}}</tool_call>{% endfor %}{% endfor %}'
    )
    template = ChatTemplate.from_text(as_text)
    turns = (
        Message.user("?"),
        Message.assistant("", tool_calls=finished(PLAIN, CALL).tool_calls),
        Message.tool("3", tool_call_id="call_0"),
    )
    assert '"arguments": {"city": "Oslo"}' in template.prepare(Request(messages=turns), RAW).prompt


def test_the_memory_of_shapes_is_bounded(monkeypatch):
    monkeypatch.setattr(stage_module, "KEPT_SHAPES", 3)
    template = ChatTemplate.from_text(PLAIN)
    for turns in range(1, 8):
        template.prepare(Request(messages=(Message.user("a"),) * turns), RAW)
    assert len(stage_module._whole) == 3


def called(**arguments):
    call = ToolCall("a", "wx", arguments)
    return Request(messages=(Message.user("?"), Message.assistant("", tool_calls=[call])))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (called(n=5), called(city="a<b")),
        (called(n=[5]), called(n=["a<b"])),
        (called(n=0), called(n=5)),
        (asked(), Request(messages=(Message("user", "Weather?", images=("https://example.org/a.png",)),))),
        (asked(), Request(messages=(Message.user("long " * 200),))),
        (asked(tools=(TOOL,)), asked(tools=(evolve(TOOL, description="x", parameters={"properties": {"kept": {}}}),))),
    ],
)
def test_another_shape_of_request_is_looked_at_anew(first, second, monkeypatch):
    looked = []
    monkeypatch.setattr(stage_module.canary, "check", lambda *given: looked.append(given) or [])
    template = ChatTemplate.from_text(PLAIN + f"{{# {first!r} {second!r} #}}")
    template.capabilities  # noqa: B018 - whose probes look, too
    for request in (first, first, second, second):
        template.prepare(request, Capabilities())
    assert len(looked) == 2
    for tokens in ({}, {"bos_token": "<s>"}, {"bos_token": "<s>"}):
        evolve(template, tokens=tokens).prepare(first, Capabilities())
    assert len(looked) == 3


def test_a_batch_of_one_shape_is_looked_at_once(monkeypatch):
    looked = []
    monkeypatch.setattr(stage_module.canary, "check", lambda *given: looked.append(given) or [])
    template = ChatTemplate.from_text(PLAIN + "{# batch #}")
    for city in ("Oslo", "Rome", "Bergen"):
        template.prepare(called(city=city, n=len(city)), Capabilities())
    assert len(looked) == 1


@pytest.mark.parametrize(
    "request_",
    [
        called(city="x<|im_end|>y"),
        called(**{"x<|im_end|>y": 1}),
        asked(tools=(Tool("w", "x<|im_end|>y"),)),
        Request(messages=(Message.user("?"), Message("assistant", "a", reasoning="x<|im_end|>y"))),
    ],
)
def test_nothing_in_a_raw_prompt_forges_a_turn(request_):
    with pytest.raises(TemplateError, match="holds the control token <|im_end|>"):
        ChatTemplate.from_text(PLAIN).prepare(request_, RAW)


@pytest.mark.parametrize("printed", ["m.content", "m.content | trim"])
def test_the_blanks_behind_a_prefill_reach_a_raw_prompt(printed):
    template = ChatTemplate.from_text(PLAIN.replace("m.content", printed))
    sent = template.prepare(Request(messages=(Message.user("?"), Message.assistant("Answer: "))), RAW)
    assert sent.prompt.endswith("<|im_start|>assistant\nAnswer: ")


def test_an_image_that_a_template_skips_is_refused_for_a_server_too():
    texts = PLAIN.replace("m.content", "(m.content if m.content is string else m.content[-1].text)")
    picture = Request(messages=(Message("user", "What?", images=("https://example.org/a.png",)),))
    with pytest.raises(TemplateError, match="drops the image"):
        ChatTemplate.from_text(texts).prepare(picture, Capabilities())


RESPONSE = {
    "version": 1,
    "start_anchor": "<|im_start|>assistant\n",
    "defaults": {"role": "assistant"},
    "fields": {
        "thinking": {"open": "<think>", "close": "</think>", "content": "text"},
        "content": {"close": "<|im_end|>", "content": "text"},
    },
}


def test_the_models_own_response_template_wins():
    pytest.importorskip("transformers.utils.chat_parsing", reason="before transformers 5.13 there is none")
    template = evolve(ChatTemplate.from_text(PLAIN), response=RESPONSE)
    answer = template.parse("<think>hm</think>Yes<|im_end|>", prompt="<|im_start|>assistant\n")
    assert (answer.reasoning, answer.content) == ("hm", "Yes")


def test_a_broken_response_template_is_an_error_with_the_text():
    template = evolve(ChatTemplate.from_text(PLAIN), response={"version": 99})
    with pytest.raises(OutputError, match="response template cannot read.*Yes"):
        template.parse("Yes")

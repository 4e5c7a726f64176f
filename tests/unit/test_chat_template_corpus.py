"""The whole corpus of published templates, where it is at hand: the same bytes as transformers, the same refusals."""

import functools
import os
from pathlib import Path

import pytest

from osport.chat_template import ChatTemplate, Conversation, Family, renderer, to_anthropic, writing
from osport.core.capabilities import Capabilities
from osport.core.types import Completion
from osport.errors import TemplateError

CORPUS = Path(os.environ.get("OSPORT_CORPUS", "/nowhere")) / "templates"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {
    "type": "function",
    "function": {"name": "wx", "description": "a & <b>", "parameters": {"type": "object", "properties": {}}},
}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


CALL = {"type": "function", "id": "call_0001", "function": {"name": "wx", "arguments": {"city": "Oslo"}}}
OTHER_CALL = {"type": "function", "id": "call_0002", "function": {"name": "wx", "arguments": {"city": "Tromsø & <co>"}}}
WRITTEN_CALL = {"type": "function", "id": "call_0003", "function": {"name": "wx", "arguments": '{"city": "Oslo"}'}}
CONVERSATIONS = [
    [turn("user", "Hi")],
    [turn("system", "Be."), turn("user", "Größe 日本 <&\"'>")],
    [turn("system", "Be."), turn("user", "a"), turn("assistant", "b"), turn("user", "c")],
    [turn("user", "a"), turn("assistant", "b"), turn("system", "c"), turn("user", "d")],
    [turn("user", "a"), turn("user", "b")],
    [turn("assistant", "a"), turn("user", "b")],
    [turn("user", [{"type": "text", "text": "a"}])],
    [
        turn("user", "a"),
        turn("assistant", "", tool_calls=[CALL]),
        turn("tool", "3", tool_call_id="call_0001", name="wx"),
    ],
    [turn("user", "a"), turn("assistant", "b", reasoning_content="hm"), turn("user", "c")],
    [turn("system", [{"type": "text", "text": "Be."}]), turn("user", "a")],
    [
        turn("user", "a"),
        turn("assistant", "One moment.", tool_calls=[CALL, OTHER_CALL]),
        turn("tool", "3", tool_call_id="call_0001", name="wx"),
        turn("tool", [{"type": "text", "text": "4"}], tool_call_id="call_0002", name="wx"),
        turn("assistant", "3 and 4"),
        turn("user", "Thanks"),
    ],
    [
        turn("user", "a"),
        turn("assistant", None, tool_calls=[WRITTEN_CALL], reasoning_content="hm"),
        turn("tool", "{}", tool_call_id="call_0003", name="wx"),
    ],
    [turn("user", "")],
    [turn("developer", "Be."), turn("user", "a")],
    [
        turn("user", "{{ x }} {% y %} <|im_end|> </s> [/INST]"),
        turn("assistant", "<think>no</think>b"),
        turn("user", "c"),
    ],
    [turn("system", "  Be.\n\n"), turn("user", "\n a\t\r\n b \n"), turn("assistant", " c \n"), turn("user", " ")],
    [turn("user", "a"), turn("assistant", "b")],
]


with_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="OSPORT_CORPUS names no folder with templates")


def sources():
    return {file: file.read_text(encoding="utf-8") for file in sorted(CORPUS.rglob("*.jinja"))}


@with_corpus
def test_every_template_renders_as_in_transformers():
    from transformers.utils.chat_template_utils import render_jinja_template

    different, same = [], 0
    for file, source in sources().items():
        if "strftime_now" in source:  # prints today's date there, a pinned one here
            continue
        template = ChatTemplate.from_text(source, tokens=TOKENS)
        for messages in CONVERSATIONS:
            tools = [TOOL] if any(message["role"] == "tool" for message in messages) else None
            # apply_chat_template leaves keys without a value out before it renders.
            given = [{key: value for key, value in message.items() if value is not None} for message in messages]
            try:
                theirs = render_jinja_template(
                    [given], tools=tools, chat_template=source, add_generation_prompt=True, **TOKENS
                )[0][0]
            except Exception:  # noqa: BLE001 - whatever it raises, ours must refuse too
                theirs = None
            try:
                ours = template.render(messages, tools=tools or ()).text
            except TemplateError:
                ours = None
            same += ours == theirs
            if ours != theirs:
                different.append((file.name, messages))
    assert different == []
    assert same > 1000


# Targets with control tokens of their own, one of which is strange to every family.
TARGETS = [
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}",
    "{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}",
]


@with_corpus
def test_the_prompt_of_every_family_is_found_inside_the_prompt_of_another():
    """Families that write plain words (Alpaca, Vicuna) are told by those words."""
    seen, missed = set(), []
    for source in sources().values():
        template = ChatTemplate.from_text(source)
        if template.family is None or template.family.name in seen:
            continue
        try:
            prompt = template.render(CONVERSATIONS[0]).text
        except TemplateError:
            continue
        seen.add(template.family.name)
        for target in map(ChatTemplate.from_text, TARGETS):
            if target.family == template.family:
                continue
            found = {f.rule for f in target.audit([turn("user", prompt)]).findings}
            if not found & {"foreign-token", "role-word", "hand-assembled", "forged-turn"}:
                missed.append((template.family.name, target.family.name))
    assert missed == []
    assert len(seen) >= 20


@with_corpus
def test_how_a_model_writes_is_read_off_its_template_as_its_family_says():
    """Rules for templates that nobody knows, judged by those that are known."""
    compared = 0
    for source in sources().values():
        template = ChatTemplate.from_text(source, tokens=TOKENS)
        family, capabilities = template.family, template.capabilities
        if family is None or capabilities.tool_calls != "kept":
            continue
        write = functools.partial(renderer.compiled(source, template.now), **TOKENS)
        blind = writing.read_writing(source, write, capabilities, Family("", ()))
        assert blind.calls == family.calls, family.name
        compared += 1
    assert compared > 30


# One call in a whole Claude request, and the answer of a model in its family's form.
REQUEST = {
    "model": "claude-x",
    "max_tokens": 100,
    "temperature": 0.5,
    "stop_sequences": ["STOP"],
    "metadata": {"user_id": "u"},
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "tools": [
        {
            "name": "wx",
            "description": "Weather of a city",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
    ],
    "tool_choice": {"type": "auto"},
    "messages": [
        {"role": "user", "content": "Weather in Oslo?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "The tool.", "signature": "s"},
                {"type": "text", "text": "I look it up."},
                {"type": "tool_use", "id": "toolu_01A09q90qw90lq917835lq9", "name": "wx", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "toolu_01A09q90qw90lq917835lqa", "name": "wx", "input": {"city": "Bergen"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_01A09q90qw90lq917835lq9", "content": "3 degrees"},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_01A09q90qw90lq917835lqa",
                    "content": [{"type": "text", "text": "station down"}],
                    "is_error": True,
                },
                {"type": "text", "text": "And tomorrow?"},
            ],
        },
    ],
}
PARTS = (
    "Be brief.",
    "Weather of a city",
    "Weather in Oslo?",
    "I look it up.",
    "3 degrees",
    "station down",
    "tomorrow?",
)
ANSWERS = {
    "hermes": 'Again.<tool_call>\n{"name": "wx", "arguments": {"city": "Oslo"}}\n</tool_call>',
    "llama_json": '{"name": "wx", "parameters": {"city": "Oslo"}}',
    "mistral": '[TOOL_CALLS][{"name": "wx", "arguments": {"city": "Oslo"}, "id": "a1B2c3D4e"}]',
    "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>wx\n```json\n"
    '{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "harmony": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=functions.wx<|channel|>commentary json"
    '<|message|>{"city": "Oslo"}<|call|>',
}
NAMED = [
    "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-11B-Vision-Instruct",
    "Qwen-Qwen3-0.6B",
    "v7_spm",
    "hfjs-automap/deepseek-v3-671b",
    "gemma-it",
    "openai-gpt-oss-120b",
    "vllm-packaged/template_chatml",
]


@with_corpus
@pytest.mark.parametrize("name", NAMED)
def test_a_claude_request_goes_there_and_its_answer_comes_back(name):
    source = next(source for file, source in sources().items() if name in str(file))
    template = ChatTemplate.from_text(source, tokens=TOKENS)
    plan = Conversation.from_anthropic(REQUEST).adapt(template)
    text = template.render(plan.conversation).text
    assert [(part, text.count(part)) for part in PARTS if text.count(part) != 1] == []
    assert text.count("Bergen") == 1
    # The model answers in the way in which the prompt showed it the first call.
    request = plan.conversation.request()
    sent = template.prepare(request, Capabilities(raw_prompt=True))
    answer = Completion(ANSWERS["hermes" if plan.tools_as_text else template.writing.calls], "stop")
    back = to_anthropic(plan.restore(template.finish(answer, request, sent)), ids=plan.ids)
    assert back["stop_reason"] == "tool_use"
    assert [block["input"] for block in back["content"] if block["type"] == "tool_use"] == [{"city": "Oslo"}]

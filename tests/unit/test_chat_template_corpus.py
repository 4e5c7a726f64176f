"""The whole corpus of published templates, where it is at hand: the same bytes as transformers, the same refusals."""

import functools
import os
from pathlib import Path

import pytest

from osport.chat_template import ChatTemplate, Family, renderer, writing
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
            tools = [TOOL] if len(messages) == 3 and messages[2]["role"] == "tool" else None
            try:
                theirs = render_jinja_template(
                    [messages], tools=tools, chat_template=source, add_generation_prompt=True, **TOKENS
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

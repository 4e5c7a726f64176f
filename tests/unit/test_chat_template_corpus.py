"""The whole corpus of published templates, where it is at hand: the same bytes as transformers, the same refusals."""

import os
from pathlib import Path

import pytest

from osport.chat_template import ChatTemplate
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


@pytest.mark.skipif(not CORPUS.is_dir(), reason="OSPORT_CORPUS names no folder with templates")
def test_every_template_renders_as_in_transformers():
    from transformers.utils.chat_template_utils import render_jinja_template

    different, same = [], 0
    for file in sorted(CORPUS.rglob("*.jinja")):
        source = file.read_text(encoding="utf-8")
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

"""Losses planted in templates, and how many of them the canary finds: python benchmarks/canary.py FOLDER

Each template below FOLDER gets a line in front that spoils the request before the template sees it. A loss counts
as planted when the clean audit of that conversation has no error and the spoiled prompt really differs. FOLDER
defaults to ``OSPORT_CORPUS/templates``.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

from osport.chat_template import ChatTemplate, Conversation
from osport.core.types import Message, Tool, ToolCall
from osport.errors import OsportError

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

EACH = (
    "{%- set kq = namespace(m=[]) -%}{%- for m in messages -%}{%- set kq.m = kq.m + [@] -%}{%- endfor -%}"
    "{%- set messages = kq.m -%}"
)

LOSSES = {
    "system dropped": "{%- set messages = messages | rejectattr('role', 'equalto', 'system') | list -%}",
    "tools dropped": "{%- set tools = none -%}",
    "last user turn dropped": "{%- set messages = messages[:-1] -%}",
    "tool result emptied": EACH.replace("@", "dict(m, content='') if m.role == 'tool' else m"),
    "text beside a call dropped": EACH.replace("@", "dict(m, content='') if m.tool_calls else m"),
    "second call dropped": EACH.replace("@", "dict(m, tool_calls=m.tool_calls[:1]) if m.tool_calls else m"),
    "html escapes": EACH.replace("@", "dict(m, content=(m.content | e | string)) if m.content is string else m"),
    "python repr": EACH.replace("@", "dict(m, content=([m.content] | string)) if m.content is string else m"),
    "truncated": EACH.replace("@", "dict(m, content=m.content[:-3]) if m.content is string else m"),
    "repeated": EACH.replace("@", "dict(m, content=m.content ~ m.content) if m.content is string else m"),
    "reversed": "{%- set messages = messages[:1] + (messages[1:] | reverse | list) -%}",
    "arguments encoded twice": EACH.replace(
        "@",
        "dict(m, tool_calls=[dict(m.tool_calls[0], function=dict(m.tool_calls[0].function, arguments={'city': "
        "(m.tool_calls[0].function.arguments.city | tojson)}))] + m.tool_calls[1:]) if m.tool_calls else m",
    ),
}

WEATHER = Tool("weather", "The weather in a city", {"type": "object", "properties": {"city": {"type": "string"}}})
CONVERSATIONS = {
    "plain": Conversation(
        [Message.system("Be brief."), Message.user("Hello."), Message.assistant("Yes sir."), Message.user("Bye then.")]
    ),
    "one call": Conversation(
        [
            Message.user("Weather?"),
            Message.assistant("Let me see.", tool_calls=[ToolCall("call00001", "weather", {"city": "Oslo"})]),
            Message.tool("3 degrees", tool_call_id="call00001"),
            Message.assistant("It is cold."),
            Message.user("Thanks."),
        ],
        tools=[WEATHER],
    ),
    "two calls": Conversation(
        [
            Message.user("Weather?"),
            Message.assistant(
                "",
                tool_calls=[
                    ToolCall("call00001", "weather", {"city": "Oslo"}),
                    ToolCall("call00002", "weather", {"city": "Bergen"}),
                ],
            ),
            Message.tool("3 degrees", tool_call_id="call00001"),
            Message.tool("4 degrees", tool_call_id="call00002"),
        ],
        tools=[WEATHER],
    ),
}


def clean_by_text(template: ChatTemplate, conversation: Conversation) -> bool:
    """Whether every text of the conversation stands in the prompt once: told without the canary."""
    text = template.render(conversation).text
    wanted = [m.content for m in conversation.messages if m.content]
    wanted += [str(v) for m in conversation.messages for call in m.tool_calls for v in call.arguments.values()]
    wanted += [tool.description for tool in conversation.tools]
    return all(text.count(w) == 1 for w in wanted) and "&#34;" not in text


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else f"{os.environ['OSPORT_CORPUS']}/templates")
    planted, found, clean, alarms = Counter[str](), Counter[str](), 0, 0
    for file in sorted(folder.rglob("*.jinja")):
        source = file.read_text(encoding="utf-8")
        template = ChatTemplate.from_text(source, tokens=TOKENS)
        for name, conversation in CONVERSATIONS.items():
            try:
                honest = template.render(conversation).text
                errors = template.audit(conversation).errors
                if clean_by_text(template, conversation):
                    clean += 1
                    if errors:
                        alarms += 1
                        print(f"  false alarm? {file.relative_to(folder)} {name}: {errors[0]}")
            except OsportError:
                continue
            if errors:
                continue
            for loss, prefix in LOSSES.items():
                spoiled = ChatTemplate.from_text(prefix + source, tokens=TOKENS)
                try:
                    if spoiled.render(conversation).text == honest:
                        continue
                except OsportError:
                    continue
                planted[loss] += 1
                if spoiled.audit(conversation).errors:
                    found[loss] += 1
                else:
                    print(f"  missed: {file.relative_to(folder)} {name}: {loss}")
    for loss, count in planted.items():
        print(f"{loss:30} found {found[loss]} of {count}")
    total = sum(planted.values())
    print(f"found {sum(found.values())} of {total} planted losses; {alarms} alarms on {clean} clean pairs")


if __name__ == "__main__":
    main()

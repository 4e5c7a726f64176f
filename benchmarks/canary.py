"""Losses planted in templates, and how many of them the canary finds: python benchmarks/canary.py FOLDER

Each template below FOLDER gets a line in front that spoils the request before the template sees it, or a line of
it is rewritten. A loss counts as planted when the clean audit of that conversation has no error and the spoiled
prompt really differs. FOLDER defaults to ``OSPORT_CORPUS/templates``. The time that a render may take is raised, so
that a crowded machine stops none.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

from osport.chat_template import ChatTemplate, Conversation, audits, deadline, renderer
from osport.chat_template.conversation import Form
from osport.core.types import Message, Tool, ToolCall
from osport.errors import OsportError

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

EACH = (
    "{%- set kq = namespace(m=[]) -%}{%- for m in messages -%}{%- set kq.m = kq.m + [@] -%}{%- endfor -%}"
    "{%- set messages = kq.m -%}"
)

KEPT_PARAMETER = "{%- set kq.p = dict(kq.p, **{name: @}) -%}"
TOOLS = (
    "{%- set kq = namespace(t=[], p={}) -%}{%- for t in tools or [] -%}{%- set kq.p = {} -%}"
    "{%- for name, p in t.function.parameters.properties.items() -%}" + KEPT_PARAMETER + "{%- endfor -%}"
    "{%- set schema = dict(t.function.parameters, properties=kq.p) -%}"
    "{%- set kq.t = kq.t + [dict(t, function=dict(t.function, parameters=schema))] -%}"
    "{%- endfor -%}{%- set tools = kq.t or none -%}"
)


def each_text(changed: str) -> str:
    """A line that changes every text that is a string."""
    return EACH.replace("@", f"dict(m, content=({changed})) if m.content is string else m")


def each_call(arguments: str) -> str:
    """A line that changes the arguments of the first call of a turn."""
    return EACH.replace(
        "@",
        "dict(m, tool_calls=[dict(m.tool_calls[0], function=dict(m.tool_calls[0].function, arguments="
        f"{arguments}))] + m.tool_calls[1:]) if m.tool_calls else m",
    )


LOSSES = {
    "system dropped": "{%- set messages = messages | rejectattr('role', 'equalto', 'system') | list -%}",
    "tools dropped": "{%- set tools = none -%}",
    "last user turn dropped": "{%- set messages = messages[:-1] -%}",
    "tool result emptied": EACH.replace("@", "dict(m, content='') if m.role == 'tool' else m"),
    "text beside a call dropped": EACH.replace("@", "dict(m, content='') if m.tool_calls else m"),
    "second call dropped": EACH.replace("@", "dict(m, tool_calls=m.tool_calls[:1]) if m.tool_calls else m"),
    "html escapes": each_text("m.content | e | string"),
    "python repr": each_text("[m.content] | string"),
    "truncated": each_text("m.content[:-3]"),
    "repeated": each_text("m.content ~ m.content"),
    "middle cut out": each_text("m.content[:80] ~ m.content[-80:]"),
    "lower case": each_text("m.content | lower"),
    "words joined anew": each_text("m.content.split() | join(' ')"),
    "braces replaced": each_text("m.content | replace('{', '(')"),
    "plain ASCII only": each_text("m.content | list | select('lt', '\x7f') | join"),
    "images dropped": EACH.replace(
        "@",
        "dict(m, content=m.content | selectattr('type', 'equalto', 'text') | list) "
        "if m.content is sequence and m.content is not string else m",
    ),
    "reversed": "{%- set messages = messages[:1] + (messages[1:] | reverse | list) -%}",
    "arguments encoded twice": each_call("{'city': (m.tool_calls[0].function.arguments.city | tojson)}"),
    "arguments dropped": each_call("{}"),
    "arguments as python prints them": each_call("m.tool_calls[0].function.arguments | string"),
    "arguments as a string": each_call("m.tool_calls[0].function.arguments | tojson | tojson"),
    "parameters dropped": TOOLS.replace(KEPT_PARAMETER, ""),
    "enum dropped": TOOLS.replace("@", "{'type': p.type}"),
}
# Rewritten inside the template: (what, by what).
REWRITTEN = {
    "tools as python prints them": (
        r"(\{\{-?\s*)(tool|t|function|tools|tool\.function)\s*\|\s*tojson(?:\([^)]*\))?(\s*-?\}\})",
        r"\1\2\3",
    ),
}

WEATHER = Tool("weather", "The weather in a city", {"type": "object", "properties": {"city": {"type": "string"}}})
PICKS = Tool(
    "picks",
    "",
    {"type": "object", "properties": {"unit": {"type": "string", "enum": ["celsius", "kelvin"]}}, "required": ["unit"]},
)
LONG = "Straße {a} of Größe <b>:\n\n    def f(x):\n        return 'Ü'\n\n" + "All the Words of a long text. " * 12
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
    "numbers": Conversation(
        [
            Message.user("Weather?"),
            Message.assistant("", tool_calls=[ToolCall("call00001", "weather", {"days": 7045, "hourly": True})]),
            Message.tool("3 degrees", tool_call_id="call00001"),
        ],
        tools=[WEATHER],
    ),
    "no description": Conversation([Message.user("Weather?")], tools=[PICKS]),
    "long": Conversation([Message.user(LONG), Message.assistant("Yes sir."), Message.user("Bye then.")]),
    "image": Conversation([Message("user", "What is this?", images=("https://example.org/a.png",))]),
}


def clean_by_text(template: ChatTemplate, conversation: Conversation) -> bool:
    """Whether every text of the conversation stands in the prompt once, and every name: told without the canary."""
    text = template.render(conversation).text
    calls = [call for message in conversation.messages for call in message.tool_calls]
    values = [value for call in calls for value in call.arguments.values()]
    once = [m.content.strip() for m in conversation.messages if m.content]
    once += [value for value in values if isinstance(value, str)]
    once += [tool.description for tool in conversation.tools if tool.description]
    schemas = [tool.parameters["properties"] for tool in conversation.tools]
    somewhere = [name for call in calls for name in call.arguments] + [name for schema in schemas for name in schema]
    somewhere += [member for schema in schemas for p in schema.values() for member in p.get("enum", ())]
    somewhere += [json.dumps(value) for value in values if type(value) is int]
    quotes = "&#34;" in text or "{'" in text
    if any(message.images for message in conversation.messages):
        bare = Conversation([Message(m.role, m.content) for m in conversation.messages], form=Form(content="parts"))
        if template.render(bare).text == text:
            return False
    return all(text.count(w) == 1 for w in once) and all(w in text for w in somewhere) and not quotes


def spoiled(source: str) -> dict[str, str]:
    """For each loss the template with this loss in it."""
    written = {loss: prefix + source for loss, prefix in LOSSES.items()}
    return written | {loss: re.sub(old, new, source) for loss, (old, new) in REWRITTEN.items()}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else f"{os.environ['OSPORT_CORPUS']}/templates")
    deadline.SECONDS = renderer.COMPILE_SECONDS = audits.SECONDS = 60.0
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
            for loss, text in spoiled(source).items():
                broken = ChatTemplate.from_text(text, tokens=TOKENS)
                try:
                    if broken.render(conversation).text == honest:
                        continue
                except OsportError:
                    continue
                planted[loss] += 1
                if broken.audit(conversation).errors:
                    found[loss] += 1
                else:
                    print(f"  missed: {file.relative_to(folder)} {name}: {loss}")
    for loss, count in planted.items():
        print(f"{loss:30} found {found[loss]} of {count}")
    total = sum(planted.values())
    print(f"found {sum(found.values())} of {total} planted losses; {alarms} alarms on {clean} clean pairs")


if __name__ == "__main__":
    main()

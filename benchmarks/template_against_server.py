"""Prompts of osport against those of the real llama.cpp server: python benchmarks/template_against_server.py FOLDER

For every ``*.jinja`` file below FOLDER (default ``OSPORT_CORPUS/templates``) a server starts with that template and
is asked through ``/apply-template`` for the prompts of nine conversations. A difference counts as predicted when the
audit of that conversation has a note on llama.cpp. ``MODEL.gguf`` comes from ``OSPORT_CACHE``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, Self

from osport.chat_template import ChatTemplate, Conversation
from osport.core.types import Message, Tool, ToolCall
from osport.errors import TemplateError
from osport.store import pull_model

CHILD = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.chat_template = sys.argv[1], sys.argv[2]
params.n_ctx, params.n_parallel, params.hostnames, params.port = 512, 1, ["127.0.0.1"], 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print("listening " + server.listening_address, flush=True)
sys.stdin.read()
"""

WEATHER = Tool(
    "weather",
    "The weather in a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CALL = ToolCall("call00001", "weather", {"city": "Oslo"})
CONVERSATIONS = {
    "one turn": Conversation([Message.user("Hi there")]),
    "system": Conversation([Message.system("Be brief."), Message.user('Größe?\n\n<b>&amp;</b> "quoted" 日本')]),
    "several turns": Conversation(
        [
            Message.system("Sort."),
            Message.user("good"),
            Message.assistant('{"sentiment": "pos"}'),
            Message.user("  bad  "),
        ]
    ),
    "no system": Conversation([Message.user("good"), Message.assistant("pos"), Message.user("bad")]),
    "system inside": Conversation(
        [Message.user("good"), Message.assistant("pos"), Message.system("In French."), Message.user("bad")]
    ),
    "tools": Conversation([Message.user("Weather?")], tools=[WEATHER]),
    "call": Conversation(
        [
            Message.user("Weather?"),
            Message.assistant("", tool_calls=[CALL]),
            Message.tool("3 degrees", tool_call_id=CALL.id),
        ],
        tools=[WEATHER],
    ),
    "reasoning": Conversation([Message.user("a"), Message("assistant", "b", reasoning="hm"), Message.user("c")]),
    "prefill": Conversation([Message.user("Sort: bad"), Message.assistant('{"sentiment": "')]),
}


class Server:
    """A llama.cpp server of one model with one template, in a process of its own."""

    def __init__(self, model: Path, template: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(model), template],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._child.stdout is not None
        lines = (line.split()[1] for line in self._child.stdout if line.startswith("listening "))
        self.url = next(lines, "")  # empty: it refuses the template

    def post(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ignored: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def as_openai(conversation: Conversation) -> dict[str, Any]:
    """The body of a chat request."""
    messages = []
    for message in conversation.messages:
        written: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            written["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.id,
                    "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
                }
                for call in message.tool_calls
            ]
        if message.tool_call_id:
            written["tool_call_id"] = message.tool_call_id
        if message.reasoning:
            written["reasoning_content"] = message.reasoning
        messages.append(written)
    tools = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in conversation.tools
    ]
    return {"messages": messages, **({"tools": tools} if tools else {})}


def compare(server: Server, template: ChatTemplate, conversation: Conversation) -> str:
    """``equal``, ``predicted``, ``unpredicted``, or ``refused`` by the server."""
    try:
        theirs = server.post("/apply-template", **as_openai(conversation))["prompt"]
    except urllib.error.HTTPError:
        return "refused"
    try:
        ours = template.render(conversation, continue_final=conversation.prefilled).text
    except TemplateError:
        ours = None
    if ours == theirs:
        return "equal"
    notes = template.audit(conversation).notes
    return "predicted" if any(note.rule == "llama.cpp-differs" for note in notes) else "unpredicted"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else f"{os.environ['OSPORT_CORPUS']}/templates")
    model = pull_model("smollm2-135m")
    tokens = ChatTemplate.from_gguf(model).tokens
    tally = Counter[str]()
    for file in sorted(folder.rglob("*.jinja")):
        source = file.read_text(encoding="utf-8")
        with Server(model, source) as server:
            if not server.url:
                print(f"  the server refuses {file.relative_to(folder)}")
                continue
            template = ChatTemplate.from_text(source, tokens=tokens)
            for name, conversation in CONVERSATIONS.items():
                found = compare(server, template, conversation)
                tally[found] += 1
                if found == "unpredicted":
                    print(f"  not predicted: {file.relative_to(folder)}, {name}")
    print(", ".join(f"{name} {tally[name]}" for name in ("equal", "predicted", "refused", "unpredicted")))


if __name__ == "__main__":
    main()

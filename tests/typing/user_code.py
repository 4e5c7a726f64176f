"""Type-checked, not run: what code that uses osport looks like."""

from __future__ import annotations

from typing import assert_type

from osport import ChatTemplate, Completion, ConstrainedOutput, Message, Model, Port, pull_model
from osport.errors import OsportError
from osport.plugin import Backend, Request


class Mine(Backend):
    def generate(self, request: Request) -> Completion:
        return Completion(request.messages[-1].content, "stop")


def ask(model: Model) -> str:
    answer = model.generate("hi", output=ConstrainedOutput.choice(["a", "b"]), temperature=0.5)
    assert_type(answer, Completion)
    assert_type(answer.latency, float)
    for item in model.batch(["a", "b"], concurrency=2):
        assert_type(item, Completion | OsportError)
    for delta in model.stream([Message.user("hi")]):
        assert_type(delta.text, str)
    return answer.text.upper()


async def ask_later(model: Model) -> str:
    return (await model.agenerate("hi")).text


with Model(Mine("x"), template=ChatTemplate.from_gguf(pull_model("smollm2-135m"))) as opened:
    ask(opened)
result = Port.from_file("port.toml").run("out", incumbent="replay:answers.jsonl")
assert_type(result.decision.reason, str)

"""From an arm's settings to the request for one item, and from the completion to the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from osport.chat_template import Conversation, few_shot_turns
from osport.constrained import ConstrainedOutput
from osport.core.types import Completion, Message, Request
from osport.errors import UsageError
from osport.evals.golden import GoldenItem, read_file
from osport.port.plan import PLACEHOLDER, Arm, Plan, sampling_of

__all__ = ["Prompting", "load_json", "prompting", "read_answer"]


@frozen
class Prompting:
    """``request`` makes the request for one input; ``prefill`` is what the answer was begun with.

    ``losses``: what a Claude request held that could not be carried over, each with why and what was done instead.
    """

    request: Callable[[str], Request]
    prefill: str = ""
    losses: tuple[str, ...] = ()


def prompting(arm: Arm, plan: Plan, examples: Sequence[GoldenItem]) -> Prompting:
    """How this arm asks. Raises UsageError when the placeholder is missing in its request file."""
    if arm.kind == "chat":
        head = [Message.system(arm.system)] if arm.system else []
        turns = few_shot_turns([(fill(arm.user, item.input), item.expected) for item in examples], arm.few_shot)
        sampling = sampling_of(arm.sampling)
        return Prompting(lambda text: Request((*head, *turns, Message.user(fill(arm.user, text))), sampling=sampling))
    path = plan.folder / str(arm.request)
    conversation = Conversation.from_anthropic(load_json(path, "Anthropic request"))
    base = conversation.request()
    if not any(PLACEHOLDER in message.content for message in base.messages):
        raise UsageError(f"Anthropic request {path}: the placeholder {PLACEHOLDER} is missing in its texts")
    base = evolve(base, sampling=sampling_of(arm.sampling, base.sampling))
    last = base.messages[-1]
    prefill = last.content if last.role == "assistant" else ""
    make = as_raw_prompt if arm.kind == "pasted" else as_messages
    return Prompting(lambda text: make(base, text), prefill, tuple(map(str, conversation.losses)))


def as_messages(base: Request, text: str) -> Request:
    return evolve(base, messages=[evolve(m, content=fill(m.content, text)) for m in base.messages])


def as_raw_prompt(base: Request, text: str) -> Request:
    """The texts one after the other in the old Human/Assistant manner, open for the assistant's words."""
    speaker = {"system": "", "user": "Human: ", "assistant": "Assistant: "}
    turns = [speaker[m.role] + fill(m.content, text) for m in base.messages]
    if base.messages[-1].role != "assistant":
        turns.append("Assistant:")
    return evolve(base, messages=(), prompt="\n\n".join(turns))


def fill(template: str, text: str) -> str:
    return template.replace(PLACEHOLDER, text)


def read_answer(completion: Completion, form: ConstrainedOutput | None, prefill: str = "") -> Completion:
    """The completion with ``parsed`` set to the answer.

    The prefill is put in front, unless the text already starts with it. With a ``form`` the answer
    is verified against it, enforced or not: the whole text must be the value, as it must be for the
    program that reads it. Raises an OutputError, with the completion, when it is not. Without a
    form the answer is the stripped text.
    """
    if prefill and not completion.text.startswith(prefill):
        completion = evolve(completion, text=prefill + completion.text)
    if form is not None:
        return form.finish(completion)
    return evolve(completion, parsed=completion.text.strip()) if completion.parsed is None else completion


def load_json(path: Path, what: str) -> Any:
    """The JSON value in a file that the port file names."""
    try:
        return json.loads(read_file(path, what))
    except ValueError as error:
        raise UsageError(f"{what} {path} is not valid JSON: {error}") from error

"""What the fake server answers with: no model, a vocabulary of words, a few rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

__all__ = ["Asked", "Engine", "Refusal", "Spoken", "conforming"]

SPEECH = (
    "The sea is wide and deep, and this server is a fake: it says the same words to everyone, "
    "in the same order, and stops after thirty of them or so, as if it had thought about each."
)
LOGPROB = -0.5


class Refusal(Exception):
    """The engine will not answer: an HTTP status, a kind, a sentence."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@frozen
class Asked:
    """What a request of any dialect comes down to."""

    prompt: Sequence[str]
    model: str | None = None
    most: int | None = None
    stop: Sequence[str] = ()
    form: tuple[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str = "auto"
    logprobs: int | None = None
    stream: bool = False
    prefix: str = ""


@frozen
class Spoken:
    """An answer: its tokens, why it ended, what the prompt counted, and a call of a tool."""

    tokens: Sequence[str]
    finish: str
    prompt_tokens: int
    call: tuple[str, Mapping[str, Any]] | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.tokens)


@define
class Engine:
    """Words are tokens; the words that were seen are the vocabulary."""

    context: int
    speech: str = SPEECH
    _vocabulary: dict[str, int] = field(factory=dict)

    def tokenize(self, text: str) -> list[str]:
        """Words, each with the white space before it."""
        return re.findall(r"\s*\S+|\s+$", text)

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """The numbers of these tokens."""
        return [self._vocabulary.setdefault(token, len(self._vocabulary)) for token in tokens]

    def words(self, ids: Iterable[int]) -> list[str]:
        """The tokens of these numbers."""
        named = {number: token for token, number in self._vocabulary.items()}
        return [named[number] for number in ids]

    def rendered(self, messages: Iterable[tuple[str, str]], *, going_on: bool = False) -> list[str]:
        """The prompt of a conversation of (role, text)."""
        tokens: list[str] = []
        turns = list(messages)
        for place, (role, text) in enumerate(turns):
            tokens += [f"<{role}>", *self.tokenize(text)]
            if not (going_on and place == len(turns) - 1):
                tokens.append("</>")
        return tokens if going_on else [*tokens, "<assistant>"]

    def answer(self, asked: Asked) -> Spoken:
        """Speak; raises :class:`Refusal` for a prompt that does not fit."""
        size = len(asked.prompt)
        if size >= self.context:
            raise Refusal(400, "exceed_context_size_error", f"request ({size} tokens) exceeds the context size")
        if asked.tools and asked.tool_choice not in ("auto", "none"):
            wanted = asked.tools[0] if asked.tool_choice == "required" else _named(asked.tools, asked.tool_choice)
            return Spoken((), "tool_calls", size, (wanted["name"], conforming(wanted.get("parameters") or {})))
        text = self.speech if asked.form is None else _formed(*asked.form)
        tokens = self.tokenize(text)
        finish = "stop"
        most = min(self.context - size, asked.most if asked.most is not None and asked.most >= 0 else len(tokens))
        if most < len(tokens):
            tokens, finish = tokens[:most], "length"
        ends = [at for stop in asked.stop if (at := "".join(tokens).find(stop)) >= 0]
        if ends:
            tokens, finish = self.tokenize("".join(tokens)[: min(ends)]), "stop"
        return Spoken(tuple(tokens), finish, size)


def conforming(schema: Any) -> Any:
    """A value that a simple schema allows: the first of each enumeration, the least of each kind."""
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            return conforming(schema[word][0])
    kind = schema.get("type", "object" if "properties" in schema else "null")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: conforming(properties.get(name, {})) for name in properties if name in schema.get("required", ())}
    if kind == "array":
        return [conforming(schema.get("items", {}))] * schema.get("minItems", 0)
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"string": "x" * schema.get("minLength", 0), "boolean": True}.get(kind)


def _named(tools: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    for tool in tools:
        if tool["name"] == name:
            return tool
    raise Refusal(400, "invalid_request_error", f"no tool {name!r} is offered")


def _formed(kind: str, value: Any) -> str:
    if kind == "json_schema":
        return json.dumps(conforming(value), separators=(",", ":"))
    if kind == "choice":
        return str(value[0])
    if kind == "grammar" and (schema := re.search(r"^start: %json (.*)$", value, re.M)):
        return _formed("json_schema", json.loads(schema[1]))
    literals = re.findall(r'"((?:[^"\\]|\\.)*)"', value) if kind == "grammar" else []
    if not literals:
        raise Refusal(400, "invalid_request_error", f"this fake enforces no {kind} of that kind")
    return str(json.loads(f'"{literals[0]}"'))

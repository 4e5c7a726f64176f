"""Requests and completions: ours, frozen, and no vendor's JSON.

A backend translates them at its own door and nowhere else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, get_args

from attrs import Attribute, evolve, field, fields, frozen, validators

from osport.core.deadline import is_seconds
from osport.core.thought import Thought
from osport.errors import UsageError

__all__ = [
    "Completion",
    "Constraint",
    "ConstraintKind",
    "ContinuationScore",
    "Delta",
    "Determinism",
    "Enforcement",
    "FinishReason",
    "Message",
    "Request",
    "Role",
    "Sampling",
    "Thinking",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "Usage",
    "check_text",
]

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "refusal", "error", "unknown"]
ConstraintKind = Literal["json_schema", "choice", "regex", "grammar", "tools"]
EnforcedBy = Literal["sampling", "server", "prompt", "none"]
Determinism = Literal["exact_replay", "seeded", "best_effort", "none"]
"""What the same request gives again: the recorded answer itself, the same tokens on this engine and machine,
most likely the same ones, or no promise."""
LogprobsFrom = Literal["model", "sampler"]


def _strings(values: Iterable[str] | None) -> tuple[str, ...] | None:
    if isinstance(values, str):
        raise UsageError(f"stop={values!r}: give a list of strings, e.g. stop=[{values!r}]")
    if not isinstance(values, Iterable | None):
        raise UsageError(f"stop={values!r}: give a list of strings")
    return None if values is None else tuple(values)


def _one_of(literal: object) -> Callable[[Any, Attribute[Any], Any], None]:
    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value not in get_args(literal):
            raise UsageError(f"{attribute.name}={value!r}: must be one of {', '.join(get_args(literal))}")

    return check


def _text(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise UsageError(f"{attribute.name}={value!r}: must be a string, not {type(value).__name__}")
    check_text(attribute.name, value)


def check_text(name: str, value: object) -> None:
    """Raise :class:`~osport.errors.UsageError` for a string that cannot be written as UTF-8; other values pass."""
    # isascii() is a flag that strings carry; only the others are encoded to see whether they can be.
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{name}: the character at {error.start} is half of a surrogate pair and no text; "
                "decode the input with errors='replace'"
            ) from None


def _tool_calls(values: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(values)


def _tools(values: Iterable[Tool]) -> tuple[Tool, ...]:
    return tuple(values)


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _messages(values: Iterable[Message]) -> tuple[Message, ...]:
    return tuple(values)


@frozen
class ToolCall:
    """One call of a tool by the model; ``arguments`` is the parsed JSON object."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@frozen
class Tool:
    """A function that the model may call; ``parameters`` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(factory=lambda: {"type": "object", "properties": {}})

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise UsageError(f"a tool needs a name, not {self.name!r}")
        if not isinstance(self.parameters, Mapping):
            raise UsageError(
                f"tool {self.name!r}: parameters must be a JSON Schema object, not {type(self.parameters).__name__}"
            )


Thinking = bool | str | int | None
"""Whether the model reasons before it answers: on, off, a level (``low``, ``medium``, ``high``), a budget in
tokens, or None for whatever the model does when nobody asks."""


@frozen
class Message:
    """One turn of a conversation.

    A trailing assistant message is a prefill: the model continues it. ``images`` are URLs or data URLs
    and stand before the text of the turn.
    """

    role: Role = field(validator=_one_of(Role))
    content: str = field(default="", validator=_text)
    tool_calls: tuple[ToolCall, ...] = field(default=(), converter=_tool_calls)
    tool_call_id: str | None = None
    reasoning: str | None = field(default=None, validator=validators.optional(_text))
    images: tuple[str, ...] = field(default=(), converter=_texts)

    @classmethod
    def system(cls, content: str) -> Message:
        """Instructions that hold for the whole conversation."""
        return cls("system", content)

    @classmethod
    def user(cls, content: str) -> Message:
        """What the person, or the calling program, says."""
        return cls("user", content)

    @classmethod
    def assistant(cls, content: str, *, tool_calls: Sequence[ToolCall] = ()) -> Message:
        """What the model said, or, as the last message, the beginning of what it will say."""
        return cls("assistant", content, tuple(tool_calls))

    @classmethod
    def tool(cls, content: str, *, tool_call_id: str) -> Message:
        """The result of a tool call."""
        return cls("tool", content, tool_call_id=tool_call_id)


@frozen
class Sampling:
    """How the next token is drawn. None means: osport's own default, never the engine's.

    ``temperature`` 0 is greedy; ``top_p`` 1, ``top_k`` 0 and ``min_p`` 0 switch the filter off;
    penalties are neutral at 0 (``repeat_penalty`` at 1); ``max_tokens`` counts generated tokens.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = field(default=None, converter=_strings)

    def __attrs_post_init__(self) -> None:
        for name, value in self.given.items():
            allowed, must = _ALLOWED[name]
            if not allowed(value):
                raise UsageError(f"{name}={value!r}: must be {must}")
        for text in self.stop or ():
            check_text("stop", text)

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that the caller set."""
        return {f.name: v for f in fields(Sampling) if (v := getattr(self, f.name)) is not None}

    def filled(self) -> Sampling:
        """Every parameter with a value: the caller's where set, osport's default elsewhere."""
        return evolve(DEFAULT_SAMPLING, **self.given)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_tokens": (lambda v: _whole(v) and v >= 1, "a whole number of at least 1"),
    "temperature": (lambda v: _finite(v) and v >= 0, "a number of at least 0"),
    "top_p": (lambda v: _finite(v) and 0 < v <= 1, "a number above 0 and at most 1"),
    "top_k": (lambda v: _whole(v) and v >= 0, "a whole number of at least 0 (0: off)"),
    "min_p": (lambda v: _finite(v) and 0 <= v < 1, "a number of at least 0 and below 1"),
    "repeat_penalty": (lambda v: _finite(v) and v > 0, "a number above 0 (1: off)"),
    "presence_penalty": (_finite, "a number"),
    "frequency_penalty": (_finite, "a number"),
    "seed": (lambda v: _whole(v) and 0 <= v < 2**32 - 1, "a whole number in [0, 2**32 - 1)"),
    "stop": (lambda v: all(isinstance(s, str) and s for s in v), "non-empty strings"),
}

DEFAULT_SAMPLING = Sampling(
    max_tokens=512,
    temperature=0.0,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    repeat_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    seed=0,
    stop=(),
)


@frozen(slots=False)
class Constraint:
    """The form an answer must have: what a backend is asked to enforce.

    ``value`` is a JSON Schema (mapping, property order kept) for ``json_schema``, a tuple of
    strings for ``choice``, a regular expression for ``regex``, GBNF text for ``grammar``, and for ``tools``
    what ``ConstrainedOutput.tools`` makes of its arguments. ``engine``: who must enforce it, of
    ``Capabilities.constraint_engines``; None: the backend's own choice.
    """

    kind: ConstraintKind = field(validator=_one_of(ConstraintKind))
    value: Any
    engine: str | None = None

    @classmethod
    def json_schema(cls, schema: Any, text: str, engine: str | None = None) -> Constraint:
        """A schema that is known as JSON, too, so that nobody writes it again."""
        made = cls("json_schema", schema, engine)
        vars(made)["text"] = text
        return made

    @cached_property
    def text(self) -> str:
        """``value`` as JSON, by which compiled forms are known."""
        return json.dumps(self.value)


@frozen
class Request:
    """One question: either ``messages`` (the backend applies the chat template) or a raw ``prompt``.

    ``timeout`` in seconds, for all that the call does; None: the backend's own limit for each attempt.
    ``item_id`` names the item of a golden set that the request came from; no engine sees it, recorded answers are
    found by it. ``tool_choice`` is ``auto``, ``required``, ``none`` or the name of a tool. ``logprobs`` asks for
    the log-probability of every token of the answer, and of this many of its likeliest alternatives. ``thought``
    comes with a raw prompt whose answer begins with reasoning; who rendered the prompt says so, and a constraint
    holds behind it.
    """

    messages: tuple[Message, ...] = field(default=(), converter=_messages)
    prompt: str | None = field(default=None, validator=validators.optional(_text))
    sampling: Sampling = field(factory=Sampling)
    constraint: Constraint | None = None
    timeout: float | None = None
    item_id: str | None = None
    tools: tuple[Tool, ...] = field(default=(), converter=_tools)
    tool_choice: str = "auto"
    parallel_tools: bool = True
    thinking: Thinking = None
    logprobs: int | None = None
    thought: Thought | None = None

    def __attrs_post_init__(self) -> None:
        if self.logprobs is not None and not (_whole(self.logprobs) and self.logprobs >= 0):
            raise UsageError(f"logprobs={self.logprobs!r}: a whole number of at least 0 (0: the chosen tokens alone)")
        if bool(self.messages) == (self.prompt is not None):
            raise UsageError("a request takes either messages or a raw prompt, not both and not neither")
        if self.timeout is not None and not is_seconds(self.timeout):
            raise UsageError(f"timeout={self.timeout!r}: seconds, above 0 and finite")


@frozen
class Usage:
    """Tokens counted by the engine; None where the engine does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


@frozen
class Enforcement:
    """How the form of an answer was enforced, and whether it was verified afterwards.

    ``by``: ``sampling`` (a mask at every token, in an engine that osport started), ``server``
    (a server of unknown build was asked to), ``prompt`` (only asked for), ``none``.
    ``checked``: the keywords, with their places, that the engine was not asked to enforce and that only
    the verification ensured.
    """

    by: EnforcedBy = field(default="none", validator=_one_of(EnforcedBy))
    engine: str = ""
    verified: bool = False
    checked: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.by


@frozen
class TokenLogprob:
    """One token of an answer: its text, its natural log-probability, and the likeliest tokens of that place."""

    token: str
    logprob: float
    top: Mapping[str, float] = field(factory=dict)


@frozen
class ContinuationScore:
    """How likely a model finds one continuation of a prompt, token by token."""

    text: str
    tokens: tuple[TokenLogprob, ...]

    @property
    def logprob(self) -> float:
        """The natural log-probability of the whole continuation: the sum over its tokens."""
        return math.fsum(token.logprob for token in self.tokens)


@frozen
class Completion:
    """One answer. ``latency`` and ``ttft`` (time to first token) are seconds on the client's clock.

    ``effective`` holds what the engine was really sent, parameter by parameter. ``logprobs`` are there when
    the request asked for them; ``logprobs_from`` tells whether they are those of the ``model``, before mask,
    temperature and filters, or of the ``sampler``, after them. ``uncertain``: the answer says through an escape
    hatch that the model does not know. ``removed_mass``: the probability that the model gave to answers which the
    form does not allow, where that was measured; a large one marks a forced answer.
    """

    text: str
    finish_reason: FinishReason
    model: str = ""
    backend: str = ""
    usage: Usage = field(factory=Usage)
    parsed: Any = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    enforcement: Enforcement = field(factory=Enforcement)
    effective: Mapping[str, Any] = field(factory=dict)
    latency: float = 0.0
    ttft: float | None = None
    request_id: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    logprobs_from: LogprobsFrom | None = None
    determinism: Determinism = "none"
    uncertain: bool = False
    removed_mass: float | None = None


@frozen
class Delta:
    """A piece of a streamed answer. The last one carries ``completion``, the answer as a whole."""

    text: str = ""
    completion: Completion | None = None

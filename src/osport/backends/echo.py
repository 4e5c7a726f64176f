"""A backend without a model: deterministic and scriptable, for documentation and tests."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from osport.core.types import DEFAULT_SAMPLING
from osport.errors import OsportError, UsageError
from osport.plugin import (
    ALL_SAMPLING,
    Backend,
    Capabilities,
    Completion,
    Constraint,
    Delta,
    Enforcement,
    Message,
    ModelFacts,
    Request,
    Usage,
)

__all__ = ["EchoBackend"]

_FORMS: frozenset[str] = frozenset({"json_schema", "choice", "regex", "grammar"})
_WAYS: frozenset[str] = frozenset({"chat", "raw_prompt", "prefill", "stream", "count_tokens"})

Script = Mapping[str, str] | Sequence[str | OsportError] | Callable[[Request], str | OsportError]


class EchoBackend(Backend):
    """Answers with the last message, or with what ``script`` says.

    ``script``: a mapping from the last message to the answer, a sequence of answers used in turn
    (and again from the start), or a callable of the request. An answer that is an
    :class:`~osport.errors.OsportError` is raised. ``delay``: seconds a call takes.

    A token is a run of letters and digits or one other character. Constraints are not enforced but
    stand in the script's hands, so completions say ``none``; without a script, the smallest value
    that a simple schema allows is made up.
    """

    features: ClassVar[frozenset[str]] = ALL_SAMPLING | _FORMS | _WAYS

    def __init__(self, model: str = "", *, script: Script | None = None, delay: float = 0.0, **unknown: object) -> None:
        super().__init__(model)
        if unknown:
            raise UsageError(f"echo takes script and delay, not {', '.join(sorted(unknown))}")
        if delay < 0:
            raise UsageError(f"delay={delay!r}: seconds, at least 0")
        self._script = script
        self._turns = itertools.count()
        self._delay = delay
        self._closed = False

    def capabilities(self) -> Capabilities:
        """Text in, text out; regexes and grammars only with a script that answers them."""
        return Capabilities(
            raw_prompt=True,
            prefill=True,
            stream=True,
            count_tokens=True,
            constraints=_FORMS if self._script is not None else frozenset({"json_schema", "choice"}),
            constraint_engine="echo",
        )

    def facts(self) -> ModelFacts:
        """That this is no model."""
        return ModelFacts.of("osport.backends.echo", architecture="none", engine="echo", name=self.model or "echo")

    def generate(self, request: Request) -> Completion:
        """The answer, cut at stop strings and at ``max_tokens``."""
        if self._closed:
            raise UsageError("this echo backend is closed")
        if self._delay:
            time.sleep(self._delay)
        answer = self._answer(request)
        if isinstance(answer, OsportError):
            raise answer
        sampling = request.sampling.filled()
        for stop in sampling.stop or ():
            answer = answer.partition(stop)[0]
        tokens = _tokens(answer)
        limit = sampling.max_tokens or DEFAULT_SAMPLING.max_tokens
        kept = tokens[:limit]
        return Completion(
            text="".join(kept),
            finish_reason="stop" if len(kept) == len(tokens) else "length",
            model=self.model,
            usage=Usage(self._prompt_tokens(request), len(kept)),
            enforcement=Enforcement("none", "echo"),
            effective=sampling.given,
        )

    def stream(self, request: Request) -> Iterator[Delta]:
        """The answer, a token a delta."""
        completion = self.generate(request)
        for token in _tokens(completion.text):
            yield Delta(token)
        yield Delta("", completion)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the contents; echo has no template."""
        return sum(len(_tokens(message.content)) for message in messages)

    def close(self) -> None:
        """Refuse further calls."""
        self._closed = True

    def _prompt_tokens(self, request: Request) -> int:
        return self.count_tokens(request.messages or [Message.user(request.prompt or "")])

    def _answer(self, request: Request) -> str | OsportError:
        said = request.messages[-1].content if request.messages else request.prompt or ""
        script = self._script
        if script is None:
            return said if request.constraint is None else _smallest(request.constraint)
        if callable(script):
            return script(request)
        if isinstance(script, Mapping):
            if said not in script:
                raise UsageError(f"the script of this echo backend has no answer for {said!r}")
            return script[said]
        return script[next(self._turns) % len(script)]


def _tokens(text: str) -> list[str]:
    return re.findall(r"\w+|\W", text)


def _smallest(constraint: Constraint) -> str:
    if constraint.kind == "choice":
        return str(constraint.value[0])
    if constraint.kind == "json_schema":
        return json.dumps(_value(constraint.value), separators=(",", ":"))
    raise UsageError(f"echo cannot make up an answer for a {constraint.kind}; give it a script")


def _value(schema: Mapping[str, object]) -> object:
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list):
        return schema["enum"][0]  # type: ignore[index]
    kind = schema.get("type", "null")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _value(sub) for name, sub in properties.items()}  # type: ignore[attr-defined]
    plain: dict[object, object] = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": [], "null": None}
    if kind not in plain:
        raise UsageError(f"echo cannot make up a value of {dict(schema)!r}; give it a script")
    return plain[kind]

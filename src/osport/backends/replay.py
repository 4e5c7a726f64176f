"""Answers recorded earlier, from any model, played back by item id."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

from attrs import evolve

from osport.backends._file_digest import FileDigest
from osport.backends._options import refuse_unknown
from osport.core.facts import Fact
from osport.core.types import FinishReason
from osport.errors import ModelNotFound, StorageError, UsageError
from osport.plugin import Backend, Capabilities, Completion, ModelFacts, Request, Usage

__all__ = ["ReplayBackend"]

NAME = "replay"
FIELDS = frozenset({"id", "text", "latency", "usage", "model", "finish_reason", "ttft"})
TOKENS = frozenset({"prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"})


class ReplayBackend(Backend):
    """Plays back a JSONL file: one object a line, found by the request's ``item_id``.

    A line holds ``id``, ``text`` and ``latency`` (seconds, as measured when the answer was made), and may
    hold ``usage``, ``model``, ``finish_reason`` and ``ttft``. ``usage`` is in osport's words
    (``prompt_tokens``, ``completion_tokens``, ``cached_tokens``, ``reasoning_tokens``) or as the Anthropic
    Messages API gives it. No line is looked at when a question is asked differently than it was then:
    the id alone decides.

    Raises :class:`~osport.errors.ModelNotFound` when there is no such file, and
    :class:`~osport.errors.UsageError` with the line number for what is wrong in it.
    """

    features: ClassVar[frozenset[str]] = frozenset({"chat", "raw_prompt", "prefill"})

    def __init__(self, model: str, **unknown: object) -> None:
        super().__init__(model)
        refuse_unknown(NAME, unknown, ())
        self._path = Path(model).expanduser()
        self._answers = _read(self._path)
        self._closed = False

    def capabilities(self) -> Capabilities:
        """Any question; no sampling and no constraint, for the answers are there already."""
        return Capabilities(chat=True, raw_prompt=True, prefill=True, sampling=frozenset())

    def facts(self) -> ModelFacts:
        """The file, how many answers it holds, and the models that its lines name."""
        models = sorted({answer.model for answer in self._answers.values() if answer.model})
        said = ModelFacts.of(
            str(self._path),
            engine=NAME,
            path=str(self._path.resolve()),
            answers=len(self._answers),
            name=", ".join(models) or None,
        )
        digest: dict[str, Fact] = {"sha256": FileDigest(self._path.resolve())}
        return said.merged(ModelFacts(digest))

    def generate(self, request: Request) -> Completion:
        """The recorded answer, with the recorded latency.

        Raises :class:`~osport.errors.ModelNotFound` naming the id that the file does not hold.
        """
        if self._closed:
            raise UsageError("this replay model is closed; make a new Model")
        if request.item_id is None:
            raise UsageError(f"{NAME} finds answers by item id, and this request has none")
        if request.item_id not in self._answers:
            raise ModelNotFound(
                f"{NAME}: {self._path} holds no answer for the item {request.item_id!r}", backend=NAME, model=self.model
            )
        return self._answers[request.item_id]

    def close(self) -> None:
        """Refuse further calls."""
        self._closed = True


def _read(path: Path) -> dict[str, Completion]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ModelNotFound(f"{NAME}: there is no file {path}", backend=NAME, model=str(path)) from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8: {error}") from error
    found: dict[str, Completion] = {}
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            name, completion = _answer(json.loads(line))
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
        if name in found:
            raise UsageError(f"{path}, line {number}: the id {name!r} stands in line {seen[name]} already")
        found[name], seen[name] = completion, number
    if not found:
        raise UsageError(f"{path}: the file holds no answers")
    return found


def _answer(line: object) -> tuple[str, Completion]:
    """Id and answer of one line. Raises ValueError that says what is wrong."""
    if not isinstance(line, dict):
        raise UsageError("must be a JSON object")
    if unknown := sorted(line.keys() - FIELDS):
        raise UsageError(f"unknown field {unknown[0]!r}; there are: {', '.join(sorted(FIELDS))}")
    for name in ("id", "text"):
        if not isinstance(line.get(name), str):
            raise UsageError(f"{name} must be a string")
    finish = line.get("finish_reason", "unknown")
    if finish not in get_args(FinishReason):
        raise UsageError(f"finish_reason is {finish!r}; there are: {', '.join(get_args(FinishReason))}")
    if not isinstance(line.get("model", ""), str):
        raise UsageError("model must be a string")
    completion = Completion(
        text=line["text"],
        finish_reason=finish,
        model=line.get("model", ""),
        backend=NAME,
        usage=_usage(line.get("usage", {})),
        latency=_seconds(line, "latency"),
        determinism="exact_replay",
    )
    return line["id"], evolve(completion, ttft=_seconds(line, "ttft")) if "ttft" in line else completion


def _seconds(line: Mapping[str, Any], name: str) -> float:
    value = line.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise UsageError(f"{name} must be seconds, above 0")
    return float(value)


def _usage(usage: object) -> Usage:
    if not isinstance(usage, dict):
        raise UsageError("usage must be a JSON object")
    if "input_tokens" in usage:
        written, read = (_count(usage, f"cache_{way}_input_tokens") or 0 for way in ("creation", "read"))
        fresh = _count(usage, "input_tokens") or 0
        return Usage(fresh + written + read, _count(usage, "output_tokens"), read)
    if unknown := sorted(usage.keys() - TOKENS):
        raise UsageError(f"unknown field {unknown[0]!r} in usage; there are: {', '.join(sorted(TOKENS))}")
    return Usage(**{name: _count(usage, name) for name in usage})


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise UsageError(f"{name} must be a whole number of tokens")
    return value

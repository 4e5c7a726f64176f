"""The hooks that a package in the entry-point group ``osport.plugins`` may implement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pluggy
from attrs import frozen

from osport.core.facts import ModelFacts
from osport.core.types import Completion, Request
from osport.errors import OsportError, UsageError
from osport.plugin.backend import BackendSpec

__all__ = [
    "CallRecord",
    "ModelRef",
    "ScorerSpec",
    "hookimpl",
    "hookspec",
    "osport_backends",
    "osport_call_finished",
    "osport_model_facts",
    "osport_scorers",
]

hookspec = pluggy.HookspecMarker("osport")
hookimpl = pluggy.HookimplMarker("osport")


@frozen
class ModelRef:
    """A model reference, split at the first colon: ``llama_cpp:/models/x.gguf``."""

    backend: str
    model: str

    def __str__(self) -> str:
        return f"{self.backend}:{self.model}"


@frozen
class CallRecord:
    """One finished call: the request as the backend got it, and its completion or its error.

    Both are None where the caller left before the end: a cancelled task, a stream that was closed, Ctrl-C.
    ``seconds``: failed attempts and the waits between them included; of an item of an engine's own batch that
    succeeded there, its ``Completion.latency``.
    """

    ref: ModelRef
    request: Request
    completion: Completion | None
    error: OsportError | None
    seconds: float


@frozen
class ScorerSpec:
    """A scorer under a name: ``score(expected, answer)`` gives 1.0 for right, 0.0 for wrong.

    ``answer`` is the parsed value (or the stripped text where nothing was parsed).
    """

    name: str
    score: Callable[[Any, Any], float]

    def __attrs_post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name and callable(self.score)):
            raise UsageError(f"a scorer has a name and a function, not {self.name!r} and {self.score!r}")


@hookspec
def osport_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Backends beside those that the entry-point group ``osport.backends`` names."""


@hookspec(firstresult=True)
def osport_model_facts(ref: ModelRef, known: ModelFacts) -> ModelFacts | None:
    """Facts about a model that osport does not find by itself; the first plugin that answers wins."""


@hookspec
def osport_call_finished(record: CallRecord) -> Any:
    """Called after every call; errors of observers are logged, never raised."""


@hookspec
def osport_scorers() -> Iterable[ScorerSpec]:  # type: ignore[empty-body]
    """Scorers beside the built-in ones."""

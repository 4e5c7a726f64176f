"""A stage is what the composable modules share: three places where one may step in.

``gate`` before anything is loaded, ``prepare`` on the way down, ``finish`` on the way up.
A module that has nothing to do at one of them inherits the empty one from :class:`Stage`.
"""

from __future__ import annotations

from collections.abc import Iterable

from osport.core.capabilities import Capabilities
from osport.core.facts import ModelFacts
from osport.core.types import Completion, Request

__all__ = ["Stage", "finish", "gate", "prepare"]


class Stage:
    """Base of ``ChatTemplate``, ``ConstrainedOutput`` and whatever else stands between caller and engine."""

    def gate(self, facts: ModelFacts) -> None:
        """Look at the model before it is loaded; raise a :class:`~osport.errors.PolicyError` to stop it."""

    def prepare(self, request: Request, capabilities: Capabilities) -> Request:
        """Rewrite the request on its way to a backend with these capabilities."""
        return request

    def finish(self, completion: Completion) -> Completion:
        """Check or complete the answer on its way back."""
        return completion


def gate(stages: Iterable[Stage], facts: ModelFacts) -> None:
    """Ask every stage, in order."""
    for stage in stages:
        stage.gate(facts)


def prepare(stages: Iterable[Stage], request: Request, capabilities: Capabilities) -> Request:
    """Hand the request down through every stage, in order."""
    for stage in stages:
        request = stage.prepare(request, capabilities)
    return request


def finish(stages: Iterable[Stage], completion: Completion) -> Completion:
    """Hand the completion up through every stage, last stage first."""
    for stage in reversed(tuple(stages)):
        completion = stage.finish(completion)
    return completion

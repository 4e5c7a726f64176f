"""A stage is what the composable modules share: the places where one may step in.

``gate`` before anything is loaded, ``prepare`` on the way down, ``finish`` on the way up, ``again``
when the answer did not pass. A module that has nothing to do at one of them inherits the empty one
from :class:`Stage`.
"""

from __future__ import annotations

from collections.abc import Sequence

from osport.core.capabilities import Capabilities
from osport.core.facts import ModelFacts
from osport.core.types import Completion, Request
from osport.errors import OutputError

__all__ = ["Stage", "again", "finish", "gate", "prepare"]


class Stage:
    """Base of ``ChatTemplate``, ``ConstrainedOutput`` and whatever else stands between caller and engine."""

    def gate(self, facts: ModelFacts) -> None:
        """Look at the model before it is loaded; raise a :class:`~osport.errors.PolicyError` to stop it."""

    def prepare(self, request: Request, capabilities: Capabilities) -> Request:
        """Rewrite the request on its way to a backend with these capabilities."""
        return request

    def finish(self, completion: Completion, request: Request, sent: Request) -> Completion:
        """Check or complete the answer on its way back.

        ``request`` is what :meth:`prepare` was given, ``sent`` what reached the backend in the end.
        """
        return completion

    def again(self, request: Request, error: OutputError, attempt: int) -> Request | None:
        """The request to ask instead after the answer number ``attempt`` (from 1) did not pass; None: give up.

        Called for the caller's own request, before any ``prepare``. Never for a stream: its pieces are out.
        """
        return None


def gate(stages: Sequence[Stage], facts: ModelFacts) -> None:
    """Ask every stage, in order."""
    for stage in stages:
        stage.gate(facts)


def prepare(stages: Sequence[Stage], request: Request, capabilities: Capabilities) -> tuple[Request, ...]:
    """Hand the request down through every stage, in order: the request as each got it, and what came out last."""
    requests = [request]
    for stage in stages:
        requests.append(stage.prepare(requests[-1], capabilities))
    return tuple(requests)


def finish(stages: Sequence[Stage], completion: Completion, requests: Sequence[Request]) -> Completion:
    """Hand the completion up through every stage, last stage first; ``requests`` as :func:`prepare` gave them."""
    for stage, request in zip(reversed(stages), reversed(requests[:-1]), strict=True):
        completion = stage.finish(completion, request, requests[-1])
    return completion


def again(stages: Sequence[Stage], request: Request, error: OutputError, attempt: int) -> Request | None:
    """What the first stage with an idea would ask instead."""
    return next((asked for stage in stages if (asked := stage.again(request, error, attempt)) is not None), None)

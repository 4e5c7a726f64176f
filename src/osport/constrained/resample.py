"""What to ask instead of an answer that broke what only its verification ensures."""

from __future__ import annotations

from attrs import evolve

from osport.constrained.verify import REPEATED_NAME
from osport.core.types import Request
from osport.errors import ConstraintViolated, OutputError

__all__ = ["ATTEMPTS", "another_try"]

ATTEMPTS = 3
# From a greedy answer to one that can differ; and how much more each time.
LEAST_WARMTH, WARMER = 0.3, 0.2


def another_try(request: Request, error: OutputError, attempt: int, left: tuple[str, ...]) -> Request | None:
    """The request with another seed and a little more temperature; None where that would be of no use.

    ``left``: what the engine was not asked to enforce. Only an engine that took a seed and a temperature is asked
    again: the same question would get the same answer.
    """
    answer = error.completion
    if attempt >= ATTEMPTS or answer is None or not isinstance(error, ConstraintViolated):
        return None
    if not {"seed", "temperature"} <= answer.effective.keys():
        return None
    bad_luck = error.keyword == REPEATED_NAME or answer.enforcement.by in ("prompt", "none")
    if not bad_luck and not left:
        return None  # all of it was enforced, and still it does not conform: a fault
    seed, temperature = request.sampling.seed or 0, request.sampling.temperature or 0.0
    warmer = LEAST_WARMTH if temperature < LEAST_WARMTH else temperature + (WARMER if attempt > 1 else 0.0)
    return evolve(request, sampling=evolve(request.sampling, seed=(seed + 1) % (2**32 - 1), temperature=warmer))

"""Scorers by name: is this answer right?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from osport.errors import ContractViolation, UsageError
from osport.evals.golden import GoldenItem
from osport.plugin.hookspecs import ScorerSpec

__all__ = ["best_constant_share", "is_right", "scorer"]

MANY_ANSWERS = 30


def scorer(name: str) -> ScorerSpec:
    """The scorer of this name.

    * ``label``: the answer equals ``expected`` after stripping white space and folding case.
    * ``json``: the whole value equals ``expected``.
    * ``json:a,b``: the fields a and b of the answer equal those of ``expected`` (the headline
      fields; all must match). Strings are compared as ``label`` does.
    * any name that a plugin gives through the hook ``osport_scorers``.

    Raises :class:`~osport.errors.UsageError` for a name that is none of these.
    """
    if name == "label":
        return ScorerSpec(name, lambda expected, answer: float(isinstance(answer, str) and equal(expected, answer)))
    if name == "json":
        return ScorerSpec(name, lambda expected, answer: float(equal(expected, answer)))
    if name.startswith("json:"):
        headline = [part.strip() for part in name.removeprefix("json:").split(",")]
        if not all(headline):
            raise UsageError(f"scorer {name!r}: name the fields, as in 'json:sentiment' or 'json:date,total'")
        return ScorerSpec(name, lambda expected, answer: float(fields_equal(headline, expected, answer)))
    from osport.plugin.registry import registry

    plugged = registry().scorers()
    if name in plugged:
        return plugged[name]
    known = ", ".join(["label", "json", "json:<field>,<field>", *sorted(plugged)])
    raise UsageError(f"unknown scorer {name!r}; known are {known}")


def is_right(spec: ScorerSpec, expected: Any, answer: Any) -> bool:
    """Apply the scorer; only 1 (right) and 0 (wrong) count, as the paired tests need.

    Raises :class:`~osport.errors.ContractViolation` for any other score.
    """
    score = spec.score(expected, answer)
    if score not in (0, 1):
        raise ContractViolation(f"scorer {spec.name!r} gave {score!r}; only 1.0 (right) and 0.0 (wrong) are allowed")
    return bool(score)


def best_constant_share(spec: ScorerSpec, items: Iterable[GoldenItem]) -> float | None:
    """Share of items that the best single answer, given to every item, would get right.

    An accuracy is only worth what it is above this. None when there are too many different
    answers (more than 30) for a constant to be a sensible floor.
    """
    classes: list[tuple[Any, list[str]]] = []
    total = 0
    for item in items:
        total += 1
        for representative, members in classes:
            if is_right(spec, item.expected, representative):
                members.append(item.id)
                break
        else:
            if len(classes) == MANY_ANSWERS:
                return None
            classes.append((item.expected, [item.id]))
    return max((len(members) for _, members in classes), default=0) / total if total else None


def equal(expected: Any, answer: Any) -> bool:
    if isinstance(expected, str) and isinstance(answer, str):
        return expected.strip().casefold() == answer.strip().casefold()
    if isinstance(expected, dict) and isinstance(answer, dict):
        return expected.keys() == answer.keys() and all(equal(expected[key], answer[key]) for key in expected)
    if isinstance(expected, list) and isinstance(answer, list):
        return len(expected) == len(answer) and all(map(equal, expected, answer))
    # In Python True == 1; in JSON they differ.
    return isinstance(expected, bool) == isinstance(answer, bool) and bool(expected == answer)


def fields_equal(headline: list[str], expected: Any, answer: Any) -> bool:
    missing = [name for name in headline if not isinstance(expected, dict) or name not in expected]
    if missing:
        raise UsageError(f"the scorer compares the field {', '.join(missing)}, but an item expects {expected!r}")
    return isinstance(answer, dict) and all(name in answer and equal(expected[name], answer[name]) for name in headline)

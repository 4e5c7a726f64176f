"""Checks of the options that a backend is constructed with."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping

from osport.core.deadline import is_seconds
from osport.errors import UsageError

__all__ = ["check_number", "check_seconds", "check_switch", "default_threads", "refuse_unknown"]


def refuse_unknown(backend: str, unknown: Mapping[str, object], known: Iterable[str]) -> None:
    """Raise :class:`~osport.errors.UsageError` for an option that the backend does not know."""
    known = sorted(known)
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known) or 'none'}"
        raise UsageError(f"{backend} has no option {name!r}; {hint}")


def check_number(backend: str, name: str, value: object, *, at_least: int, at_most: int | None = None) -> int:
    """The option, if it is a whole number within the bounds; else :class:`~osport.errors.UsageError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least or (at_most and value > at_most):
        bounds = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise UsageError(f"{backend}: {name}={value!r}: must be a whole number {bounds}")
    return value


def check_seconds(backend: str, name: str, value: object) -> float:
    """The option, if it is a time above 0; else :class:`~osport.errors.UsageError`."""
    if not is_seconds(value):
        raise UsageError(f"{backend}: {name}={value!r}: must be seconds, above 0")
    return float(value)  # type: ignore[arg-type]


def check_switch(backend: str, name: str, value: object) -> bool:
    """The option, if it is True or False; else :class:`~osport.errors.UsageError`."""
    if not isinstance(value, bool):
        raise UsageError(f"{backend}: {name}={value!r}: must be True or False")
    return value


def default_threads() -> int:
    """Threads for one sequence: every core that this process may use up to four, half of them above.

    This is llama.cpp's own rule. On two cores, two threads read a prompt twice as fast as one thread
    and generate 1.6 times as fast.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if cores <= 4 else cores // 2

"""Checks of the options that a backend is constructed with."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping

from osport.errors import UsageError

__all__ = ["check_number", "default_threads", "refuse_unknown"]


def refuse_unknown(backend: str, unknown: Mapping[str, object], known: Iterable[str]) -> None:
    """Raise :class:`~osport.errors.UsageError` for an option that the backend does not know."""
    known = sorted(known)
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known) or 'none'}"
        raise UsageError(f"{backend} has no option {name!r}; {hint}")


def check_number(
    backend: str, name: str, value: object, *, at_least: float, whole: bool = True, optional: bool = False
) -> None:
    """Raise :class:`~osport.errors.UsageError` unless the option is a number of at least ``at_least``."""
    if value is None and optional:
        return
    kind = int if whole else (int, float)
    if not isinstance(value, kind) or isinstance(value, bool) or value < at_least:
        must = f"{'an int' if whole else 'a number'} of at least {at_least:g}"
        raise UsageError(f"{backend}: {name}={value!r}: must be {must}")


def default_threads() -> int:
    """Threads for one sequence: every core that this process may use up to four, half of them above.

    This is llama.cpp's own rule. On two cores, two threads read a prompt twice as fast as one thread
    and generate 1.6 times as fast.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if cores <= 4 else cores // 2

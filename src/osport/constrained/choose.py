"""Which engine enforces a form: the one asked for, or the first of a backend's that takes all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import evolve

from osport.constrained.engines import DEFAULT_ENGINE, ENGINES
from osport.core.capabilities import THINKING_FIRST, Capabilities, refuse_engine
from osport.errors import MissingDependency, UnsupportedFeature, UsageError

__all__ = [
    "ENGINE_NAMES",
    "checked_engine",
    "engine_of",
    "first_that_takes",
    "named",
    "only_behind_thought",
    "refuse_kind",
]

NATIVE = "native"
# What the engines take that osport does not bring along, besides JSON Schema.
OTHER_KINDS = {
    "llama.cpp-gbnf": frozenset({"choice", "grammar"}),
    "vllm-xgrammar": frozenset({"choice"}),
}
# Its grammar for a schema lets a model write up to 20 blanks between any two parts, and small ones go on and on.
WITH_BLANKS = frozenset({"llama.cpp-gbnf"})
ENGINE_NAMES = (*sorted(ENGINES), NATIVE)


def checked_engine(engine: str | None) -> str | None:
    """The name, if it is one. Raises :class:`~osport.errors.UsageError` with the names there are."""
    if engine is not None and engine not in ENGINE_NAMES:
        raise UsageError(f"engine={engine!r}: one of {', '.join(ENGINE_NAMES)}, or None")
    return engine


def refuse_kind(kind: str, engine: str) -> None:
    """Raise :class:`~osport.errors.UnsupportedFeature` for a kind of constraint that an engine does not take."""
    kinds = ENGINES[engine].kinds if engine in ENGINES else OTHER_KINDS.get(engine)
    if kinds is not None and kind not in kinds:
        able = tuple(f"engine={name!r}" for name, other in sorted(ENGINES.items()) if kind in other.kinds)
        raise UnsupportedFeature(f"constrained output of kind {kind}", engine, alternatives=able)


def named(engine: str, capabilities: Capabilities, backend: str = "this backend") -> str:
    """A backend's own name of the engine that a caller asks for.

    ``native`` is the one that osport does not bring along; ``xgrammar`` may be ``vllm-xgrammar``, a server's own.
    Raises :class:`~osport.errors.UnsupportedFeature` with the engines that the backend has.
    """
    able = sorted(capabilities.constraint_engines | {capabilities.constraint_engine} - {""})
    matching = [
        name
        for name in able
        if name == engine or name.endswith(f"-{engine}") or (engine == NATIVE and name not in ENGINES)
    ]
    if not matching:
        refuse_engine(engine, capabilities, backend)
    return matching[0]


def only_behind_thought(asked: str | None, capabilities: Capabilities) -> Capabilities:
    """The capabilities with the one engine that lets a thought pass before the form.

    Raises :class:`~osport.errors.UnsupportedFeature` where the backend cannot, or another engine was asked for.
    """
    if not capabilities.constrained_thinking:
        why = "its mask begins with the first token; send thinking=False, or put a field for reasoning first"
        raise UnsupportedFeature(THINKING_FIRST, capabilities.constraint_engine, reason=why)
    if asked not in (None, DEFAULT_ENGINE):
        raise UnsupportedFeature(THINKING_FIRST, str(asked), alternatives=(f"engine={DEFAULT_ENGINE!r}",))
    return evolve(capabilities, constraint_engines=frozenset({DEFAULT_ENGINE}))


def first_that_takes(capabilities: Capabilities, kind: str, enforce: Callable[[str], object]) -> str:
    """The backend's own choice, or where it refuses the first of its other engines that takes all.

    ``enforce`` raises for an engine that does not. An engine that writes JSON with white space is not gone over to, but
    may be asked for by name. Raises what the backend's own choice raised, with that one, and the engines of other
    backends, where they would do.
    """
    try:
        enforce(capabilities.constraint_engine)
    except UnsupportedFeature as refusal:
        others = sorted(capabilities.constraint_engines - {capabilities.constraint_engine})
        if kind == "json_schema":
            others = [name for name in others if name not in WITH_BLANKS]
        found = next(taking(others, enforce), None)
        if found is None:
            by_name = taking(sorted({*ENGINES, *capabilities.constraint_engines & WITH_BLANKS}), enforce)
            refusal.alternatives = refusal.alternatives or tuple(
                f"engine={name if name in ENGINES else NATIVE!r}" for name in by_name
            )
            raise
        return found
    return capabilities.constraint_engine


def taking(engines: list[str], enforce: Callable[[str], object]) -> Iterator[str]:
    """The engines that take all of a form and are installed."""
    for name in engines:
        try:
            enforce(name)
            if name in ENGINES:
                ENGINES[name].version()
        except (UnsupportedFeature, MissingDependency):
            continue
        yield name


def engine_of(asked: Any) -> str:
    """The constraint engine of a name, a backend or a model."""
    if isinstance(asked, str):
        return asked
    capabilities = getattr(asked, "capabilities", None)
    found = capabilities() if callable(capabilities) else capabilities
    if not isinstance(found, Capabilities):
        raise UsageError(f"engine={asked!r}: the name of an engine, a backend or a model")
    return found.constraint_engine

"""One constraint as the fields that each server takes, by its version; a name that it would ignore is never sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from osport.constrained.dialects import to_gbnf_choice
from osport.core.types import Constraint
from osport.errors import UnsupportedFeature, UsageError

__all__ = ["DIALECTS", "Dialect", "dialect_of", "fields_for"]

# The name that OpenAI's form wants for a schema; it means nothing to the constraint.
SCHEMA_NAME = "answer"
VLLM_SINCE = (0, 12)


@frozen
class Dialect:
    """How one server takes constraints.

    ``kinds``: the kinds of constraint that it has a field for, for ``Capabilities.constraints``. ``engine``: the
    name under which osport's tables know what it enforces of a JSON Schema, for ``Capabilities.constraint_engine``.
    ``keeps_order``: whether properties come in the schema's order; else they come in alphabetical order.
    """

    name: str
    kinds: frozenset[str]
    engine: str
    write: Callable[[Constraint], dict[str, Any]]
    keeps_order: bool = True

    def fields(self, constraint: Constraint | None) -> dict[str, Any]:
        """The top-level fields of the request body, ready to be merged; empty without a constraint.

        Raises :class:`~osport.errors.UnsupportedFeature` for a kind without a field, and for an engine that was
        asked for by name and is not the server's own. Whether the server enforces each keyword of a schema is
        asked before, in ``ConstrainedOutput.prepare``.
        """
        if constraint is None:
            return {}
        if constraint.kind not in self.kinds:
            raise UnsupportedFeature(
                f"constrained output of kind {constraint.kind}", self.name, reason="the server has no field for it"
            )
        return self.write(constraint)


def _response_format(constraint: Constraint) -> dict[str, Any]:
    form = {"name": SCHEMA_NAME, "schema": constraint.value, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def _anthropic(constraint: Constraint) -> dict[str, Any]:
    return {"output_config": {"format": {"type": "json_schema", "schema": constraint.value}}}


def _ollama(constraint: Constraint) -> dict[str, Any]:
    return {"format": constraint.value}


def _llama_cpp(constraint: Constraint) -> dict[str, Any]:
    if constraint.kind == "json_schema":
        return {"json_schema": constraint.value}
    return {"grammar": to_gbnf_choice(constraint.value) if constraint.kind == "choice" else constraint.value}


def _vllm(constraint: Constraint) -> dict[str, Any]:
    field = "json" if constraint.kind == "json_schema" else constraint.kind
    value = list(constraint.value) if constraint.kind == "choice" else constraint.value
    return {"structured_outputs": {field: value}}


JSON_ALONE = frozenset({"json_schema"})
DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("vllm", frozenset({"json_schema", "choice", "regex", "grammar"}), "vllm", _vllm),
        Dialect("llama.cpp", frozenset({"json_schema", "choice", "grammar"}), "llama.cpp-gbnf", _llama_cpp),
        Dialect("ollama", JSON_ALONE, "ollama", _ollama, keeps_order=False),
        Dialect("openai", JSON_ALONE, "openai-strict", _response_format),
        Dialect("openai-compatible", JSON_ALONE, "openai-compatible", _response_format),
        Dialect("anthropic", JSON_ALONE, "anthropic-strict", _anthropic),
    )
}


def dialect_of(name: str, version: str | None = None) -> Dialect:
    """The dialect of a server, at a version where that matters (``vllm``; None: taken for a new one).

    ``openai`` is OpenAI's own service with its strict rules, ``openai-compatible`` any other server with that route.
    Raises :class:`~osport.errors.UsageError` for an unknown name, :class:`~osport.errors.UnsupportedFeature` for a
    version that drops constraints without a word.
    """
    if name not in DIALECTS:
        raise UsageError(f"dialect={name!r}: one of {', '.join(sorted(DIALECTS))}")
    if name == "vllm" and version is not None and numbers(version) < VLLM_SINCE:
        wanted = ".".join(map(str, VLLM_SINCE))
        raise UnsupportedFeature(
            "constrained output", f"vllm {version}", reason=f"it knows the field by other names; {wanted} is the oldest"
        )
    return DIALECTS[name]


def fields_for(constraint: Constraint | None, dialect: str, *, version: str | None = None) -> dict[str, Any]:
    """The top-level fields of the request body by which a server is asked for a constraint.

    See :func:`dialect_of` for the names, :meth:`Dialect.fields` for the errors.
    """
    return dialect_of(dialect, version).fields(constraint) if constraint is not None else {}


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: ``0.12.1rc2+cu`` is ``(0, 12, 1)``."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version.lstrip("v"))[0]))

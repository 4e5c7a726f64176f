"""One constraint as the fields that each server takes, by its version; a name that it would ignore is never sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from osport.constrained.dialects import to_gbnf_choice, to_llguidance
from osport.core.types import Constraint
from osport.errors import UnsupportedFeature, UsageError

__all__ = ["DIALECTS", "Dialect", "dialect_of", "fields_for"]

# The name that OpenAI's form wants for a schema; it means nothing to the constraint.
SCHEMA_NAME = "answer"
VLLM_SINCE = (0, 12)
VLLM_XGRAMMAR = "vllm-xgrammar"


@frozen
class Dialect:
    """How one server takes constraints.

    ``kinds``: the kinds of constraint that it has a field for, for ``Capabilities.constraints``. ``engine``: the
    name under which osport knows what it enforces of a JSON Schema, for ``Capabilities.constraint_engine``.
    ``engines``: all that may be asked for by name, for ``Capabilities.constraint_engines``.
    ``keeps_order``: whether properties come in the schema's order; else they come in alphabetical order.
    """

    name: str
    kinds: frozenset[str]
    engine: str
    write: Callable[[Constraint], dict[str, Any]]
    others: frozenset[str] = frozenset()
    keeps_order: bool = True

    @property
    def engines(self) -> frozenset[str]:
        """The engine of its own choice and the others."""
        return self.others | {self.engine}

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
        if constraint.engine is not None and constraint.engine not in self.engines:
            has = ", ".join(sorted(self.engines))
            raise UnsupportedFeature(f"the engine {constraint.engine}", self.name, reason=f"it has {has}")
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
    """As llguidance's own text, or, where xgrammar was asked for, as a schema.

    vLLM offers every constraint to xgrammar first, which drops keywords without a word. It does not read a text that
    begins with %llguidance, so vLLM goes on to llguidance; one that was started with another engine alone answers
    400. Seen in vLLM 0.32.
    """
    if constraint.engine != VLLM_XGRAMMAR:
        return {"structured_outputs": {"grammar": to_llguidance(constraint)}}
    if constraint.kind == "json_schema":
        return {"structured_outputs": {"json": opened(constraint.value)}}
    if constraint.kind == "choice":
        return {"structured_outputs": {"choice": list(constraint.value)}}
    raise UnsupportedFeature(f"constrained output of kind {constraint.kind}", VLLM_XGRAMMAR)


def opened(node: Any) -> Any:
    """The schema with each object open in words, where it is open by leaving them out: vLLM would close it."""
    if isinstance(node, list):
        return [opened(item) for item in node]
    if not isinstance(node, dict):
        return node
    new = {word: value if word in ("enum", "const") else opened(value) for word, value in node.items()}
    open_object = node.get("type") == "object" or ("properties" in node and isinstance(node["properties"], dict))
    return {**new, "additionalProperties": True} if open_object and "additionalProperties" not in node else new


JSON_ALONE = frozenset({"json_schema"})
DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "vllm",
            frozenset({"json_schema", "choice", "regex", "grammar", "tools"}),
            "llguidance",
            _vllm,
            others=frozenset({VLLM_XGRAMMAR}),
        ),
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

"""A constraint as the llama.cpp server takes it, and the label of an answer made under it."""

from __future__ import annotations

from typing import Any

from osport.backends._embedded_server import engine_name
from osport.constrained.dialects import to_gbnf_choice, to_llguidance
from osport.core.types import Constraint, Enforcement
from osport.errors import UnsupportedFeature, UsageError

__all__ = ["constraint_fields", "enforcement_of"]

LLGUIDANCE_MARK = "%llguidance"


def constraint_fields(constraint: Constraint | None, *, embedded: bool) -> dict[str, Any]:
    """The fields of the request body.

    The embedded engine has llguidance inside and answers a text that it cannot compile with 200 and
    free text, so the text is compiled here first. A server of unknown build never sees llguidance's
    dialect: a build without it ends on the spot.
    """
    if constraint is None:
        return {}
    if constraint.kind == "grammar":
        if LLGUIDANCE_MARK in constraint.value:
            raise UsageError("a grammar is GBNF text; it may not hold %llguidance")
        return {"grammar": constraint.value}
    if embedded:
        return {"grammar": to_llguidance(constraint)}
    if constraint.kind == "json_schema":
        return {"json_schema": constraint.value}
    if constraint.kind == "choice":
        return {"grammar": to_gbnf_choice(constraint.value)}
    raise UnsupportedFeature(
        f"constrained output of kind {constraint.kind}", "llama_server", reason="a server by URL has no engine for it"
    )


def enforcement_of(constraint: Constraint | None, *, embedded: bool) -> Enforcement:
    """Who enforced the form; whether it holds is verified by who asked for it."""
    if constraint is None:
        return Enforcement()
    if not embedded:
        return Enforcement("server", "llama.cpp-gbnf")
    engine = "llama.cpp-gbnf" if constraint.kind == "grammar" else "llguidance"
    return Enforcement("sampling", f"{engine} in {engine_name()}")

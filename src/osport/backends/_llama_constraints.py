"""A constraint as the llama.cpp server takes it, and the label of an answer made under it."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from osport.backends._gguf_model import GgufModel
from osport.constrained.dialects import to_gbnf_choice, to_llguidance
from osport.constrained.thoughts import compiled_behind_thought
from osport.core.capabilities import THINKING_FIRST
from osport.core.thought import Thought
from osport.core.types import Constraint, ConstraintKind, Enforcement, Request
from osport.errors import UnsupportedFeature, UsageError

__all__ = [
    "GBNF",
    "checked_gbnf",
    "compiled",
    "constraint_fields",
    "enforcement_of",
    "refuse_stop_strings",
    "with_ends",
]

GBNF = "llama.cpp-gbnf"
"""llama.cpp's own grammar engine, as ``Constraint.engine`` names it."""
LLGUIDANCE_MARK = "%llguidance"


def constraint_fields(
    constraint: Constraint | None, *, model: GgufModel | None, thought: Thought | None = None
) -> dict[str, Any]:
    """The fields of the request body. ``model``: that of the embedded engine; ``thought``: what the form holds behind.

    The embedded engine has llguidance inside and answers a text that it cannot compile with 200 and
    free text, so the text is compiled here first. A server of unknown build never sees llguidance's
    dialect: a build without it ends on the spot.
    """
    if constraint is None:
        return {}
    native = model is None or constraint.engine == GBNF
    if thought is not None:
        if model is None or native:
            raise UnsupportedFeature(THINKING_FIRST, GBNF, alternatives=("engine='llguidance'",))
        text = compiled_behind_thought(compiled(constraint), thought, model.user_defined)
        return {"grammar": with_ends(text, model.ends, renames=True)}
    if constraint.kind == "grammar" and constraint.engine in (None, GBNF):
        return {"grammar": checked_gbnf(constraint.value)}
    if model is not None and not native:
        return {"grammar": with_ends(compiled(constraint), model.ends, renames=constraint.kind != "grammar")}
    if constraint.kind == "json_schema":
        return {"json_schema": constraint.value}
    if constraint.kind == "choice":
        return {"grammar": to_gbnf_choice(constraint.value)}
    raise UnsupportedFeature(
        f"constrained output of kind {constraint.kind}", "llama_server", reason="llama.cpp itself has no engine for it"
    )


def compiled(constraint: Constraint) -> str:
    """The constraint as a text that llguidance was seen to compile; a form asked for again costs nothing."""
    return _compiled(constraint.kind, constraint.text)


@functools.lru_cache(maxsize=128)
def _compiled(kind: ConstraintKind, value: str) -> str:
    # JSON keeps the order of the properties, which is the order of the answer.
    return to_llguidance(Constraint(kind, json.loads(value)))


def with_ends(lark: str, ends: tuple[int, ...], *, renames: bool) -> str:
    """The form, behind which any of the tokens may come that end an answer.

    llama.cpp tells llguidance of one such token, and for some models of the wrong one: a form that may go on, such as
    free text, would then never end. ``renames``: whether the rule ``start`` is named once in the text.
    """
    if not ends or not (renames or len(re.findall(r"\bstart\b", lark)) == 1):
        return lark
    any_end = " | ".join(f"<[{end}]>" for end in ends)
    whole = re.sub(r"^start:", "whole_answer:", lark, count=1, flags=re.MULTILINE)
    return f"{whole.rstrip()}\nstart: whole_answer ({any_end})?\n"


def checked_gbnf(text: str) -> str:
    """A grammar that llama.cpp will treat as one: an empty text constrains nothing and is not an error to it."""
    if LLGUIDANCE_MARK in text:
        raise UsageError("a grammar is GBNF text; it may not hold %llguidance")
    if not text.strip():
        raise UsageError("the GBNF grammar is empty, which would constrain nothing")
    return text


def refuse_stop_strings(request: Request) -> None:
    """A stop string inside a constrained answer cuts it, and the engine calls that a regular end."""
    if request.constraint is not None and request.sampling.stop:
        raise UsageError(f"stop={request.sampling.stop!r} could cut the constrained answer; leave one of the two out")


def enforcement_of(constraint: Constraint | None, *, engine: str, thought: Thought | None = None) -> Enforcement:
    """Who enforced the form. ``engine``: the embedded one, empty for a server of unknown build; ``thought``: what the
    form held behind, which llguidance alone makes possible.

    Whether the form holds is verified by who asked for it.
    """
    if constraint is None:
        return Enforcement()
    if not engine:
        return Enforcement("server", GBNF)
    chosen = constraint.engine == GBNF or (constraint.kind == "grammar" and constraint.engine is None)
    native = chosen and thought is None
    how = GBNF if native else "llguidance"
    return Enforcement("sampling", f"{how} in {engine}")

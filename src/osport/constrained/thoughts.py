"""A form behind a free thought, as llguidance's Lark text: the only engine here that can put one before the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from osport.constrained.dialects import ENGINE, HEADER, refusal_of
from osport.constrained.tools import regex_of
from osport.core.capabilities import THINKING_FIRST
from osport.core.thought import Thought
from osport.errors import UnsupportedFeature

__all__ = ["behind_thought", "compiled_behind_thought"]

NO_CONTROLS: Mapping[str, int] = MappingProxyType({})
ANYTHING = r"/(.|\n)*/"


def behind_thought(form: str, thought: Thought, controls: Mapping[str, int] = NO_CONTROLS) -> str:
    """The Lark text of a form, with the thought before it.

    ``controls``: the control tokens of the model by their names; a mark among them is that one token and no text.
    Raises :class:`~osport.errors.UnsupportedFeature` for a thought of which nobody knows how it ends.
    """
    if not thought.closing:
        raise UnsupportedFeature(
            THINKING_FIRST,
            ENGINE,
            reason="the model's chat template does not tell by which mark its reasoning ends; send thinking=False, or "
            "put a field for the reasoning first",
        )
    opening = symbol(thought.opening, controls) if thought.opening else ""
    closing = symbol(thought.closing, controls)
    within = "" if thought.budget is None else f"max_tokens={thought.budget}"
    cut = f"cut[{within}]: {ANYTHING}" if within else f"cut: {ANYTHING}"
    if thought.closing in controls:
        lines = [f"thought: cut {closing}", cut]
    else:
        # Lazy, so that the first closing mark ends the thought, in whatever tokens it is written.
        options = f"lazy,{within}" if within else "lazy"
        closed = f"closed[{options}]: /(.|\\n)*{regex_of(thought.closing)}/"
        # When the budget is spent, llguidance ends the lexeme that it met first, complete or not: so the one that
        # the closing mark must follow comes before the other.
        lines = [f"thought: cut {closing} | closed", cut, closed] if within else ["thought: closed", closed]
    lines += [r'gap: "\n"? "\n"?', f"form: %lark {{\n{form}\n}}"]
    return f"{HEADER}start: {opening} thought gap form\n" + "\n".join(lines) + "\n"


def compiled_behind_thought(form: str, thought: Thought) -> str:
    """:func:`behind_thought` for marks that are text, seen to compile, because a server would drop a text with a fault.

    Raises :class:`~osport.errors.UnsupportedFeature` for one that does not.
    """
    text = behind_thought(form, thought)
    if refusal := refusal_of(text):
        raise UnsupportedFeature(THINKING_FIRST, ENGINE, reason=refusal)
    return text


def symbol(mark: str, controls: Mapping[str, int]) -> str:
    """A mark as the grammar writes it."""
    return f"<[{controls[mark]}]>" if mark in controls else json.dumps(mark)

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

NO_TOKENS: Mapping[str, int] = MappingProxyType({})


def behind_thought(form: str, thought: Thought, tokens: Mapping[str, int] = NO_TOKENS) -> str:
    """The Lark text of a form, with the thought before it.

    ``tokens``: the marks that are one token of the model. Where a mark must come, that token must, and no other
    spelling, which the model has never seen; for a control token there is no other.
    Raises :class:`~osport.errors.UnsupportedFeature` for a thought of which nobody knows how it ends.
    """
    if not thought.closing:
        raise UnsupportedFeature(
            THINKING_FIRST,
            ENGINE,
            reason="the model's chat template does not tell by which mark its reasoning ends; send thinking=False, or "
            "put a field for the reasoning first",
        )
    opening = symbol(thought.opening, tokens) if thought.opening else ""
    limit = "" if thought.budget is None else f"max_tokens={thought.budget}"
    # When the budget is spent, llguidance ends the lexeme that it met first, complete or not: so the one that the
    # closing mark must follow comes before the other. That one is lazy, so that the first closing mark ends the
    # thought, in whatever tokens it is written.
    lines = [
        f"start: {opening} (cut {symbol(thought.closing, tokens)} | closed) gap form",
        rf"cut{f'[{limit}]' if limit else ''}: /(.|\n)*/",
        rf"closed[lazy{f',{limit}' if limit else ''}]: /(.|\n)*{regex_of(thought.closing)}/",
        r'gap: "\n"? "\n"?',
        f"form: %lark {{\n{form}\n}}",
    ]
    return HEADER + "\n".join(lines) + "\n"


def compiled_behind_thought(form: str, thought: Thought, tokens: Mapping[str, int]) -> str:
    """:func:`behind_thought`, seen to compile, because a server would drop a text with a fault.

    Raises :class:`~osport.errors.UnsupportedFeature` for one that does not.
    """
    # Without the model's vocabulary no token has a number: seen is the same text with the marks spelt out.
    if refusal := refusal_of(behind_thought(form, thought)):
        raise UnsupportedFeature(THINKING_FIRST, ENGINE, reason=refusal)
    return behind_thought(form, thought, tokens)


def symbol(mark: str, tokens: Mapping[str, int]) -> str:
    """A mark as the grammar writes it."""
    return f"<[{tokens[mark]}]>" if mark in tokens else json.dumps(mark)

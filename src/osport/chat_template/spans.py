"""Which characters of a prompt came from which part of the request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from osport.chat_template.planting import Part, plant
from osport.chat_template.strings import any_of
from osport.errors import TemplateError

__all__ = ["Span", "find_spans"]

Write = Callable[[list[dict[str, Any]], list[dict[str, Any]] | None], str]


@frozen
class Span:
    """Characters ``start`` to ``stop`` of the prompt come from ``part`` (``messages[0].content``)."""

    start: int
    stop: int
    part: str

    def occurrences(self, text: str, words: frozenset[str]) -> Iterator[tuple[int, int]]:
        """Where one of the words stands inside this span."""
        for match in any_of(words).finditer(text[self.start : self.stop]):
            yield self.start + match.start(), self.start + match.end()


def find_spans(
    write: Write,
    text: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
) -> tuple[Span, ...]:
    """Render again with a mark before and behind every part, and see where the marks come out.

    Where marks change what the template prints (it trims, or looks at how a text begins), parts are looked
    for by their text, in the order of the marked prompt; a part that is not found has no span.
    """
    planted, planted_tools, parts = plant(messages, tools, telltale=False)
    try:
        marked = write(planted, planted_tools)
    except TemplateError:
        marked = ""
    marks = {part.first: (part, True) for part in parts if part.last} | {
        part.last: (part, False) for part in parts if part.last
    }
    names = {f"_{part.first}": part for part in parts if not part.last}
    pattern = any_of(frozenset({*marks, *names}))
    clean, done, open_at, spans = "", 0, {}, []
    for match in pattern.finditer(marked):
        clean += marked[done : match.start()]
        done = match.end()
        if name := names.get(match.group()):
            if form := next((form for form in _forms(name.text) if clean.endswith(form)), ""):
                spans.append(Span(len(clean) - len(form), len(clean), name.path))
            continue
        part, opens = marks[match.group()]
        if opens:
            open_at[part.path] = len(clean)
        elif part.path in open_at:
            spans.append(Span(open_at.pop(part.path), len(clean), part.path))
    clean += marked[done:]
    return tuple(spans) if clean == text else _by_text(text, parts, [span.part for span in spans])


def _by_text(text: str, parts: list[Part], order: list[str]) -> tuple[Span, ...]:
    by_path = {part.path: part for part in parts}
    spans, reach = [], 0
    for path in order or [part.path for part in parts if part.last]:
        if not (wanted := by_path[path].text.strip()) or not by_path[path].last:
            continue
        at, wanted = next(((at, form) for form in _forms(wanted) if (at := text.find(form, reach)) >= 0), (-1, ""))
        if at >= 0:
            spans.append(Span(at, at + len(wanted), path))
            reach = at + len(wanted)
    return tuple(spans)


def _forms(text: str) -> tuple[str, ...]:
    """A text as it is, and as it stands inside a JSON string."""
    return text, json.dumps(text, ensure_ascii=False)[1:-1]

"""Token ids of a rendered prompt, by the tokenizer that lies beside the template."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from osport.chat_template.spans import Span
from osport.errors import TemplateError

__all__ = ["encode"]


@functools.lru_cache(maxsize=16)
def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer  # comes with transformers

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise TemplateError(f"{path} is not a tokenizer that can be read: {error}") from error


def encode(path: Path, control: frozenset[str], text: str, spans: tuple[Span, ...]) -> tuple[int, ...]:
    """Token ids; control tokens inside a span become plain text, as transformers' sanitising does it."""
    tokenizer = _tokenizer(path)
    ids: list[int] = []
    done = 0
    for span in sorted(spans, key=lambda span: span.start):
        for start, stop in span.occurrences(text, control):
            if start >= done:
                ids += tokenizer.encode(text[done:start], add_special_tokens=False).ids
                tokenizer.encode_special_tokens = True
                ids += tokenizer.encode(text[start:stop], add_special_tokens=False).ids
                tokenizer.encode_special_tokens = False
                done = stop
    ids += tokenizer.encode(text[done:], add_special_tokens=False).ids
    return tuple(ids)

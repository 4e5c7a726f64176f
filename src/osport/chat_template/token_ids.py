"""Token ids of a rendered prompt, by the tokenizer that lies beside the template or in the same GGUF file."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from osport.chat_template.spans import Span
from osport.errors import TemplateError
from osport.formats.gguf import GgufArray, GgufHeader

__all__ = ["encode"]

Neutral = Callable[[frozenset[str]], str | None]


@functools.lru_cache(maxsize=16)
def _tokenizer(path: Path) -> Any:
    """The tokenizer, or None for a vocabulary in a GGUF file that transformers cannot rebuild."""
    if path.suffix == ".json":
        from tokenizers import Tokenizer  # comes with transformers

        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:
            raise TemplateError(f"{path} is not a tokenizer that can be read: {error}") from error
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping as rebuilt
    except ImportError:  # older transformers need torch to rebuild one
        return None
    # transformers' own reader of the file needs torch, too.
    header = GgufHeader.read(path)
    vocabulary = {
        name: value.values() if isinstance(value, GgufArray) else value
        for key, name in rebuilt.GGUF_TOKENIZER_MAPPING["tokenizer"].items()
        if (value := header.metadata.get(f"tokenizer.{key}")) is not None
    }
    try:
        return rebuilt.convert_gguf_tokenizer(header.architecture, vocabulary)[0]
    except Exception:  # noqa: BLE001 - vocabularies it does not know fail in many ways
        return None


@functools.lru_cache(maxsize=16)
def _special(path: Path) -> frozenset[str]:
    return frozenset(token.content for token in _tokenizer(path).get_added_tokens_decoder().values() if token.special)


def encode(
    path: Path, control: frozenset[str], neutral: Neutral, text: str, spans: tuple[Span, ...]
) -> tuple[int, ...] | None:
    """Token ids; control tokens inside a span become plain text, as transformers' sanitising does it.

    ``neutral`` renders the same request with these words taken out of what the caller wrote, or gives None when
    there are none. Raises :class:`~osport.errors.TemplateError` when such a word came out where no span shows it.
    """
    tokenizer = _tokenizer(path)
    if tokenizer is None:
        return None
    control |= _special(path)
    forged = [place for span in spans for place in span.occurrences(text, control)]
    if (own := neutral(control)) is not None:
        left = Counter(_tokens(text, control)) - Counter(text[start:stop] for start, stop in forged)
        for token in left - Counter(_tokens(own, control)):
            raise TemplateError(
                f"the request holds the control token {token}, and the template writes it in a form in which it "
                "cannot be told from its own; remove it from the text"
            )
    ids: list[int] = []
    done = 0
    for start, stop in sorted(forged):
        if start >= done:
            ids += tokenizer.encode(text[done:start], add_special_tokens=False).ids
            tokenizer.encode_special_tokens = True
            ids += tokenizer.encode(text[start:stop], add_special_tokens=False).ids
            tokenizer.encode_special_tokens = False
            done = stop
    ids += tokenizer.encode(text[done:], add_special_tokens=False).ids
    return tuple(ids)


def _tokens(text: str, control: frozenset[str]) -> list[str]:
    return [text[start:stop] for start, stop in Span(0, len(text), "").occurrences(text, control)]

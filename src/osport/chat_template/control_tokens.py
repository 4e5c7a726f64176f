"""Control tokens in text: which belong to this template, and which to another."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from osport.chat_template import renderer
from osport.data import load

if TYPE_CHECKING:
    from osport.chat_template.template import ChatTemplate

__all__ = ["find_tokens", "own_tokens", "without_code"]

FENCE = re.compile(r"(?ms)^(?P<fence>```+|~~~+).*?(?:^(?P=fence)|\Z)|`[^`\n]+`")


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    data = load("control_tokens.toml")
    # A token glued to a letter or digit in front is part of a word: array[INST] is code.
    certain = "|".join([*data["shapes"], *(re.escape(word) for word in data["words"])])
    doubtful = "|".join(re.escape(word) for word in data["ambiguous"])
    return re.compile(rf"(?:(?<![A-Za-z0-9_$)\]])|(?<=<|>)|(?=<))(?:{certain})"), re.compile(doubtful)


def without_code(text: str) -> str:
    """The text with code between fences and backticks blanked out; positions stay the same."""
    return FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def find_tokens(text: str) -> Iterator[tuple[int, str]]:
    """(position, token) of everything in a text that looks like a control token; code is left alone."""
    certain, doubtful = _patterns()
    prose = without_code(text)
    found = [(match.start(), match.group()) for match in certain.finditer(prose)]
    if found or (re.match(r"\s*<s>", prose) and prose.rstrip().endswith("</s>") and prose.count("<s>") == 1):
        found += [(match.start(), match.group()) for match in doubtful.finditer(prose)]
    yield from sorted(found)


def own_tokens(template: ChatTemplate) -> frozenset[str]:
    """The control tokens that this template writes, those of its tokenizer included."""
    return _own(template.text) | {token for token in template.tokens.values() if len(token) > 1}


@functools.lru_cache(maxsize=256)
def _own(source: str) -> frozenset[str]:
    certain, doubtful = _patterns()
    from osport.chat_template.families import family_of

    literals = renderer.literals(source)
    found = set(certain.findall(literals)) | set(doubtful.findall(literals))
    family = family_of(source)
    return frozenset(found | set(family.stop if family else ()))

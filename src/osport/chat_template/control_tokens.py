"""Control tokens in text: which belong to this template, and which to another."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from osport.chat_template import renderer
from osport.data import load

if TYPE_CHECKING:
    from osport.chat_template.template import ChatTemplate

__all__ = ["find_tokens", "own_tokens", "without_code"]

FENCE = re.compile(r"(?ms)^(?P<fence>```+|~~~+).*?(?:^(?P=fence)|\Z)|`[^`\n]+`")


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What is a control token wherever it stands, and what may be ordinary text."""
    data = load("control_tokens.toml")
    # A token glued to a letter or digit in front is part of a word: array[INST] is code.
    certain = "|".join([*data["shapes"], _any(data["words"])])
    doubtful = _any([*data["ambiguous"], *data["placeholder"]])
    return re.compile(rf"(?:(?<![A-Za-z0-9_$)\]])|(?<=<|>)|(?=<))(?:{certain})"), re.compile(doubtful)


@functools.cache
def _in_text() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Tags of families, placeholders, and the lines in which those are meant as such."""
    data = load("control_tokens.toml")
    return re.compile(_any(data["tags"])), re.compile(_any(data["placeholder"])), re.compile(data["usage"])


def _any(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, words))


def without_code(text: str) -> str:
    """The text with code between fences and backticks blanked out; positions stay the same."""
    return FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def find_tokens(text: str) -> Iterator[tuple[int, str]]:
    """(position, token) of everything in a text that looks like a control token; code is left alone."""
    certain, doubtful = _patterns()
    tags, placeholder, usage = _in_text()
    prose = without_code(text)
    found = [(match.start(), match.group()) for match in certain.finditer(prose)]
    if found or (re.match(r"\s*<s>", prose) and prose.rstrip().endswith("</s>") and prose.count("<s>") == 1):
        found += [(match.start(), match.group()) for match in doubtful.finditer(prose)]
    else:
        for match in placeholder.finditer(prose):
            line = prose[prose.rfind("\n", 0, match.start()) + 1 :].partition("\n")[0]
            if not usage.search(line):
                found.append((match.start(), match.group()))
    found += [(match.start(), match.group()) for match in tags.finditer(prose)]
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

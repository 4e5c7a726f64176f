"""Recognising a licence by its text: passages are hashed, so that the texts themselves need not be shipped.

A passage is a sentence or a list item, reduced to its words. Line breaks, quotes, case, punctuation and lines that
only name a copyright holder make no difference; one changed number does.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping

from attrs import frozen

from osport.errors import FormatError
from osport.licenses.terms import Terms, Text, licences

__all__ = ["TextMatch", "digest", "identify_text", "passages", "words_of"]

NEAR = 0.6
# From here on a text is that of the known licence rather than of one that was never read.
_SURELY_THIS = 0.9
_BREAK = re.compile(r"\n[ \t]*\n|(?<=[.;:!?])[\"”’')\]]*\s+|\n\s*(?=[-*•·]\s)")
# A line that names a holder of copyright and says no more; one with a word of permission or limit is a clause.
_HOLDER = re.compile(
    r"^(?!.*\b(?:non|not|no|only|must|shall|may|except|provided|prohibit\w*|restrict\w*|commercial\w*|use[ds]?)\b)"
    r"\W*(?:(?:all content )?copyright\s*(?:\(c\)|©|[\[{<]|\d{4}).{0,120}|all rights reserved\W*)$",
    re.IGNORECASE | re.MULTILINE,
)
_WORD = re.compile(r"[^\W_]+(?:\.\d+)*")
_ENUMERATOR = re.compile(r"^([ivxlc]+|[a-z]|\d+(\.\d+)*)$")
_MOST = 4_000_000


@frozen
class TextMatch:
    """What a text was found to be.

    ``how``: ``exact`` (every passage, in order), ``near`` (most passages; ``missing`` counts the known ones that are
    not there, ``added`` shows those that are not known), ``mark`` (a heading of a licence whose text osport has never
    read in full), ``none``. ``licences`` are the keys that fit.
    """

    how: str
    licences: tuple[str, ...] = ()
    text_name: str = ""
    coverage: float = 0.0
    missing: tuple[int, ...] = ()
    total: int = 0
    added: tuple[str, ...] = ()
    source: str = ""

    @property
    def difference(self) -> str:
        """In words, what differs from the known text."""
        parts = []
        if self.missing:
            shown = ", ".join(str(number) for number in self.missing[:8]) + (" ..." if len(self.missing) > 8 else "")
            parts.append(f"{len(self.missing)} of its {self.total} passages are not there word for word (no. {shown})")
        if self.added:
            shown = "; ".join(f"“{text}”" for text in self.added[:4])
            rest = f" and {len(self.added) - 4} more" if len(self.added) > 4 else ""
            parts.append(f"passages that it does not have: {shown}{rest}")
        return "; ".join(parts) or "the passages stand in another order"


def digest(words: str) -> str:
    """The hash of a passage that :func:`passages` returned, or of :func:`words_of` (40 bits, hexadecimal)."""
    return hashlib.blake2b(words.encode(), digest_size=5).hexdigest()


def passages(text: str) -> list[str]:
    """The passages of a text, reduced to lower-case words; mere enumerators are left out."""
    return [reduced for reduced, _ in _split(text)]


def words_of(text: str, headings: Iterable[str] = ()) -> str:
    """All words of a text but those of copyright lines and of one of ``headings`` at its beginning."""
    flat = _flat(_HOLDER.sub("", _unix(text)))
    for heading in sorted((_flat(heading) for heading in headings), key=len, reverse=True):
        if flat.startswith(heading + " "):
            return flat[len(heading) + 1 :]
    return flat


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _split(text: str) -> list[tuple[str, str]]:
    found = []
    for part in _BREAK.split(_HOLDER.sub("", _unix(text))):
        words = _WORD.findall(part.lower())
        if any(not _ENUMERATOR.match(word) for word in words):
            found.append((" ".join(words), " ".join(part.split())))
    return found


def checked_text(text: str | bytes, name: str) -> str:
    """The text as a string. Raises FormatError when it is empty, binary, or no licence could be as long."""
    if len(text) > _MOST:
        raise FormatError(f"{name}: {len(text)} characters is no licence text; give the LICENSE file")
    if isinstance(text, bytes):
        text = _decoded(text)
    odd = sum(1 for char in text if (char < " " and char not in "\t\n\r\f\v") or char == "\ufffd")
    if odd > len(text) / 200 or "\0" in text:
        raise FormatError(f"{name}: this is not text but binary data; give the LICENSE file as text")
    if not text.strip():
        raise FormatError(f"{name}: the licence text is empty; an empty file grants nothing, find the real one")
    return text


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        return text.decode("cp1252", "replace")


@functools.cache
def _known() -> tuple[tuple[Terms, Text, frozenset[str]], ...]:
    return tuple((terms, text, frozenset(text.passages)) for terms in licences().values() for text in terms.texts)


@functools.cache
def _wholes() -> Mapping[str, tuple[Terms, Text]]:
    return {text.whole: (terms, text) for terms, text, _ in _known()}


@functools.cache
def _headings() -> tuple[str, ...]:
    return tuple(heading for terms in licences().values() for heading in terms.headings)


@functools.cache
def _marks() -> Mapping[str, tuple[str, ...]]:
    return {terms.key: tuple(_flat(mark) for mark in terms.marks) for terms in licences().values() if terms.marks}


def _flat(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def identify_text(text: str | bytes, *, name: str = "the licence text") -> TextMatch:
    """Which known licence a text is, or is nearly. Raises FormatError for an empty or binary one."""
    text = checked_text(text, name)
    hit = _wholes().get(digest(words_of(text))) or _wholes().get(digest(words_of(text, _headings())))
    if hit is not None:
        terms, known = hit
        return TextMatch("exact", (terms.key,), known.name, 1.0, total=len(known.passages), source=known.source)
    near = _nearest(_split(text))
    flat = _flat(text)
    marked = tuple(key for key, marks in _marks().items() if all(mark in flat for mark in marks))
    unread = tuple(key for key in marked if not licences()[key].texts)
    if unread and (near is None or near.coverage < _SURELY_THIS):
        return TextMatch("mark", unread, source="its heading only")
    if near is not None:
        return near
    if marked:
        return TextMatch("near", marked[:1], "its heading", added=("a body that is not that of the known text",))
    return TextMatch("none")


def _nearest(parts: list[tuple[str, str]]) -> TextMatch | None:
    hashes = [digest(reduced) for reduced, _ in parts]
    given = frozenset(hashes)
    best: tuple[float, TextMatch] | None = None
    for terms, known, known_set in _known():
        shared = len(known_set & given)
        coverage = shared / len(known_set)
        score = 2 * shared / (len(known_set) + len(given))
        if coverage < NEAR or (best is not None and score <= best[0]):
            continue
        missing = tuple(number for number, passage in enumerate(known.passages, 1) if passage not in given)
        added = tuple(shown[:200] for (_, shown), hashed in zip(parts, hashes, strict=True) if hashed not in known_set)
        total = len(known.passages)
        best = (score, TextMatch("near", (terms.key,), known.name, coverage, missing, total, added, known.source))
    return best[1] if best else None

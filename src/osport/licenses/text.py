"""Recognising a licence by its text: passages are hashed, so that the texts themselves need not be shipped.

A passage is a sentence or a list item, reduced to its words. Line breaks, quotes, case, punctuation and lines that
only name a copyright holder make no difference; one changed number does.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping

from attrs import frozen

from osport.errors import FormatError
from osport.licenses.terms import Terms, licences

__all__ = ["TextMatch", "digest", "identify_text", "passages"]

NEAR = 0.6
_SHORTEST = 3
_BREAK = re.compile(r"\n[ \t]*\n|(?<=[.;:!?])[\"”’')\]]*\s+|\n\s*(?=[-*•·]\s)")
_HOLDER = re.compile(r"^\W*(?:all content )?copyright\s*(?:\(c\)|©|\[|\d{4}|<).*$", re.IGNORECASE | re.MULTILINE)
_WORD = re.compile(r"[^\W_]+(?:\.\d+)*")
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


def digest(passage: str) -> str:
    """The hash of one passage that :func:`passages` returned (40 bits, hexadecimal)."""
    return hashlib.blake2b(passage.encode(), digest_size=5).hexdigest()


def passages(text: str) -> list[str]:
    """The passages of a text, reduced to lower-case words; those of fewer than three words are left out."""
    return [reduced for reduced, _ in _split(text)]


def _split(text: str) -> list[tuple[str, str]]:
    text = _HOLDER.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    found = []
    for part in _BREAK.split(text):
        words = _WORD.findall(part.lower())
        if len(words) >= _SHORTEST:
            found.append((" ".join(words), " ".join(part.split())))
    return found


def checked_text(text: str | bytes, name: str) -> str:
    """The text as a string. Raises FormatError when it is empty, binary, or no licence could be as long."""
    if len(text) > _MOST:
        raise FormatError(f"{name}: {len(text)} characters is no licence text; give the LICENSE file")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = text.decode("cp1252", "replace")
    odd = sum(1 for char in text if char < " " and char not in "\t\n\r\f\v" or char == "\ufffd")
    if odd > len(text) / 200 or "\0" in text:
        raise FormatError(f"{name}: this is not text but binary data; give the LICENSE file as text")
    if not text.strip():
        raise FormatError(f"{name}: the licence text is empty; an empty file grants nothing, find the real one")
    return text


@functools.cache
def _known() -> tuple[tuple[Terms, str, tuple[str, ...], frozenset[str], str], ...]:
    return tuple(
        (terms, text.name, text.passages, frozenset(text.passages), text.source)
        for terms in licences().values()
        for text in terms.texts
    )


@functools.cache
def _marks() -> Mapping[str, tuple[str, ...]]:
    return {
        terms.key: tuple(_flat(mark) for mark in terms.marks) for terms in licences().values() if terms.marks
    }


def _flat(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def identify_text(text: str | bytes, *, name: str = "the licence text") -> TextMatch:
    """Which known licence a text is, or is nearly. Raises FormatError for an empty or binary one."""
    parts = _split(checked_text(text, name))
    hashes = tuple(digest(reduced) for reduced, _ in parts)
    given = frozenset(hashes)
    best: tuple[float, TextMatch] | None = None
    exact: list[TextMatch] = []
    for terms, text_name, known, known_set, source in _known():
        shared = len(known_set & given)
        if not shared:
            continue
        if hashes == known:
            exact.append(TextMatch("exact", (terms.key,), text_name, 1.0, total=len(known), source=source))
            continue
        coverage = shared / len(known_set)
        score = 2 * shared / (len(known_set) + len(given))
        if coverage >= NEAR and (best is None or score > best[0]):
            missing = tuple(number for number, passage in enumerate(known, 1) if passage not in given)
            added = tuple(shown[:200] for (_, shown), hashed in zip(parts, hashes, strict=True) if hashed not in known_set)
            best = (score, TextMatch("near", (terms.key,), text_name, coverage, missing, len(known), added, source))
    if exact:
        return exact[0]
    flat = _flat(checked_text(text, name))
    marked = tuple(key for key, marks in _marks().items() if all(mark in flat for mark in marks))
    read = {entry[0].key for entry in _known()}
    unread = tuple(key for key in marked if key not in read)
    if unread and (best is None or best[1].coverage < 0.9):
        return TextMatch("mark", unread, source="heading only")
    if best is not None:
        return best[1]
    if marked:
        return TextMatch("near", marked[:1], "its heading", 0.0, added=("the body is not that of the known text",))
    return TextMatch("none")

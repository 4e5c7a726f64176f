"""From what a model card says of its licence to the licences that are known."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from osport.errors import MissingDependency, UsageError
from osport.licenses.terms import licences

__all__ = ["AllOf", "AnyOf", "Expression", "Known", "Unclear", "by_link", "by_tag", "keys_of"]

_SAYS_NOTHING = frozenset({"", "other", "unknown", "none", "license", "proprietary", "custom", "see license", "n/a"})
# Likeness above which an unknown name is taken for a slip of the pen (0 to 1, difflib's ratio).
_MISSPELT = 0.88
_NUMBER = re.compile(r"\d+(?:[._]\d+)*")


@frozen
class Known:
    """A licence with terms."""

    key: str
    note: str = ""


@frozen
class Unclear:
    """Something that cannot be read as one licence: no terms, several texts under one name, or (``altered``) a text
    that differs from the one candidate, so that naming the candidate elsewhere settles nothing."""

    said: str
    why: str
    candidates: tuple[str, ...] = ()
    altered: bool = False


def _as_tuple(parts: Iterable[Expression]) -> tuple[Expression, ...]:
    return tuple(parts)


@frozen
class AllOf:
    """All of them apply (SPDX ``AND``)."""

    parts: tuple[Expression, ...] = field(converter=_as_tuple)


@frozen
class AnyOf:
    """One of them, at the licensee's choice (SPDX ``OR``)."""

    parts: tuple[Expression, ...] = field(converter=_as_tuple)


Expression = Known | Unclear | AllOf | AnyOf


def keys_of(expression: Expression) -> tuple[str, ...]:
    """The licences that an expression speaks of, candidates included."""
    if isinstance(expression, Known):
        return (expression.key,)
    if isinstance(expression, Unclear):
        return expression.candidates
    return tuple(dict.fromkeys(key for part in expression.parts for key in keys_of(part)))


@functools.cache
def _names() -> Mapping[str, tuple[str, ...]]:
    """Every name to the keys that go under it."""
    found: dict[str, list[str]] = {}
    for terms in licences().values():
        for name in terms.ids.tags:
            keys = found.setdefault(_flat(name), [])
            if terms.key not in keys:
                keys.append(terms.key)
        found.setdefault(_flat(terms.title), []).append(terms.key)
    return {name: tuple(dict.fromkeys(keys)) for name, keys in found.items()}


@functools.cache
def _own_keys() -> Mapping[str, tuple[str, ...]]:
    return {_flat(key): (key,) for key in licences()}


def _keys(said: str, *, own_first: bool) -> tuple[str, ...]:
    """The keys under a name. Where a key of osport's is also a tag of several texts, a card means the tag."""
    flat = _flat(said)
    first, second = (_own_keys(), _names()) if own_first else (_names(), _own_keys())
    return first.get(flat) or second.get(flat, ())


def _flat(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.strip().lower()).removesuffix("-license").removesuffix("-licence")


def by_tag(said: str, *, publisher: str = "", strict: bool = False) -> Expression | None:
    """What a licence field means: a hub tag, a ``license_name``, an SPDX expression, a ScanCode reference, a key.

    None when it says nothing (``other``). Several texts under one name are told apart by the publisher where that
    is enough. ``strict``: the caller's own word: osport's keys come first, and a misspelt
    name raises UsageError instead of being :class:`Unclear`.
    """
    if _flat(said) in _SAYS_NOTHING:
        return None
    keys = _keys(said, own_first=strict)
    if len(keys) == 1:
        return Known(keys[0])
    if keys:
        return _one_of(said, keys, publisher)
    expression = _spdx(said, strict)
    if expression is not None:
        return expression
    return _unknown(said)


def _one_of(said: str, keys: tuple[str, ...], publisher: str) -> Expression:
    theirs = tuple(
        key for key in keys if publisher.lower() in {name.lower() for name in licences()[key].ids.publishers}
    )
    if publisher and len(theirs) == 1:
        return Known(theirs[0], f"the one of these that {publisher} publishes under")
    titles = "; ".join(licences()[key].title for key in theirs or keys)
    why = f"{len(theirs or keys)} different texts or more go under this name ({titles}): show the text"
    return Unclear(said, why, theirs or keys)


def _unknown(said: str) -> Unclear:
    nearest = _other_version(said)
    if nearest:
        known = ", ".join(nearest)
        why = f"a version that the facts do not know; known is {known}, and versions differ in what they allow"
        return Unclear(said, why)
    return Unclear(said, "no licence of this name is known")


def _other_version(said: str) -> tuple[str, ...]:
    """Names that differ from ``said`` in their numbers only."""
    shape = _NUMBER.sub("#", _flat(said)).replace("-#", "#")
    if "#" not in shape:
        return ()
    alike = (name for name in _names() if _NUMBER.sub("#", name).replace("-#", "#") == shape)
    return tuple(dict.fromkeys(key for name in alike for key in _names()[name]))


def by_link(link: str) -> Expression | None:
    """The licence that a link leads to; None when the link is not known."""
    plain = re.sub(r"^https?://(www\.)?", "", link.strip().lower()).rstrip("/")
    hits = [
        terms.key
        for terms in licences().values()
        if any(
            plain == known or plain.startswith(known + "/")
            for known in (url.lower().rstrip("/") for url in terms.ids.links)
        )
    ]
    return (
        Known(hits[0])
        if len(hits) == 1
        else Unclear(link, "several licences are linked there", tuple(hits))
        if hits
        else None
    )


@functools.cache
def _licensing() -> Any:
    try:
        from license_expression import get_spdx_licensing  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependency("license-expression", "licenses") from error
    return get_spdx_licensing()


def _spdx(said: str, strict: bool) -> Expression | None:
    """Read an SPDX expression. Raises UsageError for one that is malformed or, when ``strict``, misspelt."""
    compound = re.search(r"\b(AND|OR|WITH)\b|[()]", said, re.IGNORECASE) is not None
    # A bare word on a card that is no known tag: only worth the library when it looks like an SPDX id.
    if not compound and not strict and not re.fullmatch(r"[A-Za-z0-9.+-]+", said.strip()):
        return None
    try:
        licensing = _licensing()
    except MissingDependency:
        if compound:
            raise
        return None
    from boolean import ParseError  # type: ignore[import-untyped]
    from license_expression import ExpressionError

    try:
        tree = licensing.parse(said, validate=False, strict=False)
    except (ExpressionError, ParseError) as error:
        if strict or compound:
            raise UsageError(f"license={said!r} is no SPDX expression: {error}") from error
        return None
    return None if tree is None else _translated(tree, strict, compound)


def _translated(tree: Any, strict: bool, compound: bool) -> Expression | None:
    from license_expression import LicenseWithExceptionSymbol

    kind = type(tree).__name__
    if kind in ("AND", "OR"):
        parts = [
            _translated(part, strict, True) or Unclear(str(part), "no licence of this name is known")
            for part in tree.args
        ]
        return AllOf(parts) if kind == "AND" else AnyOf(parts)
    if isinstance(tree, LicenseWithExceptionSymbol):
        inner = _symbol(str(tree.license_symbol), strict, True)
        exception = str(tree.exception_symbol)
        if isinstance(inner, Known):
            return Known(
                inner.key, f"with the exception {exception}, which was not read: the licence without it is applied"
            )
        return inner
    return _symbol(str(tree), strict, compound)


def _symbol(said: str, strict: bool, compound: bool) -> Expression | None:
    keys = _keys(said, own_first=strict)
    if len(keys) == 1:
        return Known(keys[0])
    if keys:
        return _one_of(said, keys, "")
    known = _licensing().known_symbols
    registered = {str(name).lower(): str(name) for name in known}
    if said.lower() in registered:
        return Unclear(said, "a registered SPDX id, but osport has no terms of this licence")
    if said.lower().startswith("licenseref-"):
        return Unclear(said, "a licence reference that the facts do not know")
    other = _other_version(said)
    if other:
        return _unknown(said)
    if strict or compound:
        names = {**{name: name for name in _names()}, **registered}
        close = difflib.get_close_matches(_flat(said), list(names), n=3, cutoff=_MISSPELT)
        if close:
            meant = " or ".join(dict.fromkeys(names[name] for name in close))
            raise UsageError(f"license={said!r}: no such licence is known; did you mean {meant}?")
    return None

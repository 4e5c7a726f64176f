"""Which licences apply to a model, its ancestors included, and how that is known."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attrs import evolve, field, frozen

from osport.errors import UsageError
from osport.licenses.card import Card, from_path, on_disk
from osport.licenses.catalogue import Catalogue
from osport.licenses.identify import Expression, Known, Unclear, by_link, by_tag, keys_of
from osport.licenses.terms import licences
from osport.licenses.text import identify_text
from osport.licenses.verdict import Evidence

__all__ = ["Node", "resolve"]

_DEEPEST = 32


@frozen
class Node:
    """A model with the licences that were found for it. ``found`` pairs each expression with its evidence.

    ``relation``: ``model``, ``base`` or ``teacher``. ``confirmed``: a text or a vendor's own file says so, or the
    caller did; without it, what was found is a claim.
    """

    name: str
    relation: str
    found: tuple[tuple[Evidence, Expression], ...] = ()
    confirmed: bool = False
    modality: str = ""
    ancestors: tuple[Node, ...] = field(default=())
    notes: tuple[str, ...] = ()

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """What applies to the model itself: everything that was found and is not said already by something else."""
        distinct: list[Expression] = []
        for _, expression in self.found:
            if not any(_says_more(other, expression) for other in distinct):
                distinct = [other for other in distinct if not _says_more(expression, other)] + [expression]
        return tuple(distinct)

    @property
    def conflict(self) -> bool:
        """Whether the sources disagree."""
        return len(self.expressions) > 1


def _says_more(first: Expression, second: Expression) -> bool:
    """Whether ``first`` makes ``second`` superfluous: the same, or one of its candidates, or built upon it."""
    if isinstance(first, Known) and isinstance(second, Known):
        return second.key in (first.key, licences()[first.key].base)
    if isinstance(first, Known) and isinstance(second, Unclear):
        return first.key in second.candidates and not second.altered
    return first == second


def resolve(card: Card, catalogue: Catalogue, *, teachers: Iterable[str] = (), given: str | None = None) -> Node:
    """Find the licences of a model and of its ancestors.

    Raises UsageError for a cycle among the base models, FormatError for a licence text that is none.
    """
    node = _node(card, "model", catalogue, (), given)
    taught = tuple(_ancestor(name, "teacher", catalogue, (), None) for name in teachers)
    return evolve(node, ancestors=(*node.ancestors, *taught))


def _node(card: Card, relation: str, catalogue: Catalogue, path: tuple[str, ...], given: str | None = None) -> Node:
    found: list[tuple[Evidence, Expression]] = []
    confirmed = False
    if given is not None:
        expression = by_tag(given, publisher=card.publisher, strict=True)
        if expression is None:
            expression = Unclear(given, "the name says nothing: give the licence itself or its text")
        found.append((_evidence("given", given, expression, "the caller"), expression))
        confirmed = True
    for name, text in card.texts:
        evidence, expression, exact = _from_text(name, text)
        found.append((evidence, expression))
        confirmed = confirmed or exact
    for kind, said in card.said:
        expression = _from_said(kind, said, card, catalogue)
        if expression is not None:
            found.append((_evidence(kind, said, expression, card.source), expression))
    match = catalogue.find(card.name) if card.name else None
    bases, modality = list(card.bases), ""
    own = [base for base in bases if _same(base, card.name)]
    if match is not None:
        entry, note = match.entry, match.entry.note
        modality = entry.modality
        keys = (entry.licence, *entry.also)
        if match.how in ("hint", "derivative"):
            bases.extend((entry.licence, *entry.bases))
            if not found:
                why = f"it looks like a derivative of a model under {entry.licence}, whose own licence is not known"
                found.append(
                    (Evidence("catalogue", card.name, keys, "unverified", entry.source, why), Unclear(card.name, why))
                )
        else:
            bases.extend(entry.bases)
            if match.how == "mirror":
                note = f"matched by name: a copy or conversion of {entry.patterns[0]}" + (f"; {note}" if note else "")
            verified = entry.verified if match.how == "name" else "unverified"
            for key in keys:
                expression = (
                    Known(key) if key in licences() else Unclear(key, "the facts have no terms of this licence")
                )
                found.append((Evidence("catalogue", card.name, (key,), verified, entry.source, note), expression))
            confirmed = confirmed or (entry.verified == "text" and match.how == "name") or entry.basis == "own entry"
    if own and not _is_local(card):
        raise UsageError(
            f"a cycle in the base models: {card.name} names itself ({own[0]}) as the model it was made from"
        )
    if not found:
        why = "nothing says what its licence is" if not card.name else _unknown_name(card.name)
        found.append((Evidence("none", card.name, (), note=why), Unclear(card.name or "the model", why)))
    here = (*path, str(card.folder.resolve()) if card.folder else card.name)
    ancestors = tuple(
        _ancestor(base, "base", catalogue, here, card.folder)
        for base in dict.fromkeys(bases)
        if not _same(base, card.name)
    )
    return Node(card.name or card.source, relation, tuple(found), confirmed, modality, ancestors, card.notes)


def _ancestor(name: str, relation: str, catalogue: Catalogue, path: tuple[str, ...], folder: Path | None) -> Node:
    for known in path:
        if _same(name, known):
            raise UsageError(f"a cycle in the base models: {' -> '.join((*path, name))}; mend the base_model fields")
    if len(path) > _DEEPEST:
        raise UsageError(f"more than {_DEEPEST} generations of base models: {' -> '.join(path[:3])} ...")
    local = None if folder is None else folder / name
    if local is not None and on_disk(local):
        place = str(local.resolve())
        if place in path:
            raise UsageError(f"a cycle in the base models: {' -> '.join((*path, place))}; mend the base_model fields")
        return _node(evolve(from_path(Path(place)), name=place), relation, catalogue, path)
    if ("/" not in name and catalogue.find(name) is None) or name in licences():
        expression = Known(name) if name in licences() else by_tag(name)
        if isinstance(expression, Known):
            evidence = _evidence("ancestor", name, expression, "the name of the ancestor")
            return Node(name, relation, ((evidence, expression),), name in licences())
    return _node(Card(name=name, source="the name of the ancestor"), relation, catalogue, path)


def _is_local(card: Card) -> bool:
    """A converted copy in a folder commonly names the original, which has its own name, as its base."""
    return card.folder is not None


def _same(first: str, second: str) -> bool:
    return bool(first) and first.strip("/").lower() == second.strip("/").lower()


def _unknown_name(name: str) -> str:
    return f"no entry of the catalogue fits {name!r} (a newer release, or an unknown one): show its licence text"


def _evidence(kind: str, said: str, expression: Expression, source: str) -> Evidence:
    note = (
        expression.why if isinstance(expression, Unclear) else expression.note if isinstance(expression, Known) else ""
    )
    return Evidence(kind, said, keys_of(expression), "", source, note)


def _from_said(kind: str, said: str, card: Card, catalogue: Catalogue) -> Expression | None:
    if kind != "license_link":
        return by_tag(said, publisher=card.publisher)
    expression = by_link(said)
    if expression is None and "huggingface.co/" in said:
        repository = "/".join(said.split("huggingface.co/", 1)[1].split("/")[:2])
        match = catalogue.find(repository)
        if match is not None and match.how == "name" and match.entry.licence in licences():
            return Known(match.entry.licence, f"the licence of {repository}")
    return expression


def _from_text(name: str, text: str | bytes) -> tuple[Evidence, Expression, bool]:
    match = identify_text(text, name=name)
    expression: Expression
    if match.how == "exact":
        expression = Known(match.licences[0])
        return (
            Evidence("text", name, match.licences, "text", match.source, f"word for word: {match.text_name}"),
            expression,
            True,
        )
    if match.how == "mark":
        expression = (
            Known(match.licences[0])
            if len(match.licences) == 1
            else Unclear(name, "the heading fits several texts", match.licences)
        )
        note = "recognised by its heading; the facts hold no full text to compare it with"
        return Evidence("text", name, match.licences, "unverified", match.source, note), expression, False
    if match.how == "near":
        titles = ", ".join(licences()[key].title for key in match.licences)
        why = f"nearly, but not quite, {titles}: {match.difference}"
        # What differs may be the very clause that decides, so the known terms are applied and nothing is cleared.
        return (
            Evidence("text", name, match.licences, "", match.source, why),
            Unclear(name, why, match.licences, altered=True),
            False,
        )
    why = "a text that is like none of the known licences"
    return Evidence("text", name, (), "", "", why), Unclear(name, why), False

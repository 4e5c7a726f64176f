"""``LicensePolicy``: an intended use held against the licence of a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from attrs import evolve

from osport.core.facts import ModelFacts
from osport.core.stage import Stage
from osport.errors import LicenseDenied, UsageError
from osport.licenses.card import Card, from_facts, from_path, looks_like_path
from osport.licenses.catalogue import Catalogue, Entry
from osport.licenses.combine import evidence_of, finding_of, licences_of
from osport.licenses.report import Comparison
from osport.licenses.resolve import Node, resolve
from osport.licenses.terms import facts_date
from osport.licenses.use import Use
from osport.licenses.verdict import Verdict

__all__ = ["LicensePolicy"]

Target = str | Path | ModelFacts


class LicensePolicy(Stage):
    """Answers, with the clause, whether a model's licence lets a use happen.

    ``models``: entries of one's own, looked at before the shipped catalogue. ``on_unknown``: what the gate does with
    a model whose licence cannot be told, ``deny`` or ``allow``; a refusal is a refusal either way.

    >>> use = Use(commercial=True, serving="product", monthly_active_users=2e6, seat="US")
    >>> LicensePolicy(use).check("meta-llama/Llama-3.3-70B-Instruct").outcome.value
    'allowed_with_obligations'
    """

    def __init__(
        self, use: Use, *, models: Iterable[Entry] = (), on_unknown: Literal["deny", "allow"] = "deny"
    ) -> None:
        if not isinstance(use, Use):
            raise UsageError(f"LicensePolicy takes a Use, not {type(use).__name__}")
        if on_unknown not in ("deny", "allow"):
            raise UsageError(f"on_unknown={on_unknown!r}: must be deny or allow")
        self.use = use
        self.on_unknown = on_unknown
        self.catalogue = Catalogue.with_own(models)
        self._nodes: dict[str, Node] = {}

    def check(
        self,
        model: Target | None = None,
        *,
        license: str | None = None,  # noqa: A002 - the word that everybody looks for
        text: str | bytes | None = None,
        base_models: str | Sequence[str] = (),
        teachers: str | Sequence[str] = (),
    ) -> Verdict:
        """Hold the use against a model.

        ``model``: a name (``publisher/name``, a bare name, an Ollama tag), a GGUF file, a folder as the hub serves
        it, or ``ModelFacts``. ``license``: a hub tag, an SPDX expression, a ScanCode reference, a GGUF value or
        osport's key. ``text``: the licence text. ``base_models``: what it was made from (adapters and merges too);
        ``teachers``: models whose outputs trained it.

        Raises UsageError for a misspelt licence, a cycle of base models or nothing to look at; FormatError for a
        file or text that is not what it should be.
        """
        if model is None and license is None and text is None:
            raise UsageError("nothing to check: give a model, license=... or text=...")
        if license is not None and (not isinstance(license, str) or not license.strip()):
            raise UsageError(f"license={license!r}: give a tag, an SPDX expression or a key")
        bases, taught = _names("base_models", base_models), _names("teachers", teachers)
        node = self._resolved(model, license, text, bases, taught)
        finding = finding_of(node, self.use)
        return Verdict(
            subject=_subject(model, license, node),
            outcome=finding.outcome,
            reasons=finding.reasons,
            obligations=finding.obligations,
            assumptions=finding.assumptions,
            licences=licences_of(node),
            evidence=evidence_of(node),
            facts_date=facts_date(),
        )

    def _resolved(
        self,
        model: Target | None,
        said: str | None,
        text: str | bytes | None,
        bases: tuple[str, ...],
        taught: tuple[str, ...],
    ) -> Node:
        plain = isinstance(model, str) and said is None and text is None and not bases and not taught
        if plain and model in self._nodes:
            return self._nodes[str(model)]
        card = _card(model)
        if text is not None:
            card = evolve(card, texts=(("the given text", text), *card.texts))
        card = evolve(card, bases=tuple(dict.fromkeys((*card.bases, *bases))))
        node = resolve(card, self.catalogue, teachers=taught, given=said)
        if plain and card.folder is None:
            self._nodes[str(model)] = node
        return node

    def compare(self, models: Iterable[Target]) -> Comparison:
        """A table of verdicts, mildest outcome and fewest obligations first; equals keep their order."""
        verdicts = [self.check(model) for model in models]
        return Comparison(
            tuple(sorted(verdicts, key=lambda verdict: (verdict.outcome.severity, len(verdict.obligations))))
        )

    def gate(self, facts: ModelFacts) -> None:
        """Stop a model before it is loaded. Raises LicenseDenied with the verdict."""
        verdict = self.check(facts)
        if verdict.outcome.denied or (not verdict.allowed and self.on_unknown == "deny"):
            why = verdict.deciding[0] if verdict.deciding else None
            raise LicenseDenied(
                f"{verdict.subject}: {verdict.outcome}" + (f": {why}" if why else ""),
                verdict,
            )


def _names(field: str, value: str | Sequence[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise UsageError(f"{field}: {name!r} is no name of a model or licence")
    return names


def _card(model: Target | None) -> Card:
    if model is None:
        return Card()
    if isinstance(model, ModelFacts):
        return from_facts(model)
    if isinstance(model, str) and not model.strip():
        raise UsageError("the model's name is empty")
    if isinstance(model, os.PathLike):
        path = Path(model)
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        return from_path(path)
    if not isinstance(model, str):
        raise UsageError(f"a model is given by name, path or ModelFacts, not as {type(model).__name__}")
    return from_path(Path(model)) if looks_like_path(model) else Card(name=model, source="the given name")


def _subject(model: Target | None, license: str | None, node: Node) -> str:  # noqa: A002
    if isinstance(model, str):
        return model
    return node.name or license or "the given text"

"""The terms of a licence as data: typed, every claim with its section, its source and how it was verified."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Literal

import cattrs
from attrs import field, frozen
from cattrs.gen import make_dict_structure_fn

from osport.data import load
from osport.errors import FormatError

__all__ = [
    "Claim",
    "Commercial",
    "Condition",
    "Distribution",
    "Duty",
    "Identifiers",
    "OutputTerms",
    "Policy",
    "Remark",
    "Terms",
    "Territory",
    "Text",
    "facts_date",
    "licences",
]

Verified = Literal["text", "text-copy", "registry", "unverified"]
Effect = Literal["grant", "ineligible", "terminates", "register", "notify", "display", "royalty"]
Trigger = Literal[
    "any_use",
    "weights",
    "distribute",
    "hosted",
    "product",
    "commercial_product",
    "derivative",
    "derivative_distributed",
    "derivative_hosted",
    "modified_distributed",
    "student_trained",
    "student_distributed",
    "publication",
]
OutputEffect = Literal[
    "allowed",
    "commercial",
    "flow_down",
    "purpose",
    "not_if_competing",
    "not_foundation",
    "forbidden",
    "silent",
    "unknown",
]


@frozen(kw_only=True)
class Claim:
    """What every claim carries. ``basis`` says what an unverified claim rests on: ``readme``, ``quote``,
    ``statement``, ``recollection`` or ``none``."""

    section: str = ""
    source: str
    verified: Verified
    basis: Literal["", "readme", "quote", "statement", "recollection", "none"] = ""
    note: str = ""


@frozen(kw_only=True)
class Commercial(Claim):
    """Who may use it for what. ``own_use``: commerce of one's own, but not serving others for money.

    ``purposes``: the only ends that a non-commercial use may have (empty: any).
    ``noncommercial``: whether non-commercial use is granted at all, as far as known.
    ``proof_of_concept``: commercial evaluation outside production is granted.
    """

    rule: Literal["allowed", "own_use", "grant", "forbidden", "unknown"]
    noncommercial: Literal["allowed", "unknown"] = "allowed"
    purposes: tuple[str, ...] = ()
    proof_of_concept: bool = False


@frozen(kw_only=True)
class Condition(Claim):
    """A gate: who trips it, and what follows.

    A threshold has ``metric``, ``op``, ``amount`` (users, or US$); ``frozen`` is the one day on which it is measured
    (``unknown`` when the text names the release date and that date is not known), empty when it holds at all times.
    ``businesses`` and ``licensee`` and ``competing`` narrow whom it meets; without any of them it meets everybody.
    ``exempt`` lists who is free: ``inside_product``, ``internal``, ``nonprofit``.
    """

    effect: Effect
    applies_to: Literal["any", "commercial"] = "any"
    metric: str = ""
    op: Literal["", ">", ">="] = ""
    amount: float = 0.0
    frozen: str = ""
    scope: tuple[Literal["licensee", "affiliates", "employer", "product"], ...] = ("licensee",)
    businesses: tuple[str, ...] = ()
    licensee: Literal["", "natural_person"] = ""
    competing: bool = False
    exempt: tuple[Literal["inside_product", "internal", "nonprofit"], ...] = ()
    display: str = ""
    what: str = ""


@frozen(kw_only=True)
class OutputTerms(Claim):
    """What the outputs may be used for. ``belief`` corrects what is commonly said.

    ``not_if_competing``: no model that competes with the licensor's; ``not_foundation``: no foundation model;
    ``flow_down``: the student counts as a derivative, the licence travels with it; ``purpose``: within the purposes
    of the licence only; ``silent``: the text does not speak of it, which is no permission.
    """

    train_same_family: OutputEffect
    train_other_llm: OutputEffect
    train_other_model: OutputEffect
    sell: OutputEffect = "commercial"
    belief: str = ""


@frozen(kw_only=True)
class Duty(Claim):
    """Something to do when one of ``triggers`` happens. ``exact``: the string; ``prefix``: how the name must begin.

    The triggers are those of :mod:`osport.licenses.events`.
    ``only_models``: patterns of the checkpoints that it is about (empty: all).
    """

    kind: str
    triggers: tuple[Trigger, ...]
    what: str = ""
    exact: str = ""
    prefix: str = ""
    where: str = ""
    only_models: tuple[str, ...] = ()


@frozen(kw_only=True)
class Territory(Claim):
    """Where the licence does not reach. ``test``: whether the seat or the place of use counts.

    ``modalities``: only models that take these (empty: all); ``models``: the modality of all models that were
    released under it, when they are alike. ``only_models``: patterns of the checkpoints that it is about (empty: all).
    ``end_users_free``: users of somebody's product are not met.
    """

    excluded: tuple[str, ...] = ()
    test: tuple[Literal["seat", "place"], ...] = ()
    reaches_outputs: bool = False
    modalities: tuple[str, ...] = ()
    models: Literal["", "text", "multimodal"] = ""
    only_models: tuple[str, ...] = ()
    end_users_free: bool = False
    known: bool = True


@frozen(kw_only=True)
class Policy(Claim):
    """The acceptable use policy, a document of its own. ``kind``: ``inline`` in the text, ``incorporated`` from
    elsewhere (``url``), a ``separate`` file, ``law`` (obey the law, no more), ``none`` or ``unknown``.

    ``prohibits`` and ``restricts`` (allowed under a condition) name fields of application; a policy has more
    lines than these, so an application that is not named is not cleared.
    """

    kind: Literal["none", "law", "inline", "incorporated", "separate", "unknown"]
    url: str = ""
    changes: bool = False
    prohibits: tuple[str, ...] = ()
    restricts: tuple[str, ...] = ()


@frozen(kw_only=True)
class Distribution(Claim):
    """What counts as handing the model on. ``hosted``: a hosted service does. ``known``: the rules were read."""

    hosted: bool = False
    known: bool = True


@frozen(kw_only=True)
class Remark(Claim):
    """A term that changes no outcome but that one should know: ``termination``, ``patent``, ``indemnity``,
    ``amendable``, ``ownership``, ``law``, ``history``."""

    kind: str
    text: str


@frozen(kw_only=True)
class Identifiers:
    """The names under which a licence goes."""

    hf_license: tuple[str, ...] = ()
    hf_license_name: tuple[str, ...] = ()
    spdx: tuple[str, ...] = ()
    scancode: tuple[str, ...] = ()
    gguf: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    publishers: tuple[str, ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """All names that may stand in a licence field."""
        return (*self.hf_license, *self.hf_license_name, *self.spdx, *self.scancode, *self.gguf)


def _split(value: str) -> tuple[str, ...]:
    return tuple(value.split())


@frozen(kw_only=True)
class Text:
    """A text that was read: the hash of all its words (``whole``) and those of its passages, in order
    (see :mod:`osport.licenses.text`)."""

    name: str
    source: str
    whole: str
    passages: tuple[str, ...] = field(converter=_split)


@frozen(kw_only=True)
class Terms:
    """One licence. ``marks`` are short phrases that stand in its text and in no other licence's heading;
    ``headings`` may stand above the text or be missing."""

    key: str
    title: str
    licensor: str
    published: str = ""
    category: str
    osi_approved: bool
    read: str
    base: str = ""
    ids: Identifiers = field(factory=Identifiers)
    sources: Mapping[str, str]
    commercial: Commercial
    outputs: OutputTerms
    territory: Territory
    policy: Policy
    distribution: Distribution
    conditions: tuple[Condition, ...] = ()
    duties: tuple[Duty, ...] = ()
    remarks: tuple[Remark, ...] = ()
    marks: tuple[str, ...] = ()
    headings: tuple[str, ...] = ()
    texts: tuple[Text, ...] = ()

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Every claim, in the order of the file."""
        fixed = (self.commercial, self.outputs, self.territory, self.policy, self.distribution)
        return (*fixed, *self.conditions, *self.duties, *self.remarks)

    def source_of(self, claim: Claim) -> str:
        """The document that a claim was taken from."""
        return self.sources[claim.source]


def _text(value: Mapping[str, str], _type: object) -> Text:
    return Text(**value)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for cls in (Commercial, Condition, OutputTerms, Duty, Territory, Policy, Distribution, Remark, Identifiers, Terms):
        converter.register_structure_hook(cls, make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True))
    converter.register_structure_hook(Text, _text)
    return converter


@functools.cache
def licences() -> Mapping[str, Terms]:
    """All licences by key. Raises FormatError, naming the file, when one is not of the form described here."""
    converter, found = _converter(), {}
    names = (entry.name for entry in files("osport.data").joinpath("licenses").iterdir())
    for name in sorted(name for name in names if name.endswith(".toml")):
        try:
            terms = converter.structure(load(f"licenses/{name}"), Terms)
        except (cattrs.BaseValidationError, tomllib.TOMLDecodeError, TypeError) as error:
            raise FormatError(f"{name}: {'; '.join(_complaints(error))}") from error
        missing = sorted({claim.source for claim in terms.claims} - set(terms.sources))
        if missing:
            raise FormatError(f"{name}: a claim names a source that [sources] does not have: {', '.join(missing)}")
        found[terms.key] = terms
    return found


def _complaints(error: BaseException) -> list[str]:
    if isinstance(error, cattrs.BaseValidationError):
        return cattrs.transform_error(error)
    return [str(error)]


@functools.cache
def facts_date() -> str:
    """The day on which the last of the licence facts was read (ISO date)."""
    return max(terms.read for terms in licences().values())

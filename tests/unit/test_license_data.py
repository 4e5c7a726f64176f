"""The facts: every claim has a source, every unread one says what it rests on, every name leads somewhere."""

from __future__ import annotations

import re

import pytest

from osport.data import load
from osport.errors import FormatError
from osport.licenses import licences
from osport.licenses import terms as terms_module
from osport.licenses.catalogue import shipped
from osport.licenses.identify import Known, by_tag, keys_of
from osport.licenses.terms import facts_date

ISO_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")
LICENCES = sorted(licences().values(), key=lambda terms: terms.key)
EACH = pytest.mark.parametrize("terms", LICENCES, ids=lambda terms: terms.key)


def test_there_are_73():
    assert len(LICENCES) == 73


@EACH
def test_every_claim_has_a_source_and_says_how_it_was_verified(terms):
    assert len(terms.claims) >= 5
    for claim in terms.claims:
        assert len(terms.source_of(claim)) > 8
        assert claim.verified in ("text", "text-copy", "registry", "unverified")
        assert (claim.basis != "") is (claim.verified == "unverified"), claim
    used = {claim.source for claim in terms.claims}
    assert set(terms.sources) == used, "a source that no claim names"


@EACH
def test_every_licence_is_dated_and_titled(terms):
    assert ISO_DATE.match(terms.read)
    assert terms.title
    assert terms.licensor
    assert terms.base == "" or terms.base in licences()


@EACH
def test_thresholds_are_whole(terms):
    for condition in terms.conditions:
        assert (condition.metric != "") == (condition.op != "") == (condition.amount > 0)
        assert condition.frozen in ("", "unknown") or ISO_DATE.match(condition.frozen)
        assert condition.effect != "display" or condition.applies_to == "commercial"


@EACH
def test_exact_strings_are_short_and_clean(terms):
    for duty in terms.duties:
        assert duty.triggers
        assert duty.what
        assert len(duty.exact) <= 300
        assert duty.exact == duty.exact.strip()
        assert (duty.kind == "name") is (duty.prefix != "")


@EACH
def test_no_long_passage_of_a_text_is_copied(terms):
    for claim in terms.claims:
        for told in (claim.note, getattr(claim, "text", ""), getattr(claim, "belief", ""), getattr(claim, "what", "")):
            assert len(told.split()) <= 45


def test_a_claim_without_a_source_is_refused(monkeypatch):
    good = load("licenses/mit.toml")

    def broken(name):
        if name != "licenses/mit.toml":
            return load(name)
        return {**good, "commercial": {**good["commercial"], "source": "nowhere"}}

    monkeypatch.setattr(terms_module, "load", broken)
    with pytest.raises(FormatError, match=r"mit\.toml.*nowhere"):
        terms_module.licences.__wrapped__()


def test_a_misspelt_term_is_refused(monkeypatch):
    good = load("licenses/mit.toml")

    def broken(name):
        return {**good, "comercial": {}} if name == "licenses/mit.toml" else load(name)

    monkeypatch.setattr(terms_module, "load", broken)
    with pytest.raises(FormatError, match="comercial"):
        terms_module.licences.__wrapped__()


def test_the_catalogue_names_licences_bases_and_sources():
    entries = list(shipped().entries)
    assert len(entries) > 130
    for entry in entries:
        assert entry.source, entry
        assert entry.basis, entry
        assert entry.verified in ("text", "unverified")
        assert entry.licence in licences() or entry.licence == "apple-ascl"
        for base in entry.bases:
            assert shipped().find(base) is not None, base
    assert ISO_DATE.match(load("checkpoints.toml")["read"])
    assert {row["licence"] for row in load("checkpoints.toml")["hint"]} <= set(licences())


def test_mappings_that_say_text_rest_on_a_file_of_the_vendor():
    for entry in shipped().entries:
        assert (entry.verified == "text") is (entry.basis == "vendor-licence-file"), entry


@EACH
def test_every_name_leads_to_its_licence(terms):
    assert by_tag(terms.key, strict=True) == Known(terms.key)
    for name in terms.ids.tags:
        assert terms.key in keys_of(by_tag(name)), name


def test_the_date_of_the_facts():
    assert facts_date() == max(terms.read for terms in LICENCES)

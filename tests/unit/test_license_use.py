"""A use: what cannot be, and how what is left open is read."""

from __future__ import annotations

import pytest

from osport.errors import UsageError
from osport.licenses import LicensePolicy, Outcome, Use


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"monthly_active_users": -1}, "at least 0"),
        ({"annual_revenue": float("nan")}, "at least 0"),
        ({"monthly_active_users": True}, "a number"),
        ({"commercial": "yes"}, "True, False or None"),
        ({"serving": "saas"}, "must be one of internal"),
        ({"outputs": "distil"}, "train_other_llm"),
        ({"student_distributed": True}, "student_name"),
        ({"student_name": " "}, "non-empty"),
        ({"seat": "Atlantis"}, "two ISO letters"),
        ({"places_of_use": []}, "empty"),
        ({"places_of_use": ["XX"]}, "XX"),
        ({"annual_revenue": 1e6, "monthly_revenue": 2e6}, "part of its year"),
    ],
)
def test_impossible_uses(fields, says):
    with pytest.raises(UsageError, match=says):
        Use(**fields)


def test_unknown_fields_are_named():
    with pytest.raises(UsageError, match="colour"):
        Use.from_dict({"colour": "red"})


def test_places_have_many_names():
    use = Use(seat="Germany", places_of_use=["UK", "European Union", "eu"], places_of_output_use="South Korea")
    assert use.seat == "DE"
    assert use.places_of_use == ("GB", "EU")
    assert use.places_of_output_use == ("KR",)


def assumed(verdict):
    return {assumption.field: assumption.read_as for assumption in verdict.assumptions}


def test_an_open_circumstance_is_read_against_the_user():
    verdict = LicensePolicy(Use(commercial=True, outputs="use")).check(license="qwen")
    assert verdict.outcome is Outcome.NEEDS_GRANT
    assert assumed(verdict)["monthly_active_users"] == "above 100,000,000"


def test_an_open_act_is_read_as_not_done_and_said():
    verdict = LicensePolicy(Use(commercial=True, monthly_active_users=5.0)).check(license="llama-3")
    assert verdict.outcome is Outcome.ALLOWED_WITH_OBLIGATIONS
    assert assumed(verdict)["outputs"] == "sell"
    assert assumed(verdict)["remove_guardrails"] == "no"
    assert "not covered" in next(a for a in verdict.assumptions if a.field == "outputs").why


def test_nothing_is_assumed_about_what_was_said():
    use = Use(commercial=True, serving="product", monthly_active_users=5.0, outputs="use", seat="DE")
    assert not {"commercial", "serving", "monthly_active_users", "seat"} & set(
        assumed(LicensePolicy(use).check(license="llama-3.2"))
    )


def test_todays_users_stand_in_for_those_at_the_release():
    small = LicensePolicy(Use(commercial=True, monthly_active_users=1e6)).check(license="llama-3.3")
    large = LicensePolicy(Use(commercial=True, monthly_active_users=1e9)).check(license="llama-3.3")
    assert small.allowed
    assert "monthly_active_users_at_release" in assumed(small)
    assert large.outcome is Outcome.NEEDS_GRANT


def test_a_person_at_home_serves_no_users_and_works_for_somebody():
    person = Use(personal=True)
    assert LicensePolicy(person).check(license="llama-3.1").allowed
    assert LicensePolicy(person).check(license="cc-by-nc-4.0").outcome is Outcome.ALLOWED
    employed = LicensePolicy(person).check(license="mistral-modified-mit")
    assert employed.outcome is Outcome.NEEDS_GRANT
    assert "employer" in next(a.why for a in employed.assumptions if a.field == "monthly_revenue")


def test_outermost_regions_are_in_the_union_and_the_world_contains_it():
    for seat, outcome in (
        ("RE", Outcome.FORBIDDEN),
        ("EEA", Outcome.FORBIDDEN),
        ("LI", Outcome.ALLOWED_WITH_OBLIGATIONS),
    ):
        use = Use(seat=seat, modality="multimodal", personal=True)
        assert LicensePolicy(use).check(license="llama-3.2").outcome is outcome

"""The rules, each shown on a pair of uses, or of licence versions, that differ in one thing."""

from __future__ import annotations

import pytest

from osport.licenses import LicensePolicy, Outcome, Use

PLACES = {"seat": "US", "places_of_use": ["US"], "places_of_output_use": ["US"]}
FIRM = Use(
    commercial=True,
    serving="product",
    modality="text",
    monthly_active_users=2e6,
    monthly_active_users_at_release=1e6,
    annual_revenue=5e5,
    outputs="use",
    **PLACES,
)
ALLOWED, DUTIES, UNKNOWN, GRANT, FORBIDDEN = Outcome


def check(licence, **changes):
    return LicensePolicy(FIRM.with_(**changes)).check(license=licence)


def clause(verdict, name):
    return next(reason for reason in verdict.reasons if reason.clause == name)


STUDENT = {"outputs": "train_other_llm", "serving": "internal", "student_distributed": True}


@pytest.mark.parametrize(
    ("licence", "name", "outcome", "section"),
    [
        ("llama-2", "Acme-7B", FORBIDDEN, "§1.b.v"),
        ("llama-3", "Llama 3 Acme", FORBIDDEN, "§1.b.v"),
        ("llama-3.1", "Acme-7B", FORBIDDEN, "§1.b.i"),
        ("llama-3.1", "Llama-Acme-7B", DUTIES, "§1.b.i"),
        ("llama-3.2", "acme/Llama-Acme-7B", DUTIES, "§1.b.i"),
        ("llama-3.3", "Acme-Llama-7B", FORBIDDEN, "§1.b.i"),
        ("llama-4", "Llama-Acme", DUTIES, "§1.b.i"),
        ("hyperclovax-seed", "HyperCLOVA-X-Acme", DUTIES, "§3.1"),
        ("hyperclovax-seed", "Acme-X", FORBIDDEN, "§3.1"),
        ("qwen", "Acme-7B", DUTIES, "§5.b"),
        ("tongyi-qianwen", "Acme-7B", FORBIDDEN, "§5.b"),
        ("tencent-hunyuan-community-2024", "Acme-7B", FORBIDDEN, "§5.b, §5.c"),
        ("databricks-open-model", "Acme-7B", FORBIDDEN, "§2.3"),
        ("mit", "Acme-7B", ALLOWED, ""),
        ("lfm-1.0", "Acme-7B", UNKNOWN, ""),
    ],
)
def test_students(licence, name, outcome, section):
    verdict = check(licence, student_name=name, **STUDENT)
    assert verdict.outcome is outcome
    if outcome is FORBIDDEN:
        assert verdict.deciding[0].section == section
    elif section:
        assert section in {obligation.section for obligation in verdict.obligations}


def test_a_student_that_stays_at_home_needs_no_name():
    verdict = check("llama-3.3", **{**STUDENT, "student_distributed": False, "student_name": "Acme-7B"})
    assert verdict.outcome is DUTIES
    assert not [obligation for obligation in verdict.obligations if obligation.kind == "name"]


def test_the_family_is_excepted_from_the_ban_and_other_kinds_of_models_are_outside_it():
    use = {**STUDENT, "student_name": "Llama 3 Acme"}
    assert check("llama-3", **use).outcome is FORBIDDEN
    assert check("llama-3", **{**use, "outputs": "train_same_family"}).outcome is DUTIES
    assert check("llama-3", **{**use, "outputs": "train_other_model"}).outcome is DUTIES
    assert check("tencent-hunyuan-community-2024", **{**use, "outputs": "train_other_model"}).outcome is not FORBIDDEN
    assert check("tencent-hunyuan-community", **{**use, "outputs": "train_other_model"}).outcome is FORBIDDEN


@pytest.mark.parametrize(("old", "new"), [("llama-3", "llama-3.1"), ("tongyi-qianwen", "qwen"), ("llama-2", "llama-4")])
def test_where_belief_and_text_differ_the_reason_says_so(old, new):
    use = {**STUDENT, "student_name": "Llama-Acme"}
    before, after = check(old, **use), check(new, **use)
    assert before.outcome is FORBIDDEN
    assert after.outcome is DUTIES
    told = clause(after, "outputs").text
    assert any(word in told for word in ("since 3.1", "is gone"))


def test_exaone_moved_from_owning_outputs_to_barring_competitors():
    personal = {"commercial": False, "personal": True, "serving": "internal", "outputs": "train_other_model"}
    assert check("exaone-1.1-nc", **personal).outcome is FORBIDDEN
    assert check("exaone-1.2-nc", **personal).outcome is DUTIES
    assert check("exaone-1.2-nc", **personal, competing_service=True).outcome is FORBIDDEN
    assert "owns all outputs" in clause(check("exaone-1.1-nc", **personal), "ownership").text


def test_a_frozen_threshold_looks_at_the_release_date_only():
    grown = {"monthly_active_users": 9e8, "monthly_active_users_at_release": 1e6}
    was_large = {"monthly_active_users": 1e6, "monthly_active_users_at_release": 9e8}
    assert check("llama-3.1", **grown).outcome is DUTIES
    assert check("llama-3.1", **was_large).outcome is GRANT
    assert check("qwen", **grown).outcome is GRANT
    assert check("qwen", **was_large).outcome is DUTIES
    assert "2024-07-23" in clause(check("llama-3.1", **was_large), "condition").text


@pytest.mark.parametrize(
    ("licence", "field", "at", "above"),
    [
        ("llama-4", "monthly_active_users_at_release", 7e8, 7e8 + 1),
        ("qwen", "monthly_active_users", 1e8, 1e8 + 1),
        ("hyperclovax-seed", "monthly_active_users_at_release", 1e7, 1e7 + 1),
        ("tencent-hunyuan3d-2.0", "monthly_active_users_at_release", 1e6, 1e6 + 1),
        ("stability-ai-community", "annual_revenue", 1e6, 1e6 + 1),
        ("lfm-1.0", "annual_revenue", 1e7 - 1, 1e7),
    ],
)
def test_the_line_of_a_threshold(licence, field, at, above):
    assert check(licence, **{field: at}).allowed
    assert check(licence, **{field: above}).outcome is GRANT


def test_one_badge_and_two_opposite_effects():
    large = {"annual_revenue": 5e9, "monthly_revenue": 3e8}
    kimi, mistral = check("kimi-k2-modified-mit", **large), check("mistral-modified-mit", **large)
    assert kimi.outcome is DUTIES
    assert [obligation.exact for obligation in kimi.obligations if obligation.kind == "display"] == ["Kimi K2"]
    assert mistral.outcome is GRANT


def test_the_employer_counts_for_an_individual_where_the_text_says_so():
    person = {"commercial": False, "personal": True, "serving": "internal", "monthly_active_users": None}
    assert check("mistral-modified-mit", **person, annual_revenue=5e9, monthly_revenue=4e8).outcome is GRANT
    assert check("mistral-modified-mit", **person, annual_revenue=1e6).outcome is DUTIES
    assert check("stability-ai-community", **person, annual_revenue=5e9).outcome is DUTIES


def test_a_month_cannot_bring_more_than_its_year():
    assert check("mistral-modified-mit", annual_revenue=19e6).outcome is DUTIES
    assert check("mistral-modified-mit", annual_revenue=21e6).outcome is GRANT


def test_whoever_got_it_inside_a_product_is_free_of_the_gate():
    large = {"monthly_active_users_at_release": 9e8}
    assert check("llama-3.3", **large).outcome is GRANT
    assert check("llama-3.3", **large, received="inside_product").allowed
    assert check("tongyi-qianwen", monthly_active_users=9e8, received="inside_product").outcome is GRANT


@pytest.mark.parametrize(
    ("licence", "changes", "outcome"),
    [
        ("llama-3.2", {"seat": "DE", "modality": "multimodal"}, FORBIDDEN),
        ("llama-3.2", {"seat": "DE", "modality": "text"}, DUTIES),
        ("llama-3.2", {"seat": "CH", "modality": "multimodal"}, DUTIES),
        ("llama-3.2", {"seat": "GB", "modality": "multimodal"}, DUTIES),
        ("llama-3.2", {"seat": "NO", "modality": "multimodal"}, DUTIES),
        ("llama-3.2", {"seat": "US", "places_of_use": ["EU"], "modality": "multimodal"}, DUTIES),
        ("llama-3.2", {"seat": "DE", "modality": "multimodal", "received": "inside_product"}, DUTIES),
        ("llama-3.2", {"seat": None, "modality": "multimodal"}, FORBIDDEN),
        ("llama-3.1", {"seat": "DE", "modality": "multimodal"}, DUTIES),
        ("llama-4", {"seat": "FR", "modality": "text"}, FORBIDDEN),
        ("tencent-hunyuan-community", {"seat": "DE"}, DUTIES),
        ("tencent-hunyuan-community", {"places_of_use": ["US", "KR"]}, FORBIDDEN),
        ("tencent-hunyuan-community", {"places_of_output_use": ["GB"]}, FORBIDDEN),
        ("tencent-hunyuan-community-2024", {"places_of_use": ["GB"], "places_of_output_use": ["GB"]}, DUTIES),
        ("tencent-hunyuan-community-2024", {"places_of_output_use": None}, FORBIDDEN),
        ("mit", {"seat": None, "places_of_use": None}, ALLOWED),
    ],
)
def test_seat_place_and_place_of_outputs(licence, changes, outcome):
    verdict = check(licence, **changes)
    assert verdict.outcome is outcome
    if outcome is FORBIDDEN:
        assert verdict.deciding[0].clause == "territory"


def test_the_modality_is_the_models_not_the_uses():
    policy = LicensePolicy(FIRM.with_(seat="DE", modality="text"))
    assert policy.check("meta-llama/Llama-3.2-11B-Vision-Instruct").outcome is FORBIDDEN
    assert policy.check("meta-llama/Llama-3.2-3B-Instruct").outcome is DUTIES
    assert policy.check("meta-llama/Llama-4-Scout-17B-16E-Instruct").outcome is FORBIDDEN


@pytest.mark.parametrize(
    ("licence", "application", "outcome"),
    [
        ("llama-3.1", "military logistics", FORBIDDEN),
        ("mit", "military logistics", ALLOWED),
        ("deepseek", "military", FORBIDDEN),
        ("bigscience-openrail-m", "medical advice", FORBIDDEN),
        ("llama-3.1", "medical advice", DUTIES),
        ("databricks-open-model", "surveillance", UNKNOWN),
        ("qwen-research", "weapons", GRANT),
        ("gemma-terms", "automated credit scoring", FORBIDDEN),
        ("gemma-terms", "recipe search", DUTIES),
        ("bigscience-openrail-m", "courtesy reminders", DUTIES),
        ("bigscience-openrail-m", "court decisions", FORBIDDEN),
    ],
)
def test_applications_against_use_policies(licence, application, outcome):
    assert check(licence, application=application).outcome is outcome


def test_removing_guardrails():
    assert check("nvidia-open-model", remove_guardrails=True).outcome is FORBIDDEN
    assert check("nvidia-nemotron-open-model", remove_guardrails=True).outcome is DUTIES
    assert check("llama-3.1", remove_guardrails=True).outcome is DUTIES
    assert check("llama-3.2", remove_guardrails=True).outcome is FORBIDDEN
    assert check("falcon-2-11b", remove_guardrails=True).outcome is UNKNOWN


def test_business_models():
    assert check("qwen-community-1.0", serving="model_as_a_service").outcome is GRANT
    assert check("qwen-community-1.0", serving="internal", competing_service=True).allowed
    assert check("qwen-community-1.0", application="coding assistant").outcome is GRANT
    assert check("kimi-k3", serving="model_as_a_service").allowed
    assert check("kimi-k3", serving="model_as_a_service", annual_revenue=3e7).outcome is GRANT
    assert check("glm-5.3", serving="model_as_a_service", annual_revenue=3e7).allowed
    assert check("hyperclovax-seed", competing_service=True).outcome is GRANT
    assert check("falcon-180b", serving="hosted_api").outcome is GRANT
    assert check("k-exaone", serving="internal").allowed
    assert check("k-exaone").outcome is GRANT
    assert check("baichuan2-community", serving="hosted_api").outcome is FORBIDDEN


def test_natural_persons_cannot_get_the_xverse_grant():
    person = {"personal": True}
    assert check("xverse").outcome is GRANT
    assert check("xverse", **person).outcome is FORBIDDEN
    assert check("xverse", **person, commercial=False).allowed


def test_proof_of_concept_is_free_outside_production_only():
    trial = {"proof_of_concept": True}
    assert check("mistral-non-production", **trial, serving="internal").outcome is DUTIES
    assert check("mistral-non-production", **trial).outcome is GRANT
    assert check("mistral-research", **trial, serving="internal").outcome is GRANT


def test_selling_outputs_is_commerce_unless_the_text_frees_it():
    hobby = {"commercial": False, "personal": True, "serving": "internal", "outputs": "sell"}
    assert check("cc-by-nc-4.0", **hobby).outcome is GRANT
    assert check("flux-1-dev-nc", **hobby).outcome is DUTIES
    assert check("opt-175b", **hobby).outcome is FORBIDDEN


def test_what_counts_as_distribution_differs():
    exact = {obligation.kind for obligation in check("deepseek", serving="hosted_api").obligations}
    assert "flow_down" in exact
    assert "copy" not in {obligation.kind for obligation in check("llama-3.1", serving="hosted_api").obligations}
    assert check("apache-2.0", serving="hosted_api").outcome is ALLOWED
    assert check("apache-2.0", redistribute_weights=True).outcome is DUTIES
    assert check("apache-2.0", on_premises=True).outcome is DUTIES
    hosted = {obligation.exact for obligation in check("gemma-terms", serving="hosted_api").obligations}
    shipped = {obligation.exact for obligation in check("gemma-terms", redistribute_weights=True).obligations}
    assert shipped - hosted == {
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    }


def test_a_modified_model_that_is_offered_over_a_network_carries_the_name():
    tuned = {"fine_tune": True, "serving": "hosted_api", "student_name": "Acme-70B"}
    assert check("llama-3.3", **tuned).outcome is FORBIDDEN
    assert check("llama-3.3", **{**tuned, "serving": "internal"}).outcome is DUTIES


def test_unread_claims_are_never_plainly_allowed():
    for licence in ("gemma-4", "nvidia-nemotron-open-model", "glm-5.3", "qwen3.8-max", "mistral-modified-mit"):
        verdict = check(licence)
        assert verdict.outcome is DUTIES
        assert "confirm" in {obligation.kind for obligation in verdict.obligations}
    for licence in ("jamba-open-model", "arcee-model-license", "ai2-impact-lr", "glm-4"):
        assert check(licence).outcome is UNKNOWN
        assert check(licence, annual_revenue=1e12).outcome is UNKNOWN


def test_display_without_threshold():
    assert check("minimax-m2-modified-mit").outcome is ALLOWED
    small = check("minimax-m2.1-modified-mit")
    assert [obligation.exact for obligation in small.obligations] == ["MiniMax M2.1"]


def test_the_cosmos_display_is_for_cosmos_models():
    policy = LicensePolicy(FIRM)
    cosmos = policy.check("nvidia/Cosmos-Reason1-7B")
    nemotron = policy.check("nvidia/NVIDIA-Nemotron-Nano-9B-v2")
    assert "Built on NVIDIA Cosmos" in {obligation.exact for obligation in cosmos.obligations}
    assert "Built on NVIDIA Cosmos" not in {obligation.exact for obligation in nemotron.obligations}

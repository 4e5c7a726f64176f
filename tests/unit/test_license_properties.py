"""What holds for every licence and every use: never an exception, never milder for a stricter use or more ancestors."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from osport.errors import UsageError
from osport.licenses import LicensePolicy, Outcome, Use, licences
from osport.licenses.evaluate import evaluate

# Values of each field from mildest to strictest. None, left open, is the strictest where it stands.
FLAGS_MILD_WHEN_FALSE = ("fine_tune", "redistribute_weights", "on_premises", "competing_service", "remove_guardrails")
LADDERS = {
    **{name: [False, True] for name in FLAGS_MILD_WHEN_FALSE},
    "commercial": [False, True],
    "nonprofit": [True, False, None],
    "proof_of_concept": [True, False, None],
    "role": ["deployer", "redistributor"],
    "received": ["inside_product", "weights", None],
    "serving": ["internal", "product", "hosted_api", "model_as_a_service"],
    "modality": ["text", "multimodal", None],
    "monthly_active_users": [0, 5e5, 1e6 + 1, 2e7, 2e8, 8e8, None],
    "monthly_active_users_at_release": [0, 5e5, 1e6 + 1, 2e7, 2e8, 8e8],
    "annual_revenue": [0, 9e5, 5e6, 1e7, 3e7, 6e7, 2e10, None],
    "seat": ["US", "DE", "WORLD"],
    "places_of_use": [["CH"], ["CH", "EU"], ["CH", "EU", "GB"], ["CH", "EU", "GB", "KR", "US"], None],
    "places_of_output_use": [["CH"], ["CH", "EU"], ["CH", "EU", "GB"], ["WORLD"], None],
    "outputs": ["use", "train_same_family", "train_other_model", "train_other_llm"],
    "student_distributed": [False, None],
}
APPLICATIONS = [None, "research", "coding", "military", "medical advice", "credit scoring", "something else"]


@st.composite
def positions(draw):
    """A place on every ladder, and for one of them a stricter place."""
    at = {name: draw(st.integers(0, len(ladder) - 1)) for name, ladder in LADDERS.items()}
    moved = draw(st.sampled_from(sorted(LADDERS)))
    up = draw(st.integers(at[moved], len(LADDERS[moved]) - 1))
    extra = {"personal": draw(st.sampled_from([False, True])), "application": draw(st.sampled_from(APPLICATIONS))}
    return use_at(at, extra), use_at({**at, moved: up}, extra), moved


def use_at(at, extra):
    return Use(**{name: LADDERS[name][index] for name, index in at.items()}, **extra)


@st.composite
def any_use(draw):
    fields = {name: draw(st.sampled_from([*ladder, None])) for name, ladder in LADDERS.items()}
    fields |= {
        "personal": draw(st.sampled_from([None, True, False])),
        "application": draw(st.one_of(st.none(), st.text(min_size=1).filter(str.strip), st.sampled_from(APPLICATIONS))),
        "student_name": draw(st.one_of(st.none(), st.text(min_size=1).filter(str.strip))),
        "monthly_revenue": draw(st.one_of(st.none(), st.floats(min_value=0, max_value=1e15))),
        "student_distributed": draw(st.sampled_from([None, True, False])),
        "outputs": draw(st.sampled_from([None, "use", "sell", "train_same_family", "train_other_llm"])),
    }
    try:
        return Use(**fields)
    except UsageError:
        return Use()


KEYS = st.sampled_from(sorted(licences()))
NAMES = st.sampled_from(
    ["meta-llama/Llama-3.3-70B-Instruct", "Qwen/Qwen3-8B", "mistralai/Codestral-22B-v0.1", "nobody/nothing",
     "google/gemma-3-4b-it", "MiniMaxAI/MiniMax-M2.5", "tencent/Hunyuan-A13B-Instruct", "modified-mit", "xverse"]
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(positions(), KEYS)
def test_a_stricter_use_never_gets_a_milder_outcome(pair, key):
    mild, strict, moved = pair
    before, after = evaluate(licences()[key], mild), evaluate(licences()[key], strict)
    assert after.outcome.severity >= before.outcome.severity, moved


@settings(max_examples=200, deadline=None)
@given(positions(), NAMES)
def test_nor_through_lineage_and_candidates(pair, name):
    mild, strict, moved = pair
    facts = {"license": "MIT OR modified-mit", "base_models": [name], "teachers": ["deepseek-ai/DeepSeek-V3"]}
    before, after = LicensePolicy(mild).check(**facts), LicensePolicy(strict).check(**facts)
    assert after.outcome.severity >= before.outcome.severity, moved


@settings(max_examples=200, deadline=None)
@given(any_use(), KEYS, st.lists(NAMES, max_size=3), NAMES, st.booleans())
def test_another_ancestor_never_relaxes(use, key, ancestors, added, as_teacher):
    policy = LicensePolicy(use)
    before = policy.check(license=key, base_models=ancestors)
    more = {"teachers": [added]} if as_teacher else {}
    after = policy.check(license=key, base_models=ancestors if as_teacher else [*ancestors, added], **more)
    assert after.outcome.severity >= before.outcome.severity
    assert set(before.licences) <= set(after.licences)


@settings(max_examples=100, deadline=None)
@given(any_use())
def test_the_evaluator_is_total(use):
    for key, terms in licences().items():
        finding = evaluate(terms, use)
        assert finding.outcome in Outcome, key
        assert finding.reasons, key


@settings(max_examples=100, deadline=None)
@given(any_use())
def test_an_unread_licence_is_never_plainly_allowed(use):
    for terms in licences().values():
        if terms.commercial.verified == "unverified":
            assert evaluate(terms, use).outcome is not Outcome.ALLOWED, terms.key


@settings(max_examples=100, deadline=None)
@given(any_use())
def test_silence_is_no_permission(use):
    for terms in licences().values():
        effect = {
            "train_same_family": terms.outputs.train_same_family,
            "train_other_llm": terms.outputs.train_other_llm,
            "train_other_model": terms.outputs.train_other_model,
        }.get(use.outputs or "")
        if effect in ("silent", "unknown"):
            assert not evaluate(terms, use).outcome.severity < Outcome.UNKNOWN.severity, terms.key


@settings(max_examples=60, deadline=None)
@given(any_use(), KEYS)
def test_reports_can_always_be_written(use, key):
    verdict = LicensePolicy(use).check(license=key)
    assert key in str(verdict)
    assert verdict.disclaimer in str(verdict)
    assert verdict.facts_date in verdict.to_json()
    assert verdict.outcome.value in verdict._repr_html_()
    assert verdict.notice().startswith("NOTICE")

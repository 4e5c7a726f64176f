"""From names, tags, expressions, cards, folders and headers to licences; ancestors; conflicts; bad input."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from osport.core.facts import ModelFacts
from osport.errors import FormatError, OsportError, StorageError, UsageError
from osport.licenses import LicensePolicy, Outcome, Use
from osport.licenses.catalogue import Entry, shipped

FIRM = Use(
    commercial=True,
    serving="product",
    modality="text",
    monthly_active_users=1e5,
    annual_revenue=5e5,
    outputs="use",
    seat="US",
    places_of_use=["US"],
    places_of_output_use=["US"],
)
POLICY = LicensePolicy(FIRM)
ALLOWED, DUTIES, UNKNOWN, GRANT, FORBIDDEN = Outcome


@pytest.fixture(scope="module")
def apache_text():
    """The licence of osport itself."""
    return (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("llama3.1", "llama-3.1"),
        ("Apache-2.0", "apache-2.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("apache license 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("LicenseRef-scancode-llama-3.2-license-2024", "llama-3.2"),
        ("LicenseRef-scancode-gemma-tou-2024-04-01", "gemma-terms"),
        ("gemma", "gemma-terms"),
        ("nvidia-open-model-license", "nvidia-open-model"),
        ("Qwen", "qwen"),
        ("openrail++", "openrail++-m"),
        ("exaone-1.2-nc", "exaone-1.2-nc"),
        ("CC-BY-NC-4.0", "cc-by-nc-4.0"),
    ],
)
def test_names_of_licences(said, key):
    assert POLICY.check(license=said).licences == (key,)


def test_one_name_with_several_texts_is_unknown_until_the_text_or_the_publisher_is_seen():
    bare = POLICY.check(license="modified-mit")
    assert bare.outcome is UNKNOWN
    assert len(bare.evidence[0].licences) == 5
    card = {"license": "other", "license_name": "modified-mit"}
    assert POLICY.check(ModelFacts.of("card", name="mistralai/Next-1", **card)).licences == ("mistral-modified-mit",)
    assert POLICY.check(ModelFacts.of("card", name="MiniMaxAI/Next-1", **card)).outcome is UNKNOWN


def test_a_key_that_is_also_a_tag_of_several_texts_means_the_tag_on_a_card():
    said = {"name": "tencent/Next-1", "license": "other", "license_name": "tencent-hunyuan-community"}
    assert POLICY.check(ModelFacts.of("card", **said)).outcome is UNKNOWN
    assert POLICY.check(license="tencent-hunyuan-community").licences == ("tencent-hunyuan-community",)


def test_what_every_candidate_refuses_is_refused():
    verdict = LicensePolicy(FIRM.with_(outputs="train_other_llm")).check(license="exaone")
    assert verdict.outcome is FORBIDDEN
    assert POLICY.check(license="exaone").outcome is GRANT


@pytest.mark.parametrize("said", ["llama5", "llama3.4", "openmdw-1.2", "qwen-community-2.0", "lfm1.1", "GPL-3.0-only"])
def test_what_the_facts_do_not_know_is_unknown(said):
    assert POLICY.check(license=said).outcome is UNKNOWN


@pytest.mark.parametrize(
    ("expression", "outcome"),
    [
        ("MIT OR GPL-3.0-only", ALLOWED),
        ("MIT AND GPL-3.0-only", UNKNOWN),
        ("Apache-2.0 WITH LLVM-exception", ALLOWED),
        ("MIT AND CC-BY-NC-4.0", GRANT),
        ("(MIT OR CC-BY-NC-4.0) AND Apache-2.0", ALLOWED),
        ("MIT AND LicenseRef-scancode-qwen-2024", DUTIES),
    ],
)
def test_spdx_expressions(expression, outcome):
    assert POLICY.check(license=expression).outcome is outcome


@pytest.mark.parametrize("said", ["Apche-2.0", "MIT AND", "MTI OR Apchae-2.0", "(MIT", " "])
def test_misspelt_expressions_are_refused(said):
    with pytest.raises(UsageError, match="license="):
        POLICY.check(license=said)


def test_a_slip_of_the_pen_gets_a_suggestion():
    with pytest.raises(UsageError, match="did you mean"):
        POLICY.check(license="Apche-2.0")


@pytest.mark.parametrize(
    ("name", "keys", "outcome"),
    [
        ("mistralai/Codestral-22B-v0.1", ("mistral-non-production",), GRANT),
        ("bartowski/Codestral-22B-v0.1-GGUF", ("mistral-non-production",), GRANT),
        ("xai-org/grok-1", ("apache-2.0",), ALLOWED),
        ("openai/gpt-oss-20b", ("openai-gpt-oss",), DUTIES),
        ("google/gemma-4-12b-it", ("gemma-4",), DUTIES),
        ("google/gemma-3-12b-it", ("gemma-terms",), DUTIES),
        ("Qwen/Qwen2.5-3B-Instruct-AWQ", ("qwen-research",), GRANT),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", ("apache-2.0",), DUTIES),
        ("DeepSeek-R1-Distill-Llama-8B", ("mit", "llama-3.1"), DUTIES),
        ("unsloth/DeepSeek-R1-Distill-Llama-70B-GGUF", ("mit", "llama-3.3"), DUTIES),
        ("MiniMaxAI/MiniMax-M2.5", ("minimax-model", "minimax-m2.1-modified-mit"), DUTIES),
        ("llama3.1:8b", ("llama-3.1",), DUTIES),
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", ("llama-3.2",), DUTIES),
        ("vidore/colqwen2.5-v0.2", ("apache-2.0", "qwen-research"), GRANT),
        ("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF", ("nvidia-open-model", "llama-3.1"), DUTIES),
        ("apple/OpenELM-3B", (), UNKNOWN),
        ("meta-llama/Llama-5-70B", (), UNKNOWN),
        ("google/gemma-5-12b", (), UNKNOWN),
        ("Qwen/Qwen4-32B", (), UNKNOWN),
        ("nobody/nothing", (), UNKNOWN),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", ("apache-2.0",), DUTIES),
        ("granite-3.1-8b-instruct", ("apache-2.0",), ALLOWED),
        ("granite-3.1-8b-sql-tuned", ("apache-2.0",), UNKNOWN),
    ],
)
def test_checkpoints(name, keys, outcome):
    verdict = POLICY.check(name)
    assert verdict.licences == keys
    assert verdict.outcome is outcome


def test_a_name_that_only_speaks_of_its_ancestor_is_never_cleared():
    verdict = POLICY.check("somebody/Hermes-3-Llama-3.1-8B")
    assert verdict.outcome is UNKNOWN
    assert verdict.licences == ("llama-3.1",)
    said = POLICY.check(ModelFacts.of("card", name="somebody/Hermes-3-Llama-3.1-8B", license="apache-2.0"))
    assert said.outcome is DUTIES
    assert "Built with Llama" in {obligation.exact for obligation in said.obligations}


def test_copies_and_unread_mappings_ask_to_be_confirmed():
    for name in ("meta-llama/Llama-3.3-70B-Instruct", "bartowski/Llama-3.3-70B-Instruct-GGUF", "Qwen/Qwen3-32B"):
        kinds = {obligation.kind for obligation in POLICY.check(name).obligations}
        assert ("confirm" in kinds) is (name != "meta-llama/Llama-3.3-70B-Instruct")


def test_a_tag_on_a_card_is_a_claim():
    card = POLICY.check(ModelFacts.of("README.md", name="acme/model", license="mit"))
    assert card.outcome is DUTIES
    assert [obligation.kind for obligation in card.obligations] == ["confirm"]
    assert POLICY.check(license="mit").outcome is ALLOWED


def test_disagreeing_sources_are_both_told_and_the_stricter_counts():
    verdict = POLICY.check(ModelFacts.of("GGUF", name="mistralai/Codestral-22B-v0.1", license="apache-2.0"))
    assert verdict.outcome is GRANT
    assert {evidence.kind for evidence in verdict.evidence} == {"tag", "catalogue"}
    told = next(reason for reason in verdict.reasons if reason.clause == "conflict").text
    assert "apache-2.0" in told
    assert "mistral-non-production" in told


def test_ancestors_are_named_in_what_comes_from_them():
    facts = ModelFacts.of("card", name="acme/merge", license="mit", base_model=["Qwen/Qwen2.5-3B", "google/gemma-2-9b"])
    verdict = POLICY.check(facts)
    assert verdict.outcome is GRANT
    assert verdict.deciding[0].via == "base Qwen/Qwen2.5-3B"
    assert {obligation.via for obligation in verdict.obligations} >= {"base google/gemma-2-9b"}


def test_teachers_are_asked_about_training():
    verdict = POLICY.check(license="apache-2.0", teachers=["meta-llama/Meta-Llama-3-70B-Instruct"])
    assert verdict.outcome is FORBIDDEN
    assert verdict.deciding[0].clause == "outputs"
    assert verdict.deciding[0].via == "teacher meta-llama/Meta-Llama-3-70B-Instruct"
    free = POLICY.check(license="apache-2.0", teachers="deepseek-ai/DeepSeek-R1")
    assert free.outcome is ALLOWED
    named = POLICY.check(license="apache-2.0", teachers="meta-llama/Llama-3.3-70B-Instruct")
    assert "name" in {obligation.kind for obligation in named.obligations}
    assert POLICY.check(license="mit", teachers="a-closed-model").outcome is UNKNOWN


def test_cycles_are_refused():
    with pytest.raises(UsageError, match="acme/a names itself"):
        POLICY.check(ModelFacts.of("card", name="acme/a", license="mit", base_model="acme/a"))
    own = [
        Entry(patterns=("acme/a",), licence="mit", bases=("acme/b",)),
        Entry(patterns=("acme/b",), licence="mit", bases=("acme/a",)),
    ]
    with pytest.raises(UsageError, match="acme/a -> acme/b -> acme/a"):
        LicensePolicy(FIRM, models=own).check("acme/a")


def test_own_entries_come_first():
    own = [Entry(patterns=("acme/*",), licence="mit", basis="own entry", bases=("Qwen/Qwen2.5-3B",))]
    assert LicensePolicy(FIRM, models=own).check("acme/x").licences == ("mit", "qwen-research")
    assert LicensePolicy(FIRM, models=own).check("xai-org/grok-1").outcome is ALLOWED


def test_the_most_specific_pattern_wins():
    found = shipped().find("Qwen/Qwen2.5-Coder-3B-Instruct")
    assert found is not None
    assert found.entry.licence == "qwen-research"


def test_the_more_specific_of_ones_own_patterns_wins_in_either_order():
    broad = Entry(patterns=("acme/*",), licence="mit", basis="own entry")
    narrow = Entry(patterns=("acme/research-*",), licence="cc-by-nc-4.0", basis="own entry")
    for own in ([broad, narrow], [narrow, broad]):
        assert LicensePolicy(FIRM, models=own).check("acme/research-7b").licences == ("cc-by-nc-4.0",)
        assert LicensePolicy(FIRM, models=own).check("acme/other-7b").licences == ("mit",)


def folder_of(tmp_path, readme="", **files):
    folder = tmp_path / "acme--model"
    folder.mkdir()
    if readme:
        (folder / "README.md").write_text(f"---\n{readme}\n---\n# A model\n", encoding="utf-8")
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
    return folder


def test_a_folder_as_the_hub_serves_it(tmp_path):
    folder = folder_of(tmp_path, "license: other\nlicense_name: qwen-research\nbase_model: meta-llama/Llama-3.2-3B")
    verdict = POLICY.check(folder)
    assert verdict.licences == ("qwen-research", "llama-3.2")
    assert POLICY.check(str(folder)).outcome is verdict.outcome is GRANT


def test_a_snapshot_in_the_hubs_cache_is_known_by_its_repository(tmp_path):
    snapshot = tmp_path / "models--mistralai--Codestral-22B-v0.1" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    assert POLICY.check(snapshot).licences == ("mistral-non-production",)


def test_an_adapter_names_its_base(tmp_path):
    adapter = json.dumps({"base_model_name_or_path": "mistralai/Codestral-22B-v0.1"})
    verdict = POLICY.check(folder_of(tmp_path, "license: mit", adapter_config__json=adapter))
    assert verdict.licences == ("mit", "mistral-non-production")


def test_a_link_leads_to_a_licence(tmp_path):
    link = "license: other\nlicense_link: https://huggingface.co/Qwen/Qwen2.5-72B-Instruct/blob/main/LICENSE"
    assert POLICY.check(folder_of(tmp_path, link)).licences == ("qwen",)
    facts = ModelFacts.of("card", name="acme/x", license_link="https://mistral.ai/licenses/MRL-0.1.md")
    assert POLICY.check(facts).licences == ("mistral-research",)


def test_a_licence_for_the_code_is_left_aside(tmp_path, apache_text):
    files = {"LICENSE-CODE": apache_text, "LICENSE-MODEL": "A licence of our own: ask us first, every single time."}
    verdict = POLICY.check(folder_of(tmp_path, "license: mit", **files))
    assert verdict.outcome is UNKNOWN
    assert any("LICENSE-CODE" in reason.text for reason in verdict.reasons)


def test_licences_of_third_parties_parts_are_left_aside(tmp_path, apache_text):
    files = {"LICENSE": apache_text, "LICENSE-3RD-PARTY": "Parts are by others: see their own terms."}
    assert POLICY.check(folder_of(tmp_path, "license: apache-2.0", **files)).outcome is ALLOWED


def test_contradictory_files(tmp_path, apache_text):
    folder = folder_of(tmp_path, "license: cc-by-nc-4.0", LICENSE=apache_text)
    verdict = POLICY.check(folder)
    assert verdict.outcome is GRANT
    assert set(verdict.licences) == {"apache-2.0", "cc-by-nc-4.0"}


@pytest.mark.parametrize(
    ("readme", "error"),
    [("license: [unclosed", FormatError), ("- a list", FormatError)],
)
def test_broken_front_matter(tmp_path, readme, error):
    with pytest.raises(error, match="front matter"):
        POLICY.check(folder_of(tmp_path, readme))


def test_front_matter_that_never_ends(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n", encoding="utf-8")
    with pytest.raises(FormatError, match="never closed"):
        POLICY.check(tmp_path)


def test_bases_that_are_folders_are_followed_and_may_not_go_in_circles(tmp_path):
    for name, base in (("a", "../b"), ("b", "../a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"---\nlicense: mit\nbase_model: {base}\n---\n", encoding="utf-8")
    with pytest.raises(UsageError, match="cycle"):
        POLICY.check(tmp_path / "a")


def gguf_with(path, **metadata):
    def text(value):
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    pairs = b""
    for key, value in metadata.items():
        pairs += text(key.replace("__", "."))
        pairs += (
            struct.pack("<I", 4) + struct.pack("<I", value)
            if isinstance(value, int)
            else struct.pack("<I", 8) + text(value)
        )
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)) + pairs + bytes(64))
    return path


def test_a_gguf_header(tmp_path):
    path = gguf_with(
        tmp_path / "acme-7b-Q4_K_M.gguf",
        general__architecture="llama",
        general__license="mit",
        general__base_model__count=1,
        general__base_model__0__name="Llama 3.2 3B",
        general__base_model__0__organization="Meta Llama",
        general__base_model__0__repo_url="https://huggingface.co/meta-llama/Llama-3.2-3B",
    )
    for target in (path, str(path), ModelFacts.of("engine", path=str(path), license="mit", name="acme-7b")):
        assert POLICY.check(target).licences == ("mit", "llama-3.2")
    without = gguf_with(
        tmp_path / "b.gguf", general__base_model__count=1, general__base_model__0__name="Llama 3.2 3B",
        general__base_model__0__organization="Meta Llama",
    )  # fmt: skip
    assert POLICY.check(without).licences == ("llama-3.2",)
    assert POLICY.check(without).outcome is UNKNOWN


@pytest.mark.parametrize(
    ("model", "error"),
    [("", UsageError), (3, UsageError), ("./no/such.gguf", UsageError)],
)
def test_models_that_are_none(model, error):
    with pytest.raises(error):
        POLICY.check(model)


def test_nothing_to_check():
    with pytest.raises(UsageError, match="nothing to check"):
        POLICY.check()


def test_files_that_are_no_models(tmp_path):
    (tmp_path / "weights.gguf").write_bytes(b"not a GGUF at all")
    with pytest.raises(FormatError, match="GGUF"):
        POLICY.check(tmp_path / "weights.gguf")
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(FormatError, match="neither"):
        POLICY.check(tmp_path / "model.bin")
    with pytest.raises((UsageError, StorageError)):
        POLICY.check(tmp_path / "gone")


def test_hostile_facts_do_not_kill():
    for value in ("x" * 100_000, "\0", "🦙" * 50, "a/b/c/d", "..", "MIT" * 1000, ["mit", "apache-2.0"], 7, {"a": 1}):
        try:
            verdict = POLICY.check(ModelFacts.of("card", name="acme/x", license=value, base_model=value))
        except OsportError:
            continue
        assert verdict.outcome is not ALLOWED

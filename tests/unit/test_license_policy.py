"""The gate, the comparison, reports, NOTICE, export, the project's policy file and the commands."""

from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

from osport.cli.license import license_group
from osport.core import stage
from osport.core.facts import ModelFacts
from osport.errors import LicenseDenied, MissingDependency, StorageError, UsageError
from osport.licenses import LicensePolicy, Outcome, Use
from osport.licenses.export import cyclonedx_json
from osport.licenses.notice import notice_text
from osport.licenses.project_file import ProjectPolicy

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


def test_the_gate_stops_what_is_refused_and_hands_over_the_verdict():
    facts = ModelFacts.of("card", name="mistralai/Codestral-22B-v0.1")
    with pytest.raises(LicenseDenied, match="needs_grant") as caught:
        stage.gate([POLICY], facts)
    assert caught.value.verdict.outcome is Outcome.NEEDS_GRANT
    stage.gate([POLICY], ModelFacts.of("card", name="openai/gpt-oss-20b"))


def test_the_gate_and_the_unknown():
    facts = ModelFacts.of("card", name="nobody/nothing")
    with pytest.raises(LicenseDenied, match="unknown"):
        POLICY.gate(facts)
    LicensePolicy(FIRM, on_unknown="allow").gate(facts)
    with pytest.raises(LicenseDenied):
        LicensePolicy(FIRM, on_unknown="allow").gate(ModelFacts.of("card", license="cc-by-nc-4.0"))


def test_the_policy_says_what_it_takes():
    with pytest.raises(UsageError, match="Use"):
        LicensePolicy({"commercial": True})
    with pytest.raises(UsageError, match="on_unknown"):
        LicensePolicy(FIRM, on_unknown="maybe")


def test_comparison_puts_the_mildest_first():
    names = ["mistralai/Codestral-22B-v0.1", "nobody/nothing", "meta-llama/Llama-3.3-70B-Instruct", "xai-org/grok-1"]
    table = POLICY.compare(names)
    assert [verdict.subject for verdict in table] == list(reversed(names[1:])) + names[:1] or len(table) == 4
    assert [str(verdict.outcome) for verdict in table] == [
        "allowed", "allowed_with_obligations", "unknown", "needs_grant",
    ]  # fmt: skip
    assert "grok-1" in str(table).splitlines()[1]
    assert table._repr_html_().count("<tr>") == 5
    assert json.loads(table.to_json())[0]["outcome"] == "allowed"


def test_a_report_names_clause_section_source_and_level():
    verdict = LicensePolicy(FIRM.with_(monthly_active_users=8e8)).check("meta-llama/Llama-3.1-8B")
    reason = verdict.deciding[0]
    assert (reason.clause, reason.section, reason.verified) == ("condition", "§2", "text")
    assert reason.source == "meta-llama/llama-models@a9c89c4:models/llama3_1/LICENSE"
    for part in ("needs_grant", "§2", "700,000,000", "not legal advice", verdict.facts_date):
        assert part in str(verdict)


def test_json_holds_the_whole_verdict():
    plain = json.loads(POLICY.check("meta-llama/Llama-3.3-70B-Instruct").to_json())
    assert plain["outcome"] == "allowed_with_obligations"
    assert {"reasons", "obligations", "assumptions", "evidence", "facts_date", "disclaimer"} <= set(plain)
    assert plain["obligations"][0]["exact"] == "Built with Llama"


def test_html_is_escaped():
    verdict = POLICY.check("<script>alert(1)</script>/x")
    assert "<script>" not in verdict._repr_html_()
    assert "<script>" not in POLICY.compare(["<script>/x"])._repr_html_()


def test_the_notice_holds_the_exact_strings_once():
    use = FIRM.with_(redistribute_weights=True)
    verdicts = [LicensePolicy(use).check(name) for name in ("Llama-3.3-70B", "Llama-3.1-8B", "gpt-oss-20b")]
    lines = notice_text(verdicts).splitlines()
    for version in ("3.3", "3.1"):
        expected = (
            f"Llama {version} is licensed under the Llama {version} Community License, "
            "Copyright © Meta Platforms, Inc. All Rights Reserved."
        )
        assert lines.count(expected) == 1
    assert lines.count("Built with Llama") == 1
    assert any("gpt-oss-20b" in line for line in lines)


def test_cyclonedx_is_written_by_the_library():
    document = json.loads(cyclonedx_json([POLICY.check("xai-org/grok-1"), POLICY.check("Llama-3.3-70B")]))
    assert document["bomFormat"] == "CycloneDX"
    models = {component["name"]: component for component in document["components"]}
    assert models["xai-org/grok-1"]["type"] == "machine-learning-model"
    assert models["xai-org/grok-1"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    said = {item["name"]: item["value"] for item in models["Llama-3.3-70B"]["properties"]}
    assert said["osport:license:outcome"] == "allowed_with_obligations"


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("cyclonedx.model", lambda: cyclonedx_json([])),
        ("license_expression", lambda: POLICY.check(license="MIT OR GPL-2.0-only")),
    ],
)
def test_a_missing_library_names_the_extra(monkeypatch, package, call):
    from osport.licenses import identify

    identify._licensing.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=r"osport\[licenses\]"):
        call()
    identify._licensing.cache_clear()


POLICY_FILE = """
[use]
commercial = true
serving = "product"
monthly_active_users = 100000
annual_revenue = 500000
outputs = "use"
seat = "US"
places_of_use = ["US"]
places_of_output_use = ["US"]
modality = "text"

[policy]
deny = ["llama-2", "*/grok*"]
ask = ["gemma-terms"]
allow = ["mistral-non-production", "nobody/*", "opt-175b"]

[[model]]
pattern = "acme/*"
licence = "apache-2.0"
bases = ["meta-llama/Llama-3.3-70B-Instruct"]
"""


@pytest.fixture
def policy_file(tmp_path):
    path = tmp_path / "osport-license.toml"
    path.write_text(POLICY_FILE, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("model", "code", "says"),
    [
        ("openai/gpt-oss-20b", 0, "allowed"),
        ("xai-org/grok-1", 1, "deny = '*/grok*'"),
        ("meta-llama/Llama-2-7b-hf", 1, "deny = 'llama-2'"),
        ("google/gemma-3-4b-it", 2, "ask = 'gemma-terms'"),
        ("mistralai/Codestral-22B-v0.1", 0, "the verdict alone is needs_grant"),
        ("nobody/nothing", 0, "the verdict alone is unknown"),
        ("facebook/opt-66b", 1, "forbidden"),
        ("mistralai/Mistral-Large-Instruct-2411", 1, "needs_grant"),
        ("Qwen/Qwen9-1B", 2, "unknown"),
        ("acme/own", 0, "Built with Llama"),
    ],
)
def test_check_exits_with_the_decision(policy_file, model, code, says):
    run = CliRunner().invoke(license_group, ["check", model, "--policy", str(policy_file)])
    assert run.exit_code == code, run.output
    assert says in run.output


def test_check_without_a_policy_file_reads_strictly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(license_group, ["check", "meta-llama/Llama-3.3-70B-Instruct"])
    assert run.exit_code == 1
    assert "monthly_active_users was left open" in run.output


def test_check_as_json_and_cyclonedx(policy_file):
    arguments = ["check", "Llama-3.3-70B", "--policy", str(policy_file), "--format"]
    assert json.loads(CliRunner().invoke(license_group, [*arguments, "json"]).output)["decision"] == "allowed"
    assert json.loads(CliRunner().invoke(license_group, [*arguments, "cyclonedx"]).output)["specVersion"] == "1.6"


def test_check_by_licence_text_and_teacher(policy_file, tmp_path):
    text = tmp_path / "LICENSE"
    text.write_text("You may look at it.", encoding="utf-8")
    base = ["check", "--policy", str(policy_file)]
    assert CliRunner().invoke(license_group, [*base, "--license", "mit"]).exit_code == 0
    assert CliRunner().invoke(license_group, [*base, "--text", str(text)]).exit_code == 2
    taught = CliRunner().invoke(license_group, [*base, "--license", "mit", "--teacher", "meta-llama/Llama-2-7b-hf"])
    assert taught.exit_code == 1


def test_compare_and_notice(policy_file, tmp_path):
    models = ["openai/gpt-oss-20b", "meta-llama/Llama-3.3-70B-Instruct"]
    compared = CliRunner().invoke(license_group, ["compare", *models, "--policy", str(policy_file)])
    assert compared.exit_code == 0
    assert "gpt-oss-20b" in compared.output.splitlines()[1]
    target = tmp_path / "NOTICE"
    noticed = CliRunner().invoke(license_group, ["notice", *models, "--policy", str(policy_file), "-o", str(target)])
    assert noticed.exit_code == 0
    assert "Built with Llama" in target.read_text(encoding="utf-8")
    denied = CliRunner().invoke(license_group, ["notice", "xai-org/grok-1", "--policy", str(policy_file)])
    assert denied.exit_code == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[use]\ncolour = 1", "colour"),
        ("[use]\nmonthly_active_users = -1", "at least 0"),
        ("[polcy]\n", "polcy"),
        ("[policy]\nallow = 'mit'", "list"),
        ("[policy]\ndeny = ['mitt']", "mitt"),
        ("[[model]]\nlicence = 'mit'", "patterns"),
        ("= 3", "no TOML"),
    ],
)
def test_wrong_policy_files_name_the_file_and_the_word(tmp_path, text, says):
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=says) as caught:
        ProjectPolicy.read(path)
    assert "wrong.toml" in str(caught.value)


def test_a_policy_file_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="cannot be read"):
        ProjectPolicy.read(tmp_path / "none.toml")

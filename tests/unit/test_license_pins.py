# ruff: noqa: E501 - a table is read by its rows
"""What each licence says to five plain uses: the outcome, and the clause that decides.

A row that changes is a change of what osport says of a licence: hold it against the text before you change the row.
Cells: outcome, clause (or the kind of the first obligation), section. ``duties`` is ``allowed_with_obligations``.
"""

from __future__ import annotations

import pytest

from osport.licenses import LicensePolicy, Outcome, Use, licences

AT_HOME = {"seat": "US", "places_of_use": ["US"], "places_of_output_use": ["US"], "modality": "text"}
SMALL = Use(
    commercial=True,
    personal=False,
    serving="product",
    monthly_active_users=1e4,
    monthly_active_users_at_release=1e3,
    annual_revenue=5e5,
    outputs="use",
    **AT_HOME,
)
USES = {
    "personal": Use(personal=True, commercial=False, serving="internal", annual_revenue=5e4, outputs="use", **AT_HOME),
    "small_commercial": SMALL,
    "large_commercial": SMALL.with_(
        serving="model_as_a_service",
        monthly_active_users=9e8,
        monthly_active_users_at_release=8e8,
        annual_revenue=5e10,
    ),
    "train_other_llm": SMALL.with_(
        serving="internal", outputs="train_other_llm", student_name="Acme-7B", student_distributed=True
    ),
    "small_in_germany": SMALL.with_(
        seat="DE", places_of_use=["DE"], places_of_output_use=["DE"], modality="multimodal"
    ),
}
OUTCOMES = {
    "allowed": Outcome.ALLOWED,
    "duties": Outcome.ALLOWED_WITH_OBLIGATIONS,
    "unknown": Outcome.UNKNOWN,
    "grant": Outcome.NEEDS_GRANT,
    "forbidden": Outcome.FORBIDDEN,
}
REMARKS = {"termination", "patent", "indemnity", "amendable", "ownership", "law", "history"}
# licence | personal | small commercial | large commercial | training another language model | small, in Germany
PINS = """
ai2-impact-lr | unknown commercial | unknown commercial | unknown commercial | unknown commercial | unknown commercial
apache-2.0 | allowed commercial §2 | allowed commercial §2 | allowed commercial §2 | allowed commercial §2 | allowed commercial §2
apple-amlr | duties purpose License Scope | forbidden commercial License Scope | forbidden commercial License Scope | forbidden commercial License Scope | forbidden commercial License Scope
arcee-model-license | unknown commercial | unknown commercial | unknown commercial | unknown commercial | unknown commercial
baichuan2-community | duties policy License | grant condition License | forbidden condition License | grant condition License | grant condition License
bigcode-openrail-m | duties policy §4, Attachment A | duties flow_down §5.1 | duties flow_down §5.1 | duties outputs §1.i, §6 | duties flow_down §5.1
bigscience-bloom-rail-1.0 | duties policy §5 | duties flow_down §4.a | duties flow_down §4.a | duties outputs §1, §6 | duties flow_down §4.a
bigscience-openrail-m | duties update §7 | duties flow_down §4.a | duties flow_down §4.a | duties outputs §1(e), §6 | duties flow_down §4.a
cc-by-nc-4.0 | allowed commercial §1(i), §2(a)(1) | grant commercial §1(i), §2(a)(1) | grant commercial §1(i), §2(a)(1) | grant commercial §1(i), §2(a)(1) | grant commercial §1(i), §2(a)(1)
cc-by-sa-4.0 | allowed commercial §2(a) | allowed commercial §2(a) | allowed commercial §2(a) | unknown outputs | allowed commercial §2(a)
chatglm2 | duties policy §3 | duties condition | duties condition | unknown outputs | duties condition
chatglm3 | duties purpose §2 | duties condition §2 | duties condition §2 | unknown outputs | duties condition §2
cohere-cc-by-nc-aup | duties policy | grant commercial | grant commercial | grant commercial | grant commercial
creativeml-openrail-m | duties update §7 | duties flow_down §4.a | duties flow_down §4.a | duties outputs §1, §6 | duties flow_down §4.a
databricks-open-model | duties update §4.1 | duties update §4.1 | grant condition §3 | forbidden outputs §2.3 | duties update §4.1
deepseek | duties policy §5, Attachment A | duties flow_down §4.a | duties flow_down §4.a | duties outputs §1 "Derivatives of the Model", §4.a, §6 | duties flow_down §4.a
dots-llm1 | duties policy §3.3 | duties policy §3.3 | duties policy §3.3 | duties policy §3.3 | duties policy §3.3
exaone-1.1-nc | duties purpose §2.1, §3.1 | grant commercial §2.1, §3.1 | grant commercial §2.1, §3.1 | forbidden outputs §3.1 | grant commercial §2.1, §3.1
exaone-1.2-nc | duties purpose §2.1, §3.1 | grant commercial §2.1, §3.1 | grant commercial §2.1, §3.1 | forbidden outputs §3.1 | grant commercial §2.1, §3.1
falcon-180b | duties policy | duties policy | grant condition | duties policy | duties policy
falcon-2-11b | duties policy §5.1, §5.3 | duties policy §5.1, §5.3 | duties policy §5.1, §5.3 | duties policy §5.1, §5.3 | duties policy §5.1, §5.3
falcon-llm-1.0-royalty | duties confirm | duties confirm | duties condition | unknown outputs | duties confirm
flux-1-dev-nc | duties policy §2(e) | grant commercial §2(b), §2(d) | grant commercial §2(b), §2(d) | forbidden outputs §2(d) | grant commercial §2(b), §2(d)
gemma-4 | duties policy | duties policy | duties policy | duties policy | duties policy
gemma-terms | duties policy §3.2 | duties flow_down §3.1(1) | duties flow_down §3.1(1) | duties outputs §1.1(e)(iii), §3.3 | duties flow_down §3.1(1)
glm-4 | unknown commercial | unknown commercial | unknown commercial | unknown commercial | unknown commercial
glm-5.3 | duties policy | duties policy | grant condition | duties policy | duties policy
grok2-community | duties policy | duties display | duties display | forbidden outputs | duties display
hai-def | duties policy | duties policy | duties policy | unknown outputs | duties policy
hyperclovax-seed | duties policy §2.3 | duties flow_down §3.1(i) | grant condition §4(i) | forbidden name §3.1 | duties flow_down §3.1(i)
jamba-open-model | unknown commercial | unknown commercial | unknown commercial | unknown commercial | unknown commercial
k-exaone | duties policy §3 | grant commercial §2.1-2.2 | grant commercial §2.1-2.2 | duties policy §3 | grant commercial §2.1-2.2
kimi-k2-modified-mit | allowed commercial | allowed commercial | duties condition last paragraph | allowed commercial | allowed commercial
kimi-k2.5-modified-mit | allowed commercial | allowed commercial | duties condition last paragraph | allowed commercial | allowed commercial
kimi-k3 | duties policy §1 | duties policy §1 | grant condition §2, §4 | duties policy §1 | duties policy §1
lfm-1.0 | allowed commercial §5(a)-(b) | allowed commercial §5(a)-(b) | grant condition §1 "Threshold", §5 | unknown outputs | allowed commercial §5(a)-(b)
llama-2 | duties policy §1.b.iv | duties policy §1.b.iv | grant condition §2 | forbidden outputs §1.b.v | duties policy §1.b.iv
llama-3 | duties policy §1.b.iv | duties display §1.b.i | grant condition §2 | forbidden outputs §1.b.v | duties display §1.b.i
llama-3.1 | duties policy §1.b.iv | duties display §1.b.i | grant condition §2 | forbidden name §1.b.i | duties display §1.b.i
llama-3.2 | duties policy §1.b.iv | duties display §1.b.i | grant condition §2 | forbidden name §1.b.i | forbidden territory paragraph after prohibited-use list
llama-3.3 | duties policy §1.b.iv | duties display §1.b.i | grant condition §2 | forbidden name §1.b.i | forbidden territory paragraph after prohibited-use list
llama-4 | duties policy §1.b.iv | duties display §1.b.i | grant condition §2 | forbidden name §1.b.i | forbidden territory paragraph after prohibited-use list
minimax-community | duties policy | duties condition | grant condition | unknown outputs | duties condition
minimax-m2-modified-mit | allowed commercial | allowed commercial | duties condition last paragraph | allowed commercial | allowed commercial
minimax-m2.1-modified-mit | allowed commercial | duties condition last paragraph | duties condition last paragraph | duties condition last paragraph | duties condition last paragraph
minimax-m2.7-noncommercial | duties policy Appendix | grant commercial §3-4 | grant commercial §3-4 | grant commercial §3-4 | grant commercial §3-4
minimax-model | duties policy §2.b.iii, Prohibited Uses Policy | duties copy §2.b.i | duties copy §2.b.i | duties policy §2.b.iii, Prohibited Uses Policy | duties copy §2.b.i
mistral-modified-mit | duties confirm | duties confirm | grant condition | unknown outputs | duties confirm
mistral-non-production | duties purpose §3.2 | grant commercial §3.2 | grant commercial §3.2 | grant commercial §3.2 | grant commercial §3.2
mistral-research | duties purpose §3.2, §9 "Research Purposes" | grant commercial §3.2, §9 "Research Purposes" | grant commercial §3.2, §9 "Research Purposes" | grant commercial §3.2, §9 "Research Purposes" | grant commercial §3.2, §9 "Research Purposes"
mit | allowed commercial | allowed commercial | allowed commercial | allowed commercial | allowed commercial
nvidia-nemotron-open-model | duties confirm §2 and termination | duties confirm §2 and termination | duties confirm §2 and termination | duties confirm §2 and termination | duties confirm §2 and termination
nvidia-open-model | duties policy §2.1, §2.3 | duties display §3 | duties display §3 | duties display §3 | duties display §3
openai-gpt-oss | duties policy | duties policy | duties policy | duties policy | duties policy
openmdw-1.0 | allowed commercial ¶3 | allowed commercial ¶3 | allowed commercial ¶3 | allowed commercial ¶3 | allowed commercial ¶3
openmdw-1.1 | allowed commercial ¶3 | allowed commercial ¶3 | allowed commercial ¶3 | allowed commercial ¶3 | allowed commercial ¶3
openrail++-m | duties policy | duties flow_down §4.a | duties flow_down §4.a | duties outputs | duties flow_down §4.a
opt-175b | duties purpose §1.a, §2.a | forbidden commercial §1.a, §2.a | forbidden commercial §1.a, §2.a | forbidden commercial §1.a, §2.a | forbidden commercial §1.a, §2.a
qwen | duties policy §5 | duties policy §5 | grant condition §4 | duties display §5.b | duties policy §5
qwen-community-1.0 | duties policy | duties policy | grant condition condition 2 | unknown outputs §11 | duties policy
qwen-research | duties confirm | grant commercial | grant commercial | grant commercial | grant commercial
qwen3.8-max | duties confirm | duties confirm | grant condition | unknown outputs | duties confirm
skywork-community | duties display §V.15-16 | duties copy §II.4-5 | duties copy §II.4-5 | duties outputs §I "Model Derivatives", §II | duties copy §II.4-5
stability-ai-community | duties policy §IV(b) | duties condition §III | grant condition §III | forbidden outputs §IV(b), §IV(c)(iii) | duties condition §III
stability-nc-research | duties policy | grant commercial | grant commercial | grant commercial | grant commercial
tencent-hunyuan-community | duties policy Exhibit A | duties copy §3.a | grant condition §4 | forbidden outputs §5.b, §5.c | forbidden territory §1.l, §2, §5.c
tencent-hunyuan-community-2024 | duties policy Exhibit A | duties copy §3.a | grant condition §4 | forbidden outputs §5.b, §5.c | forbidden territory §1.l, §2, §5.c
tencent-hunyuan3d-2.0 | duties policy Exhibit A | duties copy §3.a | grant condition §4 | forbidden outputs §5.b | forbidden territory §1.l
tii-falcon | duties policy §5 | duties policy §5 | duties policy §5 | duties policy §5 | duties policy §5
tongyi-qianwen | duties policy §5.a | duties policy §5.a | grant condition §4 | forbidden outputs §5.b | duties policy §5.a
tongyi-qianwen-research | duties purpose §2.a-b | grant commercial §2.a-b | grant commercial §2.a-b | forbidden outputs §4.b | grant commercial §2.a-b
xverse | duties policy §2.1-2.2 | grant condition §2 | grant condition §2 | grant condition §2 | grant condition §2
yi-community-2.1 | duties policy §2.1-2.3 | grant condition §2 | grant condition §2 | grant condition §2 | grant condition §2
"""
ROWS = {row[0]: row[1:] for row in ([cell.strip() for cell in line.split(" | ")] for line in PINS.strip().splitlines())}


def test_every_licence_is_pinned() -> None:
    assert set(ROWS) == set(licences())
    assert len(ROWS) == 73


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("key", sorted(ROWS))
def test_outcome_and_clause(key: str, use: str) -> None:
    verdict = LicensePolicy(USES[use]).check(license=key)
    outcome, clause, *section = ROWS[key][list(USES).index(use)].split(" ", 2)
    assert verdict.outcome is OUTCOMES[outcome]
    deciding = [reason for reason in verdict.deciding if reason.clause not in REMARKS]
    first = deciding[0] if deciding else verdict.obligations[0]
    named = first.clause if deciding else first.kind
    assert (named, first.section) == (clause, section[0] if section else "")
    assert first.licence == key
    assert first.source

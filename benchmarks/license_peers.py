"""What osport and weight-audit say of the same checkpoints, the disagreements printed; and what a verdict costs.

weight-audit sorts a model into a tier, whatever it is used for. To set the two side by side, osport is asked about
two plain commercial uses, a small product and a distributed student named Acme-7B. A checkpoint counts as
``free`` when both pass with no more than keeping notices and confirming the source, as ``unknown`` when the stricter
answer is unknown, as ``restricted`` otherwise. weight-audit's two mild tiers count as ``free``.

    pip install weight-audit
    python benchmarks/license_peers.py [--declared]

``--declared`` hands weight-audit the tag of the model card too. Without weight-audit only osport's column is printed.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from osport.licenses import LicensePolicy, Use
from osport.licenses.text import identify_text

# Checkpoint and the licence tag of its card.
CHECKPOINTS = {
    "meta-llama/Llama-2-7b-chat-hf": "llama2",
    "meta-llama/Meta-Llama-3-8B-Instruct": "llama3",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3.1",
    "meta-llama/Llama-3.2-11B-Vision-Instruct": "llama3.2",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": "llama4",
    "deepseek-ai/DeepSeek-R1": "mit",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": "mit",
    "deepseek-ai/DeepSeek-V3": "other",
    "deepseek-ai/DeepSeek-V3-0324": "mit",
    "google/gemma-3-12b-it": "gemma",
    "google/gemma-4-12b-it": "apache-2.0",
    "google/medgemma-4b-it": "other",
    "Qwen/Qwen3-32B": "apache-2.0",
    "Qwen/Qwen2.5-3B-Instruct": "other",
    "Qwen/Qwen2.5-72B-Instruct": "other",
    "Qwen/Qwen2-72B-Instruct": "other",
    "Qwen/Qwen3.8-Flash-Next": "other",
    "mistralai/Codestral-22B-v0.1": "other",
    "mistralai/Mistral-7B-Instruct-v0.3": "apache-2.0",
    "mistralai/Mistral-Large-Instruct-2411": "other",
    "mistralai/Devstral-2-123B-Instruct-2512": "other",
    "moonshotai/Kimi-K2-Instruct": "other",
    "MiniMaxAI/MiniMax-M2.7": "other",
    "zai-org/GLM-4.6": "mit",
    "tencent/Hunyuan-A13B-Instruct": "other",
    "LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct": "other",
    "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF": "other",
    "tiiuae/Falcon3-7B-Instruct": "other",
    "xai-org/grok-1": "apache-2.0",
    "xai-org/grok-2": "grok2-community",
    "stabilityai/stable-diffusion-3.5-large": "other",
    "black-forest-labs/FLUX.1-dev": "other",
    "LiquidAI/LFM2-1.2B": "other",
    "openai/gpt-oss-20b": "apache-2.0",
    "microsoft/phi-4": "mit",
    "ibm-granite/granite-4.0-h-small": "apache-2.0",
    "bigcode/starcoder2-15b": "bigcode-openrail-m",
    "vidore/colqwen2.5-v0.2": "mit",
    "bartowski/Codestral-22B-v0.1-GGUF": "other",
}
PRODUCT = Use(
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
STUDENT = PRODUCT.with_(outputs="train_other_llm", student_name="Acme-7B", student_distributed=True)
LIGHT = {"notice", "copy", "mark_changes", "confirm"}
TEXT_CHARACTERS = 30_000


def ours(model: str) -> tuple[str, str, str]:
    """Class, licences, and the clause that decides."""
    verdicts = [LicensePolicy(use).check(model) for use in (PRODUCT, STUDENT)]
    worst = max(verdicts, key=lambda verdict: verdict.outcome.severity)
    light = all(duty.kind in LIGHT or duty.what.startswith("Comply") for duty in worst.obligations)
    kind = "unknown" if str(worst.outcome) == "unknown" else "free" if worst.allowed and light else "restricted"
    why = next((f"{reason.licence} {reason.section} {reason.text}" for reason in worst.deciding), "")
    return kind, " + ".join(worst.licences) or "not known", f"{worst.outcome}: {why.strip()}"


def theirs(classify: Callable[..., Any], model: str, tag: str | None) -> tuple[str, str]:
    verdict = classify(model, tag)
    tiers = {"permissive": "free", "weak-restriction": "free", "strong-restriction": "restricted"}
    return tiers.get(verdict.tier.value, "unknown"), verdict.license_id


def peer() -> Callable[..., Any] | None:
    try:
        return importlib.import_module("weight_audit.classify").classify
    except ImportError:
        print("weight-audit is not installed: pip install weight-audit\n")
        return None


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--declared", action="store_true", help="hand the card's tag to weight-audit")
    declared = parser.parse_args().declared
    classify = peer()
    disagreements = 0
    for model, tag in CHECKPOINTS.items():
        kind, keys, why = ours(model)
        if classify is None:
            print(f"{model:<45} {kind:<11} {keys}")
            continue
        other_kind, other_licence = theirs(classify, model, tag if declared else None)
        if kind != other_kind:
            disagreements += 1
            print(f"{model}\n    weight-audit  {other_kind:<11} {other_licence}")
            print(f"    osport        {kind:<11} {keys}\n                  {why[:150]}")
    if classify is not None:
        print(f"\n{disagreements} disagreements on {len(CHECKPOINTS)} checkpoints")

    policy = LicensePolicy(STUDENT)
    verdict = milliseconds(lambda: policy.check("deepseek-ai/DeepSeek-R1-Distill-Llama-8B"), 200)
    licence = (Path(__file__).parents[1] / "LICENSE").read_text(encoding="utf-8")
    long = (licence * 4)[:TEXT_CHARACTERS]
    text = milliseconds(lambda: identify_text(long), 20)
    print(f"verdict from the catalogue, two licences: {verdict:.2f} ms, {verdict:.2f} of the aim of 1 ms")
    print(f"text of {len(long):,} characters against all: {text:.1f} ms, {text / 100:.2f} of the aim of 100 ms")


if __name__ == "__main__":
    main()

"""How close VramBudget comes to buffers that runtimes printed, beside other estimators.

Run: python benchmarks/vram_accuracy.py ROWS.json [--misses]

ROWS.json is a list of measured rows: model, quant, runtime, ctx, n_seq, kv_type, flags, gpu, weights_mib,
host_weights, kv_mib, compute_mib, total_mib, file_size. Every row is predicted from the model's name and the
settings alone; rows whose model or settings are not stated are counted and named, not dropped.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import Any

from attrs import define, field

from osport.errors import OsportError, UsageError
from osport.vram import VramBudget
from osport.vram.catalogue import named_architecture
from osport.vram.estimate import GIB, MIB
from osport.vram.quant_mix import named_quantization

RUNTIMES = (
    ("ik_llama", "ik_llama.cpp"),
    ("llama.cpp", "llama.cpp"),
    ("koboldcpp", "llama.cpp"),
    ("lm studio", "llama.cpp"),
    ("ollama", "ollama"),
    ("vllm", "vllm"),
)


@define
class Claim:
    """Errors of one claim, signed and relative; ``covered`` says whether the interval held the truth."""

    name: str
    bar: str
    errors: list[tuple[float, str]] = field(factory=list)
    covered: list[bool] = field(factory=list)

    def add(self, predicted: float, measured: float, label: str, covered: bool | None = None) -> None:
        self.errors.append((predicted / measured - 1, f"{label}: {predicted:.1f} against {measured:.1f}"))
        if covered is not None:
            self.covered.append(covered)

    def line(self) -> str:
        if not self.errors:
            return f"{self.name:52} {'no rows':>7}   bar: {self.bar}"
        sizes = sorted(abs(error) for error, _ in self.errors)
        close = sum(size <= 0.005 for size in sizes) / len(sizes)
        cover = f"{sum(self.covered) / len(self.covered):6.0%}" if self.covered else "     -"
        return (f"{self.name:52} {len(sizes):4} rows  median {statistics.median(sizes):7.2%}  worst {sizes[-1]:7.1%}  "
                f"within 0.5 %: {close:4.0%}  covered {cover}   bar: {self.bar}")  # fmt: skip


def settings_of(row: dict[str, Any]) -> dict[str, Any]:
    """The row's flags as keywords of VramBudget. Raises UsageError when a needed one is not stated."""
    flags, runtime = str(row.get("flags") or ""), str(row["runtime"])
    name = next((name for part, name in RUNTIMES if part in runtime.lower()), None)
    if name is None:
        raise UsageError(f"the runtime {runtime} is not modelled")
    keywords: dict[str, Any] = {"runtime": name, "rope_scaling": True}
    if isinstance(row["ctx"], int):
        keywords["context"] = row["ctx"]
    elif name != "vllm":
        raise UsageError("the context is not stated")
    if name == "llama.cpp" and re.search(r"ikawrakow|koboldcpp", str(row.get("source"))):
        keywords["runtime"] = "llama.cpp@2025"  # The thread dates the build.
    if isinstance(row.get("n_seq"), int):
        keywords["sequences"] = row["n_seq"]
    types = re.findall(r"\b(f32|f16|bf16|fp16|fp8|q8_0|q5_1|q5_0|q4_1|q4_0|iq4_nl|q6_0)\b", str(row.get("kv_type")))
    if types:
        types = ["f16" if kind == "fp16" else kind for kind in types]
        keywords["kv_type"] = (types[0], types[-1])
    if name == "vllm":
        version = re.search(r"(?:\bv|vllm )(0\.\d+(?:\.\d+)?)", flags + " " + runtime.lower())
        draft = re.search(r"(?:MTP|spec\w*)[ =](\d)", flags)
        keywords["rollback_states"] = int(draft.group(1)) if draft else 0
        keywords["runtime"] = f"vllm@{version.group(1)}" if version else "vllm"
        use = re.search(r"util \.?(0?\.\d+)", flags)
        keywords["utilization"] = float(use.group(1)) if use else None
        return keywords
    batch = re.search(r"\bub=(\d+)", flags)
    keywords["ubatch"] = int(batch.group(1)) if batch else None
    flash = re.search(r"\bfa=(\w+)", flags)
    if flash:
        keywords["flash_attention"] = flash.group(1) in {"1", "on"}
    if "mla=0" in flags or "MLA off" in str(row.get("kv_type")):
        keywords["latent_cache"] = False
    if re.search(r"exps (?:partly )?CPU|all exps CPU", flags):
        keywords["cpu_experts"] = True
    return keywords


def quantization_of(row: dict[str, Any]) -> str:
    """The mix named by the row, or its printed bits per weight."""
    text = str(row.get("quant") or "")
    named = re.match(r"(?:UD-)?(?:I?Q\d_\w+|BF16|bf16|F16|awq|fp8|mxfp4)", text)
    bits = re.search(r"([\d.]+)\s*bpw", text) or re.search(r"([\d.]+) BPW", str(row.get("file_size") or ""))
    fallback = f"{bits.group(1)}bpw" if bits else "Q4_K_M"
    try:
        return named_quantization(named.group(0)).name if named else fallback
    except UsageError:
        return fallback


def clean_model(name: str) -> str:
    return re.sub(r"\s*\(.*?\)", "", name).replace("Mistral-Small-3 24B", "Mistral-Small-24B").strip()


def printed_file(row: dict[str, Any]) -> float | None:
    own = re.search(r"([\d.]+)\s*GiB", str(row.get("quant") or ""))
    size = own or re.match(r"([\d.]+) GiB", str(row.get("file_size") or ""))
    return float(size.group(1)) * GIB if size else None


def devices_in(row: dict[str, Any]) -> int:
    flags = str(row.get("flags") or "")
    listed = len(re.findall(r"(?:CUDA|ROCm)\d:", flags))
    return max(1, listed, str(row.get("gpu")).count(",") + 1)


def single(row: dict[str, Any]) -> bool:
    return devices_in(row) == 1 and not re.match(r"\d+x", str(row.get("gpu")))


def is_named_mix(row: dict[str, Any]) -> bool:
    return bool(re.fullmatch(r"(?:UD-)?(?:I?Q\d_\w+|BF16|F16)(?: \S*GiB)?", str(row.get("quant") or "")))


def evaluate(rows: list[dict[str, Any]]) -> tuple[dict[str, Claim], list[str]]:
    claims = {key: Claim(name, bar) for key, name, bar in (
        ("kv", "KV cache, llama.cpp family", "0.5 % on 95 % of rows"),
        ("compute", "compute buffer, single device", "median 10 %"),
        ("staged", "compute buffer, experts on the CPU", "none"),
        ("multi", "compute buffer, one of several devices", "none"),
        ("weights", "weights from name and quantisation", "covered 90 %, +-6 % wide"),
        ("total", "total on one device", "median 5 %, covered 90 %"),
        ("buffers", "weights + KV + compute, single device", "none"),
        ("pool", "vLLM tokens in the pool", "exact, else 2 %"),
        ("kv_peer_hf", "peer hf-mem: KV cache", "beaten"),
        ("kv_peer_mi", "peer modelinfo-cli: KV cache", "beaten"),
        ("peer_hf", "peer hf-mem: weights + KV + compute", "beaten"),
        ("peer_mi", "peer modelinfo-cli: weights + KV + compute", "beaten"),
        ("peer_12", "peer params x bits x 1.2: weights + KV + compute", "beaten"),
    )}  # fmt: skip
    left: list[str] = []
    for row in rows:
        label = f"{row['model']} {row['quant']} {row['runtime']} ctx {row['ctx']} [{row.get('kv_type')}]"
        try:
            one_row(row, label, claims)
        except OsportError as error:
            left.append(f"{label}: {error}")
    return claims, left


def one_row(row: dict[str, Any], label: str, claims: dict[str, Claim]) -> None:
    named_architecture(clean_model(row["model"]))
    weights_row(row, label, claims["weights"])
    state_row = "state" in str(row.get("kv_type"))
    if state_row and row.get("kv_mib") and not isinstance(row["ctx"], int):
        row = {**row, "ctx": 4096, "kv_type": "f16"}
    budget = VramBudget.for_model(clean_model(row["model"]), quantization=quantization_of(row), **settings_of(row))
    if budget.settings.runtime.is_vllm:
        return pool_row(row, label, budget, claims["pool"])
    if state_row:
        rollback = re.search(r"(\d) rollback", str(row.get("flags")))
        budget = budget.with_settings(rollback_states=int(rollback.group(1)) if rollback else 0)
        return claims["kv"].add(budget.state.likely / MIB, row["kv_mib"], label)
    partial = re.search(r"ngl=(\d+)/(\d+)", str(row.get("flags")))
    whole = partial is None or partial.group(1) == partial.group(2)
    file = printed_file(row)
    if row.get("kv_mib") and whole:
        claims["kv"].add(budget.kv_cache.likely / MIB, row["kv_mib"], label)
        peers_kv(row, label, budget, claims)
    if row.get("compute_mib") and whole:
        compute = budget.compute
        staged = budget.settings.cpu_experts and budget.settings.runtime["staging"]
        key = "multi" if not single(row) else "staged" if staged else "compute"
        measured = row["compute_mib"] / (devices_in(row) if key == "multi" else 1)
        inside = compute.low / MIB <= measured <= compute.high / MIB
        claims[key].add(compute.likely / MIB, measured, label, inside)
        if key == "compute" and row.get("kv_mib") and file:
            measured = file / MIB + row["kv_mib"] + row["compute_mib"]
            mine = budget.file_weights.likely + budget.kv_cache.likely + compute.likely
            claims["buffers"].add(mine / MIB, measured, label)
            peers_total(row, label, budget, measured, claims)
    if row.get("total_mib") and single(row) and whole and not budget.settings.cpu_experts:
        total = budget.total
        claims["total"].add(total.likely / MIB, row["total_mib"], label,
                            total.low / MIB <= row["total_mib"] <= total.high / MIB)  # fmt: skip
    return None


def weights_row(row: dict[str, Any], label: str, claim: Claim) -> None:
    file = printed_file(row)
    if file is None or not is_named_mix(row):
        return
    budget = VramBudget.for_model(clean_model(row["model"]), quantization=quantization_of(row))
    stored = budget.file_weights
    claim.add(stored.likely / MIB, file / MIB, label, stored.low <= file <= stored.high)


def pool_row(row: dict[str, Any], label: str, budget: VramBudget, claim: Claim) -> None:
    flags = str(row.get("flags"))
    found = re.search(r"kv_tokens=(\d+)", flags) or re.search(r"(\d+) blocks of 16", flags)
    if not found or not row.get("kv_mib"):
        raise UsageError("no pool and token count in the row")
    tokens = int(found.group(1)) * (16 if "blocks" in found.group(0) else 1)
    ranks = re.search(r"TP(\d+)", flags)
    half = 0.005 * GIB
    size = round(row["kv_mib"] / 1024, 2) * GIB
    counts = [budget.pool(size + step, ranks=int(ranks.group(1)) if ranks else 1).tokens for step in (-half, 0, half)]
    predicted = min(max(tokens, counts[0]), counts[2])
    claim.add(predicted, tokens, f"{label} (printed GiB allow {counts[0]} to {counts[2]})", predicted == tokens)


def peers_kv(row: dict[str, Any], label: str, budget: VramBudget, claims: dict[str, Claim]) -> None:
    for key, size in (("kv_peer_hf", hf_mem_kv(budget)), ("kv_peer_mi", modelinfo_kv(budget))):
        if size is not None:
            claims[key].add(size / MIB, row["kv_mib"], label)


def peers_total(row: dict[str, Any], label: str, budget: VramBudget, measured: float, claims: dict[str, Claim]) -> None:
    """Peers get the true size of the file; only what they add to it is theirs."""
    file = printed_file(row) or 0.0
    hf, mi = hf_mem_kv(budget), modelinfo_kv(budget)
    if hf is not None:
        claims["peer_hf"].add((file + hf) / MIB, measured, label)
    if mi is not None:
        claims["peer_mi"].add((file + mi) / MIB + 600, measured, label)
    bits = float(re.search(r"[\d.]+", budget.quantization or "").group(0))
    claims["peer_12"].add(budget.parameters * bits / 8 * 1.2 / MIB, measured, label)


def config_for_peers(budget: VramBudget) -> dict[str, int]:
    model = budget.architecture
    first = model.attention_layers[0]
    heads = first.expanded[0] if first.expanded else first.kv_heads
    config = {"num_hidden_layers": len(model.layers), "hidden_size": model.hidden, "num_attention_heads": model.heads,
              "num_key_value_heads": heads}  # fmt: skip
    if not first.latent and first.key_dim * model.heads != model.hidden:
        config["head_dim"] = first.key_dim
    return config


def hf_mem_kv(budget: VramBudget) -> float | None:
    try:
        from hf_mem.safetensors.kv_cache import compute_safetensors_kv_cache_size
    except ImportError:
        return None
    return compute_safetensors_kv_cache_size(config_for_peers(budget), "F16", budget.context, 1)


def modelinfo_kv(budget: VramBudget) -> float | None:
    try:
        from modelinfo.calculator import calculate_footprint
    except ImportError:
        return None
    return calculate_footprint({}, budget.context, 1, config_for_peers(budget))["kv_cache_bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--misses", action="store_true", help="print every row that misses by more than 0.5 %%")
    options = parser.parse_args()
    claims, left = evaluate(json.loads(options.rows.read_text()))
    for claim in claims.values():
        print(claim.line())
        if options.misses and "peer" not in claim.name:
            for error, text in sorted(claim.errors, key=lambda pair: -abs(pair[0])):
                if abs(error) > 0.005:
                    print(f"      {error:+8.1%}  {text}")
    print(f"\n{len(left)} rows were not predicted:")
    for text in left:
        print("  ", text)


if __name__ == "__main__":
    main()

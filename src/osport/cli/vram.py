"""``osport vram``: what a model needs, and whether it fits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
from attrs import asdict

from osport.errors import UsageError
from osport.vram import Fit, Verdict, VramBudget
from osport.vram.ledger import LedgerRow
from osport.vram.settings import SettingsKeywords

__all__ = ["vram"]

_EXIT = {Verdict.DOES_NOT_FIT: 1, Verdict.UNKNOWN: 3}


@click.command()
@click.argument("model")
@click.option("--device", "-d", multiple=True, help="RTX 4090, 2xH100, M4 Max 64GB, local; may be given several times.")
@click.option("--context", "-c", help="Tokens: 8192 or 32k. Default: what the runtime allocates by itself.")
@click.option("--quantization", "-q", help="For a name or a config: Q4_K_M, awq, fp8, 4.5bpw.")
@click.option("--sequences", "-n", default=1, show_default=True, help="Concurrent sequences.")
@click.option("--kv-type", default="f16", show_default=True, help="q8_0, or K/V apart: q8_0/f16.")
@click.option(
    "--runtime", "-r", help="llama.cpp, llama-server, llama-cpp-python, ik_llama.cpp, ollama, vllm; @version."
)
@click.option("--ubatch", type=int, help="Micro batch in tokens.")
@click.option("--cpu-experts", is_flag=True, help="Routed experts stay in host memory.")
@click.option("--rope-scaling", is_flag=True, help="Allow a context beyond the trained one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; sizes in bytes.")
def vram(
    model: str, device: tuple[str, ...], context: str | None, quantization: str | None, sequences: int, kv_type: str,
    runtime: str | None, ubatch: int | None, cpu_experts: bool, rope_scaling: bool, as_json: bool,
) -> None:  # fmt: skip
    """What MODEL needs: a .gguf file, a URL of one, a config.json or its folder, or a name of the catalogue.

    Exit code 1 when it does not fit the devices, 3 when that cannot be said.
    """
    settings = SettingsKeywords(
        sequences=sequences, ubatch=ubatch, cpu_experts=cpu_experts, rope_scaling=rope_scaling, kv_type=_kv(kv_type)
    )
    if context is not None:
        settings["context"] = _tokens(context)
    if runtime is not None:
        settings["runtime"] = runtime
    budget = _budget(model, quantization, settings)
    fit = budget.fits(list(device)) if device else None
    if as_json:
        click.echo(json.dumps(_as_json(budget, fit.rows if fit else budget.ledger(), fit), indent=1))
    else:
        click.echo(str(budget))
        if fit is not None:
            click.echo(f"\n{fit}")
        click.echo(f"quality: {budget.quality}")
        for advice in budget.advice(list(device) if device else None):
            click.echo(f"{advice.kind}: {advice}")
    if fit is not None and fit.verdict in _EXIT:
        click.get_current_context().exit(_EXIT[fit.verdict])


def _budget(model: str, quantization: str | None, settings: SettingsKeywords) -> VramBudget:
    path = Path(model)
    if model.startswith(("http://", "https://")) or path.suffix == ".gguf":
        if quantization is not None:
            raise UsageError("a GGUF file has its own quantisation; leave --quantization out")
        return VramBudget.from_gguf(model, **settings)
    if path.exists() or path.suffix == ".json":
        return VramBudget.from_hf(path, quantization=quantization, **settings)
    return VramBudget.for_model(model, quantization=quantization or "Q4_K_M", **settings)


def _tokens(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([kKmM]?)", text.strip())
    if match is None:
        raise UsageError(f"--context is a number of tokens such as 8192 or 32k, not {text!r}")
    return int(match.group(1)) * {"": 1, "k": 1024, "m": 1024 * 1024}[match.group(2).lower()]


def _kv(text: str) -> str | tuple[str, str]:
    parts = text.split("/")
    return (parts[0], parts[1]) if len(parts) == 2 else text


def _as_json(budget: VramBudget, rows: tuple[LedgerRow, ...], fit: Fit | None) -> dict[str, object]:
    total = budget.total
    out: dict[str, object] = {
        "model": budget.architecture.name,
        "quantization": budget.quantization,
        "runtime": budget.settings.runtime.label,
        "context": budget.context,
        "total": None if total is None else asdict(total),
        "unknown": list(budget.missing),
        "rows": [asdict(row) for row in rows],
        "advice": [asdict(item) for item in budget.advice()],
    }
    if fit is not None:
        out["fit"] = {key: value for key, value in asdict(fit).items() if key != "rows"}
    return out

"""What a user can do, and the mistakes that people make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from osport.errors import UsageError
from osport.vram.devices import Device
from osport.vram.estimate import gib
from osport.vram.fit import Verdict
from osport.vram.quality import Loss
from osport.vram.solve import LADDERS

if TYPE_CHECKING:
    from osport.vram.budget import VramBudget

__all__ = ["Advice", "advise"]


@frozen
class Advice:
    """``kind`` is ``saving`` (with the bytes it saves), ``warning`` or ``note``; ``action`` names it for programs."""

    kind: str
    action: str
    text: str
    saves: int = 0

    def __str__(self) -> str:
        return self.text


def advise(budget: VramBudget, devices: Sequence[Device] | None) -> list[Advice]:
    """Savings first, largest first; then warnings, then notes."""
    savings = sorted(_savings(budget, devices), key=lambda advice: -advice.saves)
    return [*savings, *_warnings(budget, devices), *_notes(budget)]


def _savings(budget: VramBudget, devices: Sequence[Device] | None) -> Iterator[Advice]:
    now = budget.total
    if now is None:
        return
    if devices and budget.fits(list(devices)).verdict is Verdict.FITS:
        return

    def saved(other: VramBudget) -> int:
        total = other.total
        return max(0, now.likely - total.likely) if total is not None else 0

    settings, vllm = budget.settings, budget.settings.runtime.is_vllm
    kind = "fp8" if vllm else "q8_0"
    if (
        settings.key_type in {"f16", "bf16", "f32"}
        and settings.flash_attention
        and budget.architecture.attention_layers
    ):
        try:
            size = saved(budget.with_settings(kv_type=kind))
        except UsageError:
            size = 0
        if size:
            yield Advice("saving", "kv_type", f"KV cache to {kind}: saves {gib(size)}; KL divergence 0.001", size)
    context = budget.context
    if context and context > 4096:
        size = saved(budget.with_settings(context=max(4096, context // 2)))
        if size:
            yield Advice(
                "saving", "context", f"context {context} to {max(4096, context // 2)}: saves {gib(size)}", size
            )
    yield from _next_quantization(budget, saved_by=saved)
    if budget.architecture.is_moe and not settings.cpu_experts and not vllm:
        size = saved(budget.with_settings(cpu_experts=True))
        yield Advice(
            "saving", "cpu_experts", f"routed experts on the CPU: saves {gib(size)}, at the host's bandwidth", size
        )
    if devices:
        yield from _more_devices(budget, devices)
    if settings.runtime.name == "ik_llama.cpp" and any(a.window for a in budget.architecture.attention_layers):
        size = saved(budget.with_settings(runtime="llama.cpp"))
        if size:
            yield Advice("saving", "runtime", f"llama.cpp keeps windowed layers small: saves {gib(size)}", size)
    if settings.swa_full and any(a.window for a in budget.architecture.attention_layers):
        size = saved(budget.with_settings(swa_full=False))
        if size:
            yield Advice(
                "saving", "swa_full", f"swa_full=False: windowed layers keep their window; saves {gib(size)}", size
            )


def _next_quantization(budget: VramBudget, saved_by: object) -> Iterator[Advice]:
    bits = budget.bits_per_weight
    if bits is None or not budget.architecture.tensors or not callable(saved_by):
        return
    ladder = LADDERS["vllm" if budget.settings.runtime.is_vllm else "llama.cpp"]
    for name in ladder:
        other = budget.with_quantization(name)
        narrower = other.bits_per_weight
        if narrower is not None and narrower < bits * 0.97:
            size = int(saved_by(other))
            text = f"quantisation {name} ({narrower:.2f} bits a weight): saves {gib(size)}; loss {other.quality.loss}"
            yield Advice("saving", "quantization", text, size)
            return


def _more_devices(budget: VramBudget, devices: Sequence[Device]) -> Iterator[Advice]:
    for count in range(len(devices) + 1, 2 * len(devices) + 3):
        more = [*devices, *[devices[-1]] * (count - len(devices))]
        try:
            fit = budget.fits(more)
        except UsageError:
            continue
        if fit:
            text = f"{count} x {devices[-1].name} instead of {len(devices)}: {fit.verdict}"
            yield Advice("saving", "devices", text)
            return


def _warnings(budget: VramBudget, devices: Sequence[Device] | None) -> Iterator[Advice]:
    settings, quality, architecture = budget.settings, budget.quality, budget.architecture
    bits = budget.bits_per_weight
    if quality.reasoning in {Loss.VISIBLE, Loss.COLLAPSES} and bits is not None and bits < 4:
        text = f"{bits:.2f} bits a weight: reasoning and long outputs suffer first ({quality.reasoning})"
        yield Advice("warning", "low_bits", text)
    if {settings.key_type, settings.value_type} & {"q4_0", "q4_1", "iq4_nl"}:
        text = "a 4-bit KV cache costs 2 % of perplexity on an 8B model and ruins one of 0.6B; prefer q8_0"
        yield Advice("warning", "kv_bits", text)
    if settings.runtime.name == "ollama" and settings.sequences > 4:
        yield Advice(
            "warning", "concurrency", "Ollama is not made for many concurrent users; consider vLLM or llama-server"
        )
    if settings.runtime.name == "ollama" and settings.context == 4096 and (architecture.context or 0) > 4096:
        yield Advice("warning", "context_default", "Ollama cuts prompts at its default of 4096 tokens; set num_ctx")
    if architecture.is_moe:
        text = (
            f"{architecture.active_parameters / 1e9:.1f} B active parameters bound the speed; "
            f"all {architecture.parameters / 1e9:.1f} B lie in memory"
        )
        yield Advice("warning", "active_parameters", text)
    kv, weights = budget.kv_cache, budget.weights
    if kv is not None and weights is not None and kv.likely > weights.likely // 5:
        text = f"the KV cache adds {gib(kv.likely)} to {gib(weights.likely)} of weights; the file size alone misleads"
        yield Advice("warning", "weights_alone", text)
    if devices:
        yield from _device_warnings(budget, devices)


def _device_warnings(budget: VramBudget, devices: Sequence[Device]) -> Iterator[Advice]:
    vllm = budget.settings.runtime.is_vllm
    if vllm and any(device.vendor == "apple" for device in devices):
        yield Advice("warning", "vllm_on_mac", "vLLM does not run on Apple GPUs; use llama.cpp or Ollama")
    heads = {a.kv_heads for a in budget.architecture.attention_layers if not a.latent}
    if vllm and heads and len(devices) > max(heads):
        text = f"{len(devices)} ranks but {max(heads)} KV heads: beyond that every rank holds a copy, no KV is saved"
        yield Advice("warning", "kv_heads", text)
    if vllm and any(a.latent for a in budget.architecture.attention_layers) and len(devices) > 1:
        yield Advice("warning", "latent_replicated", "the latent of MLA is replicated on every tensor-parallel rank")
    if len({device.name for device in devices}) > 1 and vllm:
        yield Advice("warning", "uneven", "tensor parallelism uses every card only as far as the smallest")


def _notes(budget: VramBudget) -> Iterator[Advice]:
    if budget.settings.runtime.name == "llama-server":
        yield Advice("note", "slots", "llama-server opens four slots unless told --parallel 1: recurrent states and "
                     "windows grow with them, full attention does not")  # fmt: skip
    bits = budget.bits_per_weight
    if bits is not None and bits > 10:
        yield Advice("note", "bigger_model", "a bigger model at 4 bits mostly beats a smaller one at 16; not below "
                     "4 bits, not for models under 3 B, and least for reasoning")  # fmt: skip
    if budget.rough:
        yield Advice("note", "rough", "from a bare parameter count: give a header or a config for real figures")

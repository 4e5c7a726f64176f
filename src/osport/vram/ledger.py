"""The ledger: what each device holds, term by term, each with its rule and its source."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from osport.data import load
from osport.errors import UsageError
from osport.vram.architecture import Architecture
from osport.vram.compute import compute_buffer, output_rows
from osport.vram.devices import Device
from osport.vram.estimate import GIB, MIB, Estimate, total
from osport.vram.kv_cache import LayerMemory, layer_memory, micro_batch
from osport.vram.paged import pool_layout
from osport.vram.settings import Settings
from osport.vram.weights import Weights

__all__ = ["HOST", "LedgerRow", "llama_cpp_ledger", "overhead_rows", "reference_device", "vllm_ledger"]

HOST = "host"
_ZERO = Estimate(0, 0, 0)
_KV_TERMS = {
    "full": ("KV cache, full attention", "cells x rows of K and V, per layer"),
    "windowed": ("KV cache, windowed", "window and one micro batch, padded to 256 cells"),
    "latent": ("KV cache, latent", "one latent of rank + rope a token"),
    "indexer": ("KV cache, indexer", "one indexer key a token"),
    "state": ("recurrent state", "convolution and state matrix, f32, per sequence"),
}


@frozen
class LedgerRow:
    """One term on one device. ``need`` is False for memory that is reserved or kept free, not needed."""

    device: str
    term: str
    bytes: Estimate
    rule: str
    source: str
    need: bool = True


def reference_device() -> Device:
    """An NVIDIA card without end: what the ledger is computed for when no device is named."""
    return Device("device", 2**60, None, "nvidia", False, "no device named")


def llama_cpp_ledger(
    architecture: Architecture, weights: Weights, context: int, settings: Settings, devices: Sequence[Device]
) -> list[LedgerRow]:
    """Layers are dealt to devices in proportion to their memory, as llama.cpp does by default."""
    memory = [layer_memory(layer, architecture, context, settings) for layer in architecture.layers]
    places = _deal(len(weights.layers), settings, devices)
    rows: list[LedgerRow] = []
    for index, device in enumerate(devices):
        label = _label(index, devices)
        own = [layer for layer, place in enumerate(places[:-1]) if place == index]
        rows += _device_rows(label, device, own, places[-1] == index, weights, memory, settings)
        if own or places[-1] == index:
            rows += _compute_rows(label, device, architecture, weights, context, settings, len(devices))
        if index == 0:
            rows += _extra_rows(label, settings)
        rows += overhead_rows(label, device)
    return rows + _host_rows(architecture, weights, memory, context, settings, devices, places)


def _deal(count: int, settings: Settings, devices: Sequence[Device]) -> list[int]:
    """For every layer and the head (last): the index of its device, -1 for the host."""
    offloaded = count + 1 if settings.gpu_layers is None else min(settings.gpu_layers, count + 1)
    whole = sum(device.usable for device in devices)
    bounds: list[float] = []
    for device in devices:
        bounds.append((bounds[-1] if bounds else 0.0) + device.usable / whole)
    first = count + 1 - offloaded
    places = []
    for layer in range(count + 1):
        share = (layer - first) / max(1, offloaded)
        place = next((i for i, bound in enumerate(bounds) if share < bound), len(devices) - 1)
        places.append(place if layer >= first else -1)
    return places


def _device_rows(
    label: str, device: Device, own: Sequence[int], has_head: bool, weights: Weights,
    memory: Sequence[LayerMemory], settings: Settings,
) -> list[LedgerRow]:  # fmt: skip
    parts = [weights.layers[layer] for layer in own]
    if settings.cpu_experts and device.vendor != "cpu":
        parts = [_minus(weights.layers[layer], weights.experts[layer]) for layer in own]
    if has_head:
        parts.append(weights.head)
        if weights.tied and device.vendor != "cpu":
            parts.append(weights.embedding)
    rows = [LedgerRow(label, "weights", total(parts), weights.rule, weights.source)]
    return rows + _memory_rows(label, [memory[layer] for layer in own if layer < len(memory)], settings)


def _memory_rows(label: str, memory: Sequence[LayerMemory], settings: Settings) -> list[LedgerRow]:
    rows = []
    for kind, (term, rule) in _KV_TERMS.items():
        size = sum(getattr(layer, kind) for layer in memory)
        if size:
            types = f"{settings.key_type}/{settings.value_type}" if kind != "state" else "f32"
            rows.append(LedgerRow(label, term, Estimate.exact(size), f"{rule}; {types}", settings.runtime.source))
    return rows


def _compute_rows(
    label: str, device: Device, architecture: Architecture, weights: Weights, context: int, settings: Settings,
    count: int,
) -> list[LedgerRow]:  # fmt: skip
    buffer = compute_buffer(
        architecture, context, settings, expert_tensor=weights.expert_tensor, devices=count,
        cuda=device.vendor in {"nvidia", "amd"},
    )  # fmt: skip
    staged = Estimate.exact(buffer.staging)
    rule = f"the largest graph stage: {buffer.stage}"
    rows = [LedgerRow(label, "compute buffer", _minus(buffer.size, staged), rule, settings.runtime.source)]
    if buffer.staging:
        rule = "the largest expert tensor, copied from the host for prompts"
        rows.append(LedgerRow(label, "staging", staged, rule, settings.runtime.source))
    return rows


def _extra_rows(label: str, settings: Settings) -> list[LedgerRow]:
    rows = []
    if settings.draft:
        size = Estimate(settings.draft, int(settings.draft * 1.15), int(settings.draft * 1.6))
        rule = "the draft model's file, its cache and its graph"
        rows.append(LedgerRow(label, "draft model", size, rule, "unsloth 015bdef: a draft graph of 224 MiB"))
    if settings.projector:
        size = Estimate(settings.projector, int(settings.projector * 1.35), int(settings.projector * 1.5))
        rule = "the projector's file x 1.3 to 1.4 at run time"
        rows.append(LedgerRow(label, "multimodal projector", size, rule, "unsloth 015bdef"))
    return rows


def overhead_rows(label: str, device: Device) -> list[LedgerRow]:
    """Driver context, and the margin to keep free."""
    table, keep = load("runtimes.toml")["context_overhead"], load("runtimes.toml")["margin"]
    low, likely, high = (value * MIB for value in table[device.vendor])
    margin = keep["unified" if device.unified else "gpu"] * MIB
    return [
        LedgerRow(label, "runtime context", Estimate(low, likely, high), "driver and libraries", table["source"]),
        LedgerRow(label, "margin", Estimate.exact(margin), "kept free", keep["source"], need=False),
    ]


def _host_rows(
    architecture: Architecture, weights: Weights, memory: Sequence[LayerMemory], context: int, settings: Settings,
    devices: Sequence[Device], places: Sequence[int],
) -> list[LedgerRow]:  # fmt: skip
    """What stays in the host's memory: it counts against a device only where memory is shared."""
    label = _label(0, devices) if devices[0].unified else HOST
    need = devices[0].unified
    parts = [weights.embedding]
    own = [layer for layer, place in enumerate(places[:-1]) if place == -1]
    parts += [weights.layers[layer] for layer in own]
    if places[-1] == -1:
        parts.append(weights.head)
    if settings.cpu_experts and devices[0].vendor != "cpu":
        parts += [weights.experts[layer] for layer, place in enumerate(places[:-1]) if place != -1]
    rule = "input embedding" + (" and routed experts" if settings.cpu_experts else "")
    rows = [LedgerRow(label, "weights on the host", total(parts), rule, weights.source, need)]
    logits = 4 * output_rows(settings, micro_batch(context, settings)) * architecture.vocabulary
    if logits:
        rule = "logits that are handed back"
        rows.append(LedgerRow(label, "output buffer", Estimate(0, min(logits, 64 * MIB), logits), rule,
                              settings.runtime.source, need))  # fmt: skip
    kept = _memory_rows(label, [memory[layer] for layer in own if layer < len(memory)], settings)
    return rows + [LedgerRow(r.device, r.term, r.bytes, r.rule, r.source, need) for r in kept]


def vllm_ledger(
    architecture: Architecture, weights: Weights, context: int, settings: Settings, devices: Sequence[Device]
) -> list[LedgerRow]:
    """One tensor-parallel rank a device; the pool that takes the rest is reserved, not needed."""
    ranks = settings.tensor_parallel or len(devices)
    if architecture.heads % ranks:
        raise UsageError(f"tensor parallel {ranks} does not divide the {architecture.heads} attention heads")
    table = load("runtimes.toml")["vllm"]
    layout = pool_layout(architecture, context, settings, ranks)
    source = settings.runtime.source
    weight = weights.file.scaled(1 / ranks)
    if ranks > 1:
        # Replicated and padded parts: ranks hold more than their share, most in mixtures of experts.
        weight = Estimate(
            weight.low, round(weight.likely * 1.01), round(weight.high * (1.22 if architecture.is_moe else 1.04))
        )
    factor = {1: 10, 2: 6}.get(ranks, 5)
    active = max(70 * MIB, 2 * settings.batched_tokens * architecture.query_width * factor)
    logits = 4 * min(settings.sequences, 1024) * architecture.vocabulary
    rows: list[LedgerRow] = []
    for index, device in enumerate(devices):
        label = _label(index, devices)
        own = [
            LedgerRow(label, "weights", weight, f"{weights.rule}; rank of {ranks}", weights.source),
            LedgerRow(label, "KV cache", Estimate.exact(layout.needed(settings.sequences)),
                      f"{layout.request_blocks} blocks of {layout.block} tokens a request, {layout.groups} groups of "
                      f"{layout.group} layers; states included", source),
            LedgerRow(label, "activations", Estimate(active // 2, active, 2 * active + logits),
                      "2 x batched tokens x query width x a factor by ranks", "ai-dynamo/aiconfigurator 095f58a"),
            LedgerRow(label, "outside torch", _gib(table["non_torch"]), "libraries and communication", source),
            LedgerRow(label, "CUDA graphs", _gib(table["graphs"]), "captured batch sizes", source),
        ]  # fmt: skip
        needed = total(row.bytes for row in own)
        if device.usable < 2**60:
            budget = int(device.usable * settings.utilization)
            rest = max(0, budget - needed.likely)
            rule = f"the pool takes the rest of {settings.utilization:.0%} of the device, needed or not"
            own.append(LedgerRow(label, "KV pool reserve", Estimate.exact(rest), rule, source, need=False))
            keep = Estimate.exact(device.usable - budget)
            own.append(LedgerRow(label, "margin", keep, "1 - utilization", source, need=False))
        rows += own
    return rows


def _gib(bounds: Sequence[float]) -> Estimate:
    low, likely, high = (int(value * GIB) for value in bounds)
    return Estimate(low, likely, high)


def _minus(whole: Estimate, part: Estimate) -> Estimate:
    low, likely = max(0, whole.low - part.low), max(0, whole.likely - part.likely)
    return Estimate(min(low, likely), likely, max(likely, whole.high - part.high))


def _label(index: int, devices: Sequence[Device]) -> str:
    return devices[index].name if len(devices) == 1 else f"{devices[index].name} #{index}"

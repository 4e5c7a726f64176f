"""A budget from a bare number of parameters: the spread of the catalogue's models of that size."""

from __future__ import annotations

from osport.vram.architecture import Architecture
from osport.vram.catalogue import catalogue_names, named_architecture
from osport.vram.devices import Device
from osport.vram.estimate import Estimate
from osport.vram.kv_cache import layer_memory
from osport.vram.ledger import LedgerRow, overhead_rows
from osport.vram.settings import Settings
from osport.vram.weights import Weights

__all__ = ["rough_ledger"]

_SOURCE = "the catalogue of architectures"


def rough_ledger(
    parameters: int, weights: Weights, context: int, settings: Settings, device: Device
) -> tuple[LedgerRow, ...]:
    """Weights, and for cache and compute the least, the middle and the most that models of this size need."""
    if settings.runtime.is_vllm:
        whole = context * settings.sequences
        shared = Settings.of({"context": whole, "sequences": settings.sequences, "runtime": "llama.cpp"})
        return rough_ledger(parameters, weights, whole, shared, device)
    peers = _peers(parameters)
    caches = sorted(_cache(peer, context, settings) for peer in peers)
    batch = min(settings.ubatch, context)
    logits = sorted(4 * batch * peer.vocabulary for peer in peers)
    label = device.name
    rule = f"rough: least, middle and most of {len(peers)} models within a factor of two in size"
    return (
        LedgerRow(label, "weights", weights.layers[0], weights.rule, weights.source),
        LedgerRow(label, "KV cache, rough", _span(caches), rule, _SOURCE),
        LedgerRow(label, "compute buffer", _span(logits), f"{rule}; logits of a micro batch", _SOURCE),
        *overhead_rows(label, device),
    )


def _peers(parameters: int) -> list[Architecture]:
    """Models within a factor of two; the nearest five where there are too few."""
    known = [named_architecture(name) for name in catalogue_names()]
    known.sort(key=lambda model: max(model.parameters, parameters) / min(model.parameters, parameters))
    near = [model for model in known if 0.5 <= model.parameters / parameters <= 2]
    return near if len(near) >= 5 else known[:5]


def _cache(model: Architecture, context: int, settings: Settings) -> int:
    layers = [layer_memory(layer, model, context, settings) for layer in model.layers]
    return sum(layer.kv + layer.state for layer in layers)


def _span(values: list[int]) -> Estimate:
    return Estimate(values[0], values[len(values) // 2], values[-1])

"""Context memory of the llama.cpp family: KV cells, windows, latents, indexer keys, recurrent states.

Formulas: llama_kv_cache, llama_kv_cache_iswa, llama_kv_cache_dsa and llama_memory_recurrent of llama.cpp.
"""

from __future__ import annotations

from attrs import frozen

from osport.vram.architecture import Architecture, Attention, Layer
from osport.vram.settings import Settings, kv_row_bytes

__all__ = ["Cells", "LayerMemory", "cells_of", "layer_memory", "micro_batch", "padded"]

_WINDOW_PAD = 256


def padded(count: int, multiple: int) -> int:
    """``count`` rounded up to a multiple (GGML_PAD)."""
    return -(-count // multiple) * multiple


@frozen
class Cells:
    """Cells of one stream, and how many streams there are; ``windowed`` is per stream of a windowed cache."""

    full: int
    streams: int

    def windowed(self, window: int, settings: Settings) -> int:
        """Cells of a windowed layer: the window of every sequence in the stream, and one micro batch."""
        if settings.swa_full or not settings.runtime["windows"]:
            return self.full
        shared = settings.sequences if settings.unified else 1
        return padded(min(self.full, window * shared + settings.ubatch), _WINDOW_PAD)


@frozen
class LayerMemory:
    """Bytes that one layer keeps, by kind."""

    full: int = 0
    windowed: int = 0
    latent: int = 0
    indexer: int = 0
    state: int = 0

    @property
    def kv(self) -> int:
        """Everything that grows with the context."""
        return self.full + self.windowed + self.latent + self.indexer


def _whole(context: int, settings: Settings) -> int:
    """All cells of a full-attention layer."""
    whole = context * settings.sequences if settings.runtime["per_sequence"] else context
    return padded(whole, settings.runtime["pad"])


def micro_batch(context: int, settings: Settings) -> int:
    """Tokens of one graph evaluation: the setting, but never more than the context."""
    return min(settings.ubatch, _whole(context, settings))


def cells_of(context: int, settings: Settings) -> Cells:
    """How the context is cut into cells: padded, then shared or divided among the sequences."""
    whole = _whole(context, settings)
    if settings.unified or settings.sequences == 1:
        return Cells(whole, 1)
    return Cells(padded(whole // settings.sequences, settings.runtime["pad"]), settings.sequences)


def layer_memory(layer: Layer, architecture: Architecture, context: int, settings: Settings) -> LayerMemory:
    """What one layer allocates."""
    state = 0
    if layer.recurrent is not None:
        copies = settings.sequences * (1 + settings.rollback_states)
        state = 4 * (layer.recurrent.convolution + layer.recurrent.state) * copies
    attention = layer.attention
    if attention is None or layer.shares_kv:
        return LayerMemory(state=state)
    cells = cells_of(context, settings)
    if attention.latent:
        return _latent(attention, cells, settings, state)
    window = attention.window if architecture.windows_in_llama_cpp else None
    count = cells.full if window is None else cells.windowed(window, settings)
    value = attention.value_width
    if not settings.flash_attention:
        # Without flash attention V lies transposed, in rows of the widest layer.
        value = max(other.value_width for other in architecture.attention_layers)
    row = kv_row_bytes(settings.key_type, attention.key_width) + kv_row_bytes(settings.value_type, value)
    size = row * count * cells.streams
    if window is None or count == cells.full:
        return LayerMemory(full=size, state=state)
    return LayerMemory(windowed=size, state=state)


def _latent(attention: Attention, cells: Cells, settings: Settings, state: int) -> LayerMemory:
    count = cells.full * cells.streams
    if not settings.latent_cache and attention.expanded is not None:
        heads, key, value = attention.expanded
        row = kv_row_bytes(settings.key_type, heads * key) + kv_row_bytes(settings.value_type, heads * value)
        return LayerMemory(full=row * count, state=state)
    latent = kv_row_bytes(settings.key_type, attention.key_dim) * count
    indexer = kv_row_bytes(settings.key_type, attention.indexer_dim) * count if attention.indexer_dim else 0
    return LayerMemory(latent=latent, indexer=indexer, state=state)

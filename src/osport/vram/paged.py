"""vLLM's KV cache: pages, groups of layers, and how many tokens a pool holds.

Formulas: v1/kv_cache_interface.py and v1/core/kv_cache_utils.py of vLLM 0.32.0.
"""

from __future__ import annotations

from attrs import frozen

from osport.data import load
from osport.errors import UsageError
from osport.vram.architecture import Architecture, Attention, Recurrent
from osport.vram.kv_cache import padded
from osport.vram.settings import Settings, kv_row_bytes

__all__ = ["PoolCapacity", "PoolLayout", "pool_layout"]

_STATE_BYTES = {"f32": 4, "bf16": 2, "f16": 2}


@frozen
class PoolCapacity:
    """What a pool of some bytes holds: whole blocks, tokens as vLLM prints them, requests of full length."""

    blocks: int
    tokens: int
    requests: float


@frozen
class PoolLayout:
    """How one rank divides its pool.

    ``block`` tokens a block, ``page`` bytes of one layer's block, ``group`` layers that share a block id,
    ``request_blocks`` blocks that one request of ``context`` tokens takes, ``state_blocks`` of them fixed.
    """

    block: int
    page: int
    group: int
    groups: int
    request_blocks: int
    state_blocks: int
    context: int
    by_request: bool

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers of its group."""
        return self.page * self.group

    def capacity(self, pool: int) -> PoolCapacity:
        """What ``pool`` bytes hold."""
        blocks = max(0, pool) // self.block_bytes
        requests = blocks / self.request_blocks
        if self.by_request and self.groups > 1:
            tokens = int(requests * self.context)
        else:
            tokens = blocks // self.groups * self.block
        return PoolCapacity(blocks, tokens, requests)

    def needed(self, sequences: int) -> int:
        """Bytes for this many requests of full length."""
        return self.request_blocks * self.block_bytes * sequences


def pool_layout(architecture: Architecture, context: int, settings: Settings, ranks: int = 1) -> PoolLayout:
    """The layout on one of ``ranks`` tensor-parallel ranks. Raises UsageError for a model without a cache."""
    attentions, recurrents = architecture.attention_layers, architecture.recurrent_layers
    if not attentions and not recurrents:
        raise UsageError("nothing is known about this model's cache")
    full = [a for a in attentions if a.window is None or not settings.runtime["windows"]]
    narrow = [a for a in attentions if a.window is not None and settings.runtime["windows"]]
    block = int(settings.runtime["block"])
    full_token = max((_token_bytes(a, settings, ranks) for a in full), default=0)
    narrow_token = max((_token_bytes(a, settings, ranks) for a in narrow), default=0)
    state = max((_state_bytes(r, architecture, settings, ranks) for r in recurrents), default=0)
    # All kinds of layers share one page size: the others get longer blocks until their pages are as large.
    page = max(block * full_token, block * narrow_token, state)
    if state and full_token:
        page = padded(-(-state // full_token), block) * full_token
    block = page // full_token // block * block if full_token else block
    narrow_block = page // narrow_token // 16 * 16 if narrow_token else block
    kinds = [len(kind) for kind in (full, narrow, recurrents) if kind]
    group = _group_size(kinds)
    counts = [-(-len(kind) // group) for kind in (full, narrow, recurrents)]
    indexer = sum(a.indexer_dim for a in attentions)
    if indexer and len(kinds) == 1:
        # Indexer keys ride in pages of their own; their bytes are spread over the layers' pages.
        page += -(-indexer * block // len(attentions))
    per_state = settings.runtime["state_blocks"] + settings.rollback_states
    window = max((a.window or 0 for a in narrow), default=0)
    in_flight = min(window - 1 + settings.batched_tokens, context)
    windowed = min(-(-in_flight // narrow_block) + 1, -(-context // narrow_block)) if narrow else 0
    fixed = counts[2] * per_state
    growing = counts[0] * -(-context // block) + counts[1] * windowed
    by_request = settings.runtime["counts"] == "requests"
    return PoolLayout(block, page, group, sum(counts), max(1, growing + fixed), fixed, context, by_request)


def _group_size(counts: list[int]) -> int:
    least, most = min(counts), max(counts)
    return most if most < 1.5 * least else least


def _token_bytes(attention: Attention, settings: Settings, ranks: int) -> int:
    if attention.latent:
        # The latent is replicated on every rank.
        row = load("quantization.toml")["kv"][settings.key_type]
        if "latent_bytes" in row:
            return int(row["latent_bytes"])
        return kv_row_bytes(settings.key_type, attention.key_dim)
    heads = max(1, attention.kv_heads // ranks)
    return kv_row_bytes(settings.key_type, heads * attention.key_dim) + kv_row_bytes(
        settings.value_type, heads * attention.value_dim
    )


def _state_bytes(recurrent: Recurrent, architecture: Architecture, settings: Settings, ranks: int) -> int:
    """One layer's state of one sequence: the convolution at 16 bits, the state matrix at the state type."""
    kind = settings.state_type
    if kind is None:
        kind = settings.runtime["state_type"]
        kind = architecture.state_type if kind == "config" else kind
    return (2 * recurrent.convolution + _STATE_BYTES[kind] * recurrent.state) // ranks

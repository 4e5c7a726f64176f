"""The compute buffer of the llama.cpp family: the peak over the stages of the graph.

The stages do not overlap, so the buffer is as large as the largest of them. Inputs are the masks and the
rotations of a quantised cache; they live through every stage but the first.

* output: logits of the output rows, and two rows of the hidden width per token of the micro batch;
* attention: the inputs, the scores (without flash attention) or the f16 copy of a quantised cache (with it,
  on CUDA), and rows of the hidden and the query width;
* feed-forward: the inputs, gate, up and product, and the residual rows;
* experts: the inputs, and a row of the hidden width for every expert of every token, before and after weighting.

Formulas: src/llama-graph.cpp and ggml-cuda/fattn.cu of llama.cpp; the row counts of the attention and
feed-forward stages are read off the buffers that llama.cpp 0c1e57098 prints for two models at 298 settings.
"""

from __future__ import annotations

from attrs import frozen

from osport.vram.architecture import Architecture, Attention
from osport.vram.estimate import Estimate
from osport.vram.kv_cache import cells_of, micro_batch
from osport.vram.settings import Settings

__all__ = ["ComputeBuffer", "compute_buffer", "output_rows"]

_GATED_QUERY_ROWS = 5
_PIPELINE_COPIES = 4


@frozen
class ComputeBuffer:
    """The buffer, the stage that sets it, and the copy of an expert tensor that is staged in it."""

    size: Estimate
    stage: str
    staging: int


def output_rows(settings: Settings, batch: int) -> int:
    """For how many tokens of a micro batch logits are computed."""
    return min(batch, settings.sequences) if settings.runtime["output_rows"] == "sequences" else batch


def compute_buffer(
    architecture: Architecture,
    context: int,
    settings: Settings,
    *,
    expert_tensor: int = 0,
    devices: int = 1,
    cuda: bool = True,
) -> ComputeBuffer:
    """The buffer on one device. ``devices`` above one keeps several copies of the inputs for pipelining."""
    batch = micro_batch(context, settings)
    cells = cells_of(context, settings)
    attentions = architecture.attention_layers
    windows = {a.window for a in attentions if a.window and architecture.windows_in_llama_cpp}
    counts = {cells.windowed(window, settings) for window in windows} if settings.runtime["windows"] else set()
    full = cells.full if attentions else 0
    copies = _PIPELINE_COPIES if devices > 1 else 1
    inputs = _rotation(attentions, settings) + copies * (2 if settings.flash_attention else 4) * batch * (
        full + sum(counts)
    )
    gated = architecture.gated_attention
    query_rows = _GATED_QUERY_ROWS if gated else settings.runtime["query_rows"]
    hidden_rows = 2 if gated or settings.flash_attention else settings.runtime["hidden_rows"]
    rows = hidden_rows * architecture.hidden + query_rows * architecture.query_width
    widest = max((a.value_width for a in attentions), default=0)
    index = 8 * batch * widest * (1 + len(counts)) if settings.runtime["index_rows"] else 0
    scratch = _attention_scratch(architecture, full, batch, settings, cuda)
    stages = {
        "output": 4 * output_rows(settings, batch) * architecture.vocabulary + 8 * architecture.hidden * batch,
        "attention": inputs + scratch + 4 * batch * rows + (0 if settings.flash_attention else index),
        "feed-forward": inputs + 4 * batch * (3 * architecture.feed_forward + 4 * architecture.hidden),
    }
    staging = 0
    if architecture.is_moe:
        stages["experts"] = inputs + 8 * batch * architecture.experts_used * architecture.hidden
        if settings.cpu_experts and settings.runtime["staging"]:
            staging = expert_tensor * settings.runtime["staging"]
            stages["experts"] += staging
    stage = max(stages, key=lambda name: stages[name])
    spread = (0.08, 0.12) if devices == 1 and not staging else (0.25, 0.35)
    return ComputeBuffer(Estimate.around(stages[stage], *spread), stage, staging if stage == "experts" else 0)


def _attention_scratch(architecture: Architecture, cells: int, batch: int, settings: Settings, cuda: bool) -> int:
    if not settings.flash_attention:
        return 4 * cells * batch * architecture.heads
    expanded = next((a.expanded for a in architecture.attention_layers if a.latent and a.expanded), None)
    if expanded is not None and settings.runtime.name == "ik_llama.cpp" and settings.latent_cache:
        heads, key, value = expanded
        return 2 * cells * heads * (key + value) + 4 * batch * heads * value
    quantised = not {settings.key_type, settings.value_type} <= {"f16", "bf16", "f32"}
    if not (quantised and cuda and settings.runtime["scratch"]):
        return 0
    return max((2 * cells * _width(a) for a in architecture.attention_layers if a.window is None), default=0)


def _rotation(attentions: tuple[Attention, ...], settings: Settings) -> int:
    """Hadamard matrices that rotate heads before they are quantised."""
    if not settings.runtime["rotation"] or not attentions:
        return 0
    size = 4 * max(a.key_dim for a in attentions if not a.latent) ** 2 if not attentions[0].latent else 0
    return size * sum(name not in {"f16", "bf16", "f32"} for name in (settings.key_type, settings.value_type))


def _width(attention: Attention) -> int:
    return attention.key_width + attention.value_width

"""The weight matrices of a layer, from the numbers of a config."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from osport.errors import FormatError
from osport.formats.hf_config import HfConfig
from osport.vram.architecture import Attention, Recurrent, Tensor

__all__ = [
    "Experts",
    "attention_tensors",
    "feed_forward_tensors",
    "latent_tensors",
    "moe_shape",
    "recurrent_tensors",
]


@frozen
class Experts:
    """Routed experts: how many, how many per token, their width, which layers have them, the shared width."""

    count: int = 0
    used: int = 0
    width: int = 0
    shared: int = 0
    layers: frozenset[int] = frozenset()


def attention_tensors(
    config: HfConfig,
    family: dict[str, Any],
    layer: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    key: int,
    value: int,
    *,
    value_projection: bool = True,
) -> list[Tensor]:
    """Query, key, value and output projections with their biases and head norms."""
    query = heads * key * (2 if family.get("output_gate") else 1)
    tensors = [
        Tensor("attn_q", hidden, query, 1, layer),
        Tensor("attn_k", hidden, kv_heads * key, 1, layer),
        Tensor("attn_o", heads * value, hidden, 1, layer),
    ]
    if value_projection:
        tensors.append(Tensor("attn_v", hidden, kv_heads * value, 1, layer))
    bias = family.get("bias") or ("all" if config.flag("attention_bias") else None)
    if bias:
        tensors.append(Tensor("vector", query + kv_heads * (key + value), 1, 1, layer))
    if bias == "all":
        tensors.append(Tensor("vector", hidden, 1, 1, layer))
    if family.get("qk_norm") or config.flag("use_qk_norm"):
        tensors.append(Tensor("vector", key, 2, 1, layer))
    return tensors


def latent_tensors(config: HfConfig, layer: int, hidden: int, heads: int, rank: int) -> tuple[Attention, list[Tensor]]:
    """Multi-head latent attention (MLA), with the indexer of sparse attention where there is one."""
    rope = config.integer("qk_rope_head_dim")
    nope = config.integer("qk_nope_head_dim")
    value = config.integer("v_head_dim")
    q_rank = config.optional("q_lora_rank") or 0
    tensors = [
        Tensor("attn_kv_a", hidden, rank + rope, 1, layer),
        Tensor("attn_kv_b", rank, heads * (nope + value), 1, layer),
        Tensor("attn_o", heads * value, hidden, 1, layer),
        Tensor("vector", rank, 1, 1, layer),
    ]
    if q_rank:
        tensors += [
            Tensor("attn_q_a", hidden, q_rank, 1, layer),
            Tensor("attn_q_b", q_rank, heads * (nope + rope), 1, layer),
            Tensor("vector", q_rank, 1, 1, layer),
        ]
    else:
        tensors.append(Tensor("attn_q", hidden, heads * (nope + rope), 1, layer))
    indexer = 0
    if config.optional("index_topk"):
        size, count = config.integer("index_head_dim", default=128), config.integer("index_n_heads", default=64)
        if _has_indexer(config, layer):
            indexer = size
            tensors += [
                Tensor("indexer", q_rank or hidden, size * count, 1, layer),
                Tensor("indexer", hidden, size + count, 1, layer),
            ]
    attention = Attention(1, rank + rope, 0, None, True, rope, (heads, nope + rope, value), indexer)
    return attention, tensors


def _has_indexer(config: HfConfig, layer: int) -> bool:
    """Whether this layer owns an indexer: all do, unless a schedule shares one among several layers."""
    kinds = config.items("indexer_types")
    if kinds:
        return layer < len(kinds) and kinds[layer] == "full"
    pattern = config.values.get("index_topk_pattern")
    if isinstance(pattern, str) and pattern:
        return layer < len(pattern) and pattern[layer] == "F"
    frequency = config.optional("index_topk_freq") or 1
    offset = config.optional("index_skip_topk_offset") or 0
    return layer < offset or (layer - offset) % frequency == frequency - 1 or frequency == 1


def recurrent_tensors(
    config: HfConfig, family: str, kind: str, layer: int, hidden: int
) -> tuple[Recurrent, list[Tensor]]:
    """The state and the tensors of a recurrent layer, by the kind of recurrence its family uses."""
    if kind in {"conv", "short_conv"}:
        return _short_convolution(config, layer, hidden)
    if family == "kimi_linear":
        return _delta_attention(config, layer, hidden)
    if family == "minimax":
        return _lightning(config, layer, hidden)
    if family.startswith("qwen3"):
        return _gated_delta(config, layer, hidden)
    if family in {"jamba", "mamba", "falcon_mamba"}:
        return _mamba(config, layer, hidden)
    if family in {"granitemoehybrid", "nemotron_h", "mamba2", "falcon_h1"}:
        return _mamba2(config, layer, hidden)
    raise FormatError(f"{config.source}: what a {kind!r} layer of {family} keeps is not known")


def _gated_delta(config: HfConfig, layer: int, hidden: int) -> tuple[Recurrent, list[Tensor]]:
    """Gated DeltaNet of Qwen3-Next and Qwen3.5."""
    key_dim, value_dim = config.integer("linear_key_head_dim"), config.integer("linear_value_head_dim")
    key_heads, value_heads = config.integer("linear_num_key_heads"), config.integer("linear_num_value_heads")
    kernel = config.integer("linear_conv_kernel_dim", default=4)
    keys, values = key_dim * key_heads, value_dim * value_heads
    state = Recurrent((kernel - 1) * (values + 2 * keys), key_dim * values)
    return state, [
        Tensor("ssm_in", hidden, 2 * keys + 2 * values, 1, layer),
        Tensor("vector", hidden, 2 * value_heads, 1, layer),
        Tensor("vector", kernel, 2 * keys + values, 1, layer),
        Tensor("vector", 2 * value_heads + value_dim, 1, 1, layer),
        Tensor("ssm_out", values, hidden, 1, layer),
    ]


def _mamba2(config: HfConfig, layer: int, hidden: int) -> tuple[Recurrent, list[Tensor]]:
    heads = config.integer("mamba_n_heads", "mamba_num_heads", "num_heads")
    raw = config.values.get("mamba_d_head")
    expand = config.integer("mamba_expand", "expand", default=2)
    fallback = expand * hidden // heads
    size = config.integer("mamba_head_dim", "head_dim", default=fallback) if raw is None else fallback
    if isinstance(raw, int):
        size = raw
    if config.values.get("model_type") in {"granitemoehybrid", "falcon_h1"} and not isinstance(raw, int):
        size = fallback
    groups = config.integer("mamba_n_groups", "n_groups", default=1)
    state = config.integer("mamba_d_state", "ssm_state_size", "state_size", default=128)
    kernel = config.integer("mamba_d_conv", "conv_kernel", default=4)
    inner = heads * size
    convolved = inner + 2 * groups * state
    return Recurrent((kernel - 1) * convolved, state * inner), [
        Tensor("ssm_in", hidden, inner + convolved + heads, 1, layer),
        Tensor("vector", kernel + 1, convolved, 1, layer),
        Tensor("vector", 3 * heads + inner, 1, 1, layer),
        Tensor("ssm_out", inner, hidden, 1, layer),
    ]


def _mamba(config: HfConfig, layer: int, hidden: int) -> tuple[Recurrent, list[Tensor]]:
    inner = config.integer("mamba_expand", "expand", default=2) * hidden
    state = config.integer("mamba_d_state", "state_size", default=16)
    kernel = config.integer("mamba_d_conv", "conv_kernel", default=4)
    raw = config.values.get("mamba_dt_rank", config.values.get("time_step_rank"))
    rank = raw if isinstance(raw, int) else -(-hidden // 16)
    return Recurrent((kernel - 1) * inner, state * inner), [
        Tensor("ssm_in", hidden, 2 * inner, 1, layer),
        Tensor("vector", kernel + 1, inner, 1, layer),
        Tensor("ssm_in", inner, rank + 2 * state, 1, layer),
        Tensor("ssm_in", rank, inner, 1, layer),
        Tensor("vector", inner, state + 2, 1, layer),
        Tensor("ssm_out", inner, hidden, 1, layer),
    ]


def _short_convolution(config: HfConfig, layer: int, hidden: int) -> tuple[Recurrent, list[Tensor]]:
    """The gated short convolution of LFM2: its state is the last inputs alone."""
    length = config.integer("conv_L_cache", default=3)
    return Recurrent((length - 1) * hidden, 0), [
        Tensor("ssm_in", hidden, 3 * hidden, 1, layer),
        Tensor("vector", length, hidden, 1, layer),
        Tensor("ssm_out", hidden, hidden, 1, layer),
    ]


def _delta_attention(config: HfConfig, layer: int, hidden: int) -> tuple[Recurrent, list[Tensor]]:
    """Kimi Delta Attention: one state matrix per head, three short convolutions."""
    nested = config.values.get("linear_attn_config")
    own = HfConfig.of(nested if isinstance(nested, dict) else {}, source=config.source)
    size = own.integer("head_dim", default=config.integer("linear_head_dim", default=128))
    heads = own.integer("num_heads", default=config.integer("linear_num_heads", default=32))
    kernel = own.integer("short_conv_kernel_size", default=config.integer("linear_conv_kernel_dim", default=4))
    inner = heads * size
    return Recurrent(3 * (kernel - 1) * inner, size * size * heads), [
        Tensor("ssm_in", hidden, 3 * inner + 2 * size + heads, 1, layer),
        Tensor("ssm_in", size, 2 * inner, 1, layer),
        Tensor("vector", kernel, 3 * inner, 1, layer),
        Tensor("ssm_out", inner, hidden, 1, layer),
    ]


def _lightning(config: HfConfig, layer: int, hidden: int) -> tuple[Recurrent, list[Tensor]]:
    heads = config.integer("num_attention_heads")
    size = config.integer("head_dim", default=hidden // heads)
    inner = heads * size
    return Recurrent(0, size * size * heads), [
        Tensor("ssm_in", hidden, 4 * inner, 1, layer),
        Tensor("ssm_out", inner, hidden, 1, layer),
    ]


def moe_shape(config: HfConfig, family: str, layers: int) -> Experts:
    """Which layers have experts, and how wide they are."""
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    count = config.integer(*names, default=0, least=0)
    if family.startswith("gemma4") and not config.flag("enable_moe_block"):
        count = 0
    if count < 2 or family == "nemotron-nas":
        return Experts()
    raw = config.values.get("moe_intermediate_size")
    width = raw[0] if isinstance(raw, list) and raw and isinstance(raw[0], int) else None
    if width is None:
        width = config.integer("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
    used = config.integer("num_experts_per_tok", "top_k_experts", "moe_k", "moe_topk", "num_experts_per_token")
    if used > count:
        raise FormatError(f"{config.source}: {used} experts per token out of {count}")
    return Experts(count, used, width, _shared_width(config, family, width), _expert_layers(config, family, layers))


def _shared_width(config: HfConfig, family: str, width: int) -> int:
    direct = config.optional(
        "shared_expert_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size"
    )
    if direct is not None:
        return direct * (config.integer("n_shared_experts", default=1, least=0) if family == "nemotron_h" else 1)
    if family.startswith("llama4"):
        return width
    return width * config.integer("n_shared_experts", "moe_num_shared_experts", "num_shared_experts",
                                  "num_shared_expert", default=0, least=0)  # fmt: skip


def _expert_layers(config: HfConfig, family: str, layers: int) -> frozenset[int]:
    every = range(layers)
    kinds = config.items("mlp_layer_types")
    if kinds:
        return frozenset(i for i, kind in enumerate(kinds) if kind == "sparse")
    listed = config.items("moe_layers")
    if listed is not None and family.startswith("llama4"):
        return frozenset(int(i) for i in listed)
    frequency = config.values.get("moe_layer_freq")
    if isinstance(frequency, list):
        return frozenset(i for i, on in enumerate(frequency) if on)
    first = config.integer("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", default=0, least=0)
    step, offset = 1, 0
    if family == "jamba":
        step = config.integer("expert_layer_period", default=2)
        offset = config.integer("expert_layer_offset", default=1, least=0)
    elif family.startswith("llama4"):
        step = config.integer("interleave_moe_layer_step", default=1)
        offset = step - 1
    elif isinstance(frequency, int) and frequency > 1:
        step = frequency
    elif config.optional("decoder_sparse_step", "moe_layer_interval"):
        step = config.integer("decoder_sparse_step", "moe_layer_interval")
        offset = step - 1
    dense = set(config.items("mlp_only_layers") or ())
    return frozenset(i for i in every if i >= first and i % step == offset and i not in dense)


def feed_forward_tensors(
    config: HfConfig, family: str, row: dict[str, Any], moe: Experts, layer: int, kind: str, hidden: int
) -> list[Tensor]:
    """Dense or routed feed-forward of one layer; none where the layer has none."""
    gates = ("up",) if row.get("gated", True) is False else ("gate", "up")
    if family in {"mamba", "mamba2", "falcon_mamba"} or (
        family == "nemotron_h" and kind not in {"-", "E", "mlp", "moe"}
    ):
        return []
    if family in {"nemotron-nas", "deci"}:
        width = _nas_width(config, layer, hidden)
        return _matrices("ffn", gates, hidden, width, 1, layer) if width else []
    routed = layer in moe.layers and not (family == "nemotron_h" and kind in {"-", "mlp"})
    tensors: list[Tensor] = []
    if routed:
        inner = config.optional("moe_latent_size", "routed_expert_hidden_size") or hidden
        tensors += _matrices("expert", gates, inner, moe.width, moe.count, layer)
        if inner != hidden:
            tensors += [Tensor("ffn_up", hidden, inner, 1, layer), Tensor("ffn_down", inner, hidden, 1, layer)]
        tensors.append(Tensor("router", hidden, moe.count, 1, layer))
        if family == "gpt_oss":
            tensors.append(Tensor("vector", moe.count * (2 * moe.width + hidden), 1, 1, layer))
        if moe.shared:
            tensors += _matrices("shared", gates, hidden, moe.shared, 1, layer)
        if not family.startswith("gemma4"):
            return tensors
    width = _dense_width(config, family, layer, moe)
    return [*tensors, *_matrices("ffn", gates, hidden, width, 1, layer)]


def _matrices(prefix: str, gates: tuple[str, ...], hidden: int, width: int, count: int, layer: int) -> list[Tensor]:
    up = [Tensor(f"{prefix}_{gate}", hidden, width, count, layer) for gate in gates]
    return [*up, Tensor(f"{prefix}_down", width, hidden, count, layer)]


def _dense_width(config: HfConfig, family: str, layer: int, moe: Experts) -> int:
    if family == "granitemoehybrid":
        return config.integer("shared_intermediate_size", "intermediate_size")
    listed = config.values.get("intermediate_size")
    if isinstance(listed, list):
        if layer >= len(listed) or not isinstance(listed[layer], int):
            raise FormatError(f"{config.source}: intermediate_size has no number for layer {layer}")
        return int(listed[layer])
    if family.startswith("llama4") and moe.count:
        return config.integer("intermediate_size_mlp", "intermediate_size")
    width = config.integer("intermediate_size", "n_inner", "ffn_hidden_size", "block_ff_dim")
    if family == "lfm2" and config.flag("block_auto_adjust_ff_dim", default=True):
        factor = config.values.get("block_ffn_dim_multiplier") or 1.0
        multiple = config.integer("block_multiple_of", default=256)
        width = -(-int(float(factor) * int(2 * width / 3)) // multiple) * multiple
    if config.flag("use_double_wide_mlp"):
        shared = config.optional("num_kv_shared_layers") or 0
        layers = config.integer("num_hidden_layers")
        width *= 2 if layer >= layers - shared > 0 else 1
    return width


def _nas_width(config: HfConfig, layer: int, hidden: int) -> int:
    blocks = config.items("block_configs") or ()
    block = blocks[layer].get("ffn") if layer < len(blocks) and isinstance(blocks[layer], dict) else None
    if not isinstance(block, dict) or block.get("no_op"):
        return 0
    factor = block.get("ffn_mult")
    if not isinstance(factor, int | float) or not 0 < factor < 1000:
        raise FormatError(f"{config.source}: ffn_mult of layer {layer} is {factor!r}")
    return -(-int(2 * factor * hidden / 3) // 256) * 256

"""From a Hugging Face config to layers and tensors: where families differ from one another."""

from __future__ import annotations

import difflib
from typing import Any

from osport.data import load
from osport.errors import FormatError
from osport.formats.hf_config import HfConfig
from osport.vram.architecture import Architecture, Attention, Layer, Recurrent, Tensor
from osport.vram.tensor_plan import (
    attention_tensors,
    feed_forward_tensors,
    latent_tensors,
    moe_shape,
    recurrent_tensors,
)

__all__ = ["architecture_of_config"]

_FULL = {"full_attention", "attention", "indexed_attention", "deepseek_sparse_attention", "global_attention", "*"}
_WINDOW = {"sliding_attention", "local_attention"}
_CHUNK = {"chunked_attention"}
_RECURRENT = {"linear_attention", "mamba", "mamba2", "conv", "short_conv", "M"}
_NO_CACHE = {"mlp": "mlp", "moe": "moe", "-": "mlp", "E": "moe"}


def architecture_of_config(config: HfConfig) -> Architecture:
    """Read a config. An unknown ``model_type`` gives an architecture whose ``missing`` says so.

    Raises FormatError for an unknown layer kind, contradictory head counts and numbers that cannot be.
    """
    families = load("memory_families.toml")["config"]
    kind = config.model_type
    if kind not in families:
        near = difflib.get_close_matches(kind, families, 3, 0.6)
        hint = f"; nearest known: {', '.join(near)}" if near else ""
        return Architecture(
            config.name, kind, config.source, 0, 0, 0, 0, 0, (), (), False, None,
            towers=config.towers, missing=(f"the layers of the unknown model_type {kind!r}{hint}",),
        )  # fmt: skip
    return _Reader(config, kind, families[kind]).read()


class _Reader:
    """One config and its family's row; the numbers that several layers need are read once."""

    def __init__(self, config: HfConfig, kind: str, family: dict[str, Any]) -> None:
        self.config = HfConfig(
            {**family.get("defaults", {}), **{k: v for k, v in config.values.items() if v is not None}},
            config.name, config.towers, config.quantization, config.source,
        )  # fmt: skip
        self.kind, self.family = kind, family
        get = self.config.integer
        self.hidden = get("hidden_size", "n_embd", "d_model")
        blocks = self.config.items("layers_block_type") or self.config.items("layer_types") or ()
        self.layers = get("num_hidden_layers", "n_layer", "num_layers", default=len(blocks) or None)
        if self.layers > 2000:
            raise self.fail(f"{self.layers} layers are absurd")
        attends = kind not in {"mamba", "mamba2", "falcon_mamba"}
        self.heads = get("num_attention_heads", "n_head", default=None if attends else 1)
        self.kv_heads = get("num_key_value_heads", "n_head_kv", "multi_query_group_num", default=self.heads)
        if isinstance(self.config.values.get("head_dim"), int):
            self.head_dim = get("head_dim")
        else:
            self.head_dim = self.hidden // self.heads
        self.vocabulary = get("vocab_size", "padded_vocab_size")
        self.tied = self.config.flag("tie_word_embeddings", default=bool(family.get("tied", False)))
        self.latent = self.config.optional("kv_lora_rank") or 0
        if attends and not self.latent and self.heads % self.kv_heads:
            raise self.fail(f"{self.heads} attention heads cannot share {self.kv_heads} KV heads")

    def fail(self, what: str) -> FormatError:
        return FormatError(f"{self.config.source}: {what}")

    def read(self) -> Architecture:
        kinds = self.kinds()
        moe = moe_shape(self.config, self.kind, self.layers)
        layers: list[Layer] = []
        tensors: list[Tensor] = [Tensor("embedding", self.hidden, self.vocabulary)]
        if not self.tied:
            tensors.append(Tensor("head", self.hidden, self.vocabulary))
        shared = self.config.optional("num_kv_shared_layers") or 0
        for index, kind in enumerate(kinds):
            layer, own = self.layer(index, kind, shares=index >= self.layers - shared > 0)
            layers.append(layer)
            tensors += own
            tensors += feed_forward_tensors(self.config, self.kind, self.family, moe, index, kind, self.hidden)
        tensors.append(Tensor("vector", self.hidden, 1))
        tensors += self.per_layer_embeddings()
        widths = [t.rows for t in tensors if t.role in {"attn_q", "attn_q_b"}]
        if self.family.get("output_gate"):
            widths = [width // 2 for width in widths]
        dense = [t.rows for t in tensors if t.role in {"ffn_up", "shared_up"}]
        routed = [t.rows * moe.used for t in tensors if t.role == "expert_up"]
        windows = all(layer.attention is None or layer.attention.window is None for layer in layers)
        return Architecture(
            name=self.config.name, family=self.kind, source=self.config.source, hidden=self.hidden,
            vocabulary=self.vocabulary, heads=self.heads, query_width=max(widths, default=0),
            feed_forward=max([*dense, *routed], default=0), layers=tuple(layers), tensors=tuple(tensors),
            tied=self.tied, context=self.context(), experts=moe.count, experts_used=moe.used,
            gated_attention=bool(self.family.get("output_gate")),
            windows_in_llama_cpp=windows or bool(self.family.get("llama_cpp_windows", True)),
            draft_layers=self.config.integer("num_nextn_predict_layers", "mtp_num_hidden_layers", default=0, least=0),
            towers=self.config.towers, state_type=self.state_type(),
        )  # fmt: skip

    def state_type(self) -> str:
        raw = self.config.values.get("mamba_ssm_dtype") or self.config.values.get("mamba_ssm_cache_dtype")
        return "f32" if raw == "float32" else "bf16"

    def context(self) -> int | None:
        return self.config.optional(
            "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", least=1
        )

    def kinds(self) -> list[str]:
        """The kind of every layer, in the config's words."""
        found = self.listed_kinds()
        if found is None:
            found = self.implied_kinds()
        if len(found) != self.layers:
            raise self.fail(f"{len(found)} layer kinds for {self.layers} layers")
        known = _FULL | _WINDOW | _CHUNK | _RECURRENT | set(_NO_CACHE)
        strange = next((kind for kind in found if kind not in known), None)
        if strange is not None:
            raise self.fail(f"the layer kind {strange!r} is not known; its memory cannot be computed")
        return found

    def listed_kinds(self) -> list[str] | None:
        values = self.config.values
        pattern = values.get("hybrid_override_pattern")
        if isinstance(pattern, str) and pattern:
            self.layers = len(pattern)
            return list(pattern)
        for key in ("layers_block_type", "layer_types"):
            listed = self.config.items(key)
            if listed:
                return [str(item) for item in listed]
        linear = values.get("linear_attn_config")
        if isinstance(linear, dict) and isinstance(linear.get("kda_layers"), list):
            recurrent = set(linear["kda_layers"])
            return ["linear_attention" if i + 1 in recurrent else "full_attention" for i in range(self.layers)]
        kinds = self.config.items("attn_type_list")
        if kinds:
            return ["full_attention" if item == 1 else "linear_attention" for item in kinds]
        full = self.config.items("full_attn_idxs")
        if full is not None:
            return ["full_attention" if i in set(full) else "conv" for i in range(self.layers)]
        return None

    def implied_kinds(self) -> list[str]:
        get, kind = self.config.integer, self.kind
        if kind in {"mamba", "mamba2", "falcon_mamba"}:
            return ["mamba"] * self.layers
        if kind == "jamba":
            period, offset = get("attn_layer_period", default=8), get("attn_layer_offset", default=4, least=0)
            return ["full_attention" if i % period == offset else "mamba" for i in range(self.layers)]
        if kind.startswith(("qwen3_next", "qwen3_5")):
            interval = get("full_attention_interval", default=4)
            return ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(self.layers)]
        hybrid = self.config.items("hybrid_layer_pattern")
        if hybrid:
            return ["sliding_attention" if item == 1 else "full_attention" for item in hybrid]
        windows = self.family.get("windows", "layer_types")
        if kind.startswith("llama4"):
            step = get("no_rope_layer_interval", default=4)
            chunked = self.config.optional("attention_chunk_size")
            return ["chunked_attention" if chunked and (i + 1) % step else "full_attention" for i in range(self.layers)]
        if not self.window():
            return ["full_attention"] * self.layers
        if windows == "all":
            return ["sliding_attention"] * self.layers
        if isinstance(windows, int):
            period = get("sliding_window_pattern", default=windows)
            return ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(self.layers)]
        if self.config.flag("use_sliding_window"):
            first = get("max_window_layers", default=0, least=0)
            return ["sliding_attention" if i >= first else "full_attention" for i in range(self.layers)]
        return ["full_attention"] * self.layers

    def window(self) -> int | None:
        return self.config.optional("sliding_window", "sliding_window_size") or None

    def layer(self, index: int, kind: str, *, shares: bool) -> tuple[Layer, list[Tensor]]:
        """What one layer keeps, and the tensors of its mixing part."""
        norms = [
            Tensor("vector", self.hidden, 4 if self.kind.startswith(("gemma2", "gemma3", "gemma4")) else 2, 1, index)
        ]
        if kind in _NO_CACHE:
            return Layer(), [Tensor("vector", self.hidden, 1, 1, index)]
        if kind in _RECURRENT:
            state, tensors = recurrent_tensors(self.config, self.kind, kind, index, self.hidden)
            return Layer(recurrent=state), [*tensors, *norms]
        if self.kind in {"nemotron-nas", "deci"}:
            return self.nas_layer(index)
        if self.latent:
            attention, tensors = latent_tensors(self.config, index, self.hidden, self.heads, self.latent)
        else:
            attention, tensors = self.plain_attention(index, kind)
        recurrent: Recurrent | None = None
        if self.kind == "falcon_h1":
            recurrent, more = recurrent_tensors(self.config, self.kind, "mamba2", index, self.hidden)
            tensors += more
        return Layer(attention, recurrent, shares), [*tensors, *norms]

    def plain_attention(self, index: int, kind: str) -> tuple[Attention, list[Tensor]]:
        heads, kv_heads, key, value = self.heads, self.kv_heads, self.head_dim, self.head_dim
        window = None
        values = self.config
        if kind in _WINDOW:
            window = self.window()
            if window is None:
                raise self.fail("a sliding-attention layer without sliding_window")
            if self.kind == "mimo_v2_flash":
                kv_heads = values.integer("swa_num_key_value_heads", default=kv_heads)
                key = values.integer("swa_head_dim", default=key)
                value = values.integer("swa_v_head_dim", default=value)
        elif kind in _CHUNK:
            window = values.integer("attention_chunk_size", default=8192)
        elif self.kind.startswith("gemma4"):
            kv_heads = values.integer("num_global_key_value_heads", default=kv_heads)
            key = value = values.integer("global_head_dim", default=key)
        if self.kind == "mimo_v2_flash" and window is None:
            value = values.integer("v_head_dim", default=value)
        same = self.kind.startswith("gemma4") and window is None and values.flag("attention_k_eq_v")
        tensors = attention_tensors(
            self.config, self.family, index, self.hidden, heads, kv_heads, key, value, value_projection=not same
        )
        return Attention(kv_heads, key, value, window), tensors

    def nas_layer(self, index: int) -> tuple[Layer, list[Tensor]]:
        """Architectures found by search: each block says whether it attends and how many heads share a KV head."""
        blocks = self.config.items("block_configs") or ()
        block = blocks[index] if index < len(blocks) else None
        attention = block.get("attention") if isinstance(block, dict) else None
        if not isinstance(attention, dict):
            raise self.fail(f"block_configs says nothing about layer {index}")
        norm = [Tensor("vector", self.hidden, 2, 1, index)]
        if attention.get("no_op"):
            return Layer(), norm
        if attention.get("replace_with_linear"):
            return Layer(), [*norm, Tensor("attn_o", self.hidden, self.hidden, 1, index)]
        group = attention.get("n_heads_in_group")
        if not isinstance(group, int) or group < 1 or self.heads % group:
            raise self.fail(f"n_heads_in_group of layer {index} is {group!r}; {self.heads} heads cannot be grouped so")
        kv_heads = self.heads // group
        tensors = attention_tensors(
            self.config, self.family, index, self.hidden, self.heads, kv_heads, self.head_dim, self.head_dim
        )
        return Layer(Attention(kv_heads, self.head_dim, self.head_dim)), [*tensors, *norm]

    def per_layer_embeddings(self) -> list[Tensor]:
        """Gemma 3n and 4: a second embedding with a row per layer, and its projections."""
        width = self.config.optional("hidden_size_per_layer_input") or 0
        if not width or not self.kind.startswith(("gemma3n", "gemma4")):
            return []
        words = self.config.integer("vocab_size_per_layer_input", default=self.vocabulary)
        tensors = [
            Tensor("layer_embedding", width * self.layers, words),
            Tensor("attn_o", self.hidden, width * self.layers),
        ]
        for index in range(self.layers):
            tensors += [
                Tensor("ffn_up", self.hidden, width, 1, index),
                Tensor("ffn_down", width, self.hidden, 1, index),
            ]
        return tensors

"""From a GGUF header to layers and tensors, by the rules of llama.cpp's own loaders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from osport.data import load
from osport.errors import FormatError
from osport.formats.gguf import GgufArray, GgufHeader, GgufTensor
from osport.vram.architecture import Architecture, Attention, Layer, Recurrent, Tensor

__all__ = ["architecture_of_gguf", "layer_of", "role_of"]

_LAYER = re.compile(r"^blk\.(\d+)\.")
_ROLES = (
    ("token_embd", "embedding"), ("per_layer_token_embd", "layer_embedding"), ("output.weight", "head"),
    ("ffn_gate_inp", "router"), ("ffn_gate_up_exps", "expert_up"), ("ffn_gate_exps", "expert_gate"),
    ("ffn_up_exps", "expert_up"), ("ffn_down_exps", "expert_down"), ("_shexp", "shared_up"),
    ("ffn_gate", "ffn_gate"), ("ffn_up", "ffn_up"), ("ffn_down", "ffn_down"), ("attn_qkv", "attn_qkv"),
    ("attn_q_a", "attn_q_a"), ("attn_q_b", "attn_q_b"), ("attn_q", "attn_q"), ("attn_kv_a", "attn_kv_a"),
    ("attn_kv_b", "attn_kv_b"), ("attn_k", "attn_k"), ("attn_v", "attn_v"), ("attn_output", "attn_o"),
    ("ssm_in", "ssm_in"), ("ssm_out", "ssm_out"), ("indexer", "indexer"),
)  # fmt: skip

_ANYWHERE = {"_shexp", "indexer"}


def layer_of(name: str) -> int | None:
    """The layer that a tensor belongs to, None for embeddings and the head."""
    match = _LAYER.match(name)
    return int(match.group(1)) if match else None


def role_of(tensor: GgufTensor) -> str:
    """What a tensor is for; vectors (norms, biases) are ``vector``, anything unknown ``other``."""
    if len([length for length in tensor.shape if length > 1]) < 2:
        return "vector"
    name = _LAYER.sub("", tensor.name)
    return next(
        (role for part, role in _ROLES if name.startswith(part) or (part in _ANYWHERE and part in name)), "other"
    )


def architecture_of_gguf(header: GgufHeader, tensors: Iterable[GgufTensor], source: str) -> Architecture:
    """Read a header; ``tensors`` are those of all its shards.

    An unknown architecture gives ``missing``. Raises FormatError for contradictory numbers.
    """
    return _Reader(header, tuple(tensors), source).read()


class _Reader:
    """One header; keys are read as ``<architecture>.<name>``."""

    def __init__(self, header: GgufHeader, tensors: tuple[GgufTensor, ...], source: str) -> None:
        self.header, self.stored, self.source = header, tensors, source
        self.arch = header.architecture
        self.rules: dict[str, Any] = load("memory_families.toml")["gguf"]

    def fail(self, what: str) -> FormatError:
        return FormatError(f"{self.source}: {what}")

    def number(self, name: str, default: int | None = None, least: int = 0) -> int:
        key = f"{self.arch}.{name}"
        value = self.header.metadata.get(key)
        if isinstance(value, GgufArray):
            value = max(self.values(name), default=0)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**40:
            raise self.fail(f"{key} is {value!r}; expected a whole number of at least {least}")
        return value

    def values(self, name: str) -> tuple[int, ...]:
        value = self.header.metadata.get(f"{self.arch}.{name}")
        if not isinstance(value, GgufArray):
            return ()
        if len(value) > 10_000 or value.type in {"string", "f32", "f64"}:
            raise self.fail(f"{self.arch}.{name} is no list of whole numbers of sane length")
        return tuple(int(item) for item in value.values())

    def per_layer(self, name: str, default: int) -> list[int]:
        """A key that holds one number for all layers, or one for each."""
        listed = self.values(name)
        if not listed:
            return [self.number(name, default)] * self.layers
        if len(listed) < self.layers or min(listed) < 0:
            raise self.fail(f"{self.arch}.{name} has {len(listed)} numbers for {self.layers} layers")
        return list(listed[: self.layers])

    def read(self) -> Architecture:
        self.all_layers = self.number("block_count", least=1)
        if self.all_layers > 2000:
            raise self.fail(f"{self.all_layers} layers are absurd")
        draft = min(self.number("nextn_predict_layers", 0), self.all_layers - 1)
        self.layers = self.all_layers - draft
        hidden = self.number("embedding_length", least=1)
        self.heads = self.per_layer("attention.head_count", 0)
        self.kv_heads = self.per_layer("attention.head_count_kv", max(self.heads))
        for heads, kv_heads in zip(self.heads, self.kv_heads, strict=True):
            if heads and kv_heads and heads % kv_heads:
                raise self.fail(f"{heads} attention heads cannot share {kv_heads} KV heads")
        size = hidden // max(self.heads) if max(self.heads) else 0
        self.key, self.value = self.number("attention.key_length", size), self.number("attention.value_length", size)
        layers, missing = self.layer_list()
        tensors = tuple(self.tensor(tensor) for tensor in self.stored)
        embedding = next((t for t in tensors if t.role == "embedding"), None)
        widths = [t.rows for t in tensors if t.role in {"ffn_up", "shared_up"} and t.layer is not None]
        used = self.number("expert_used_count", 0)
        widths += [t.rows * used for t in tensors if t.role == "expert_up"]
        gate = self.arch in self.rules["output_gate"]
        name = self.header.metadata.get("general.name")
        return Architecture(
            name=name if isinstance(name, str) and name else self.arch, family=self.arch, source=self.source,
            hidden=hidden, vocabulary=embedding.rows if embedding else self.number("vocab_size", 0),
            heads=max(self.heads), query_width=max(self.heads) * max(self.key, self.mla_key()),
            feed_forward=max(widths, default=0), layers=layers, tensors=tensors,
            tied=not any(t.role == "head" for t in tensors), context=self.number("context_length", 0) or None,
            experts=self.number("expert_count", 0), experts_used=used, gated_attention=gate,
            draft_layers=draft, missing=missing,
        )  # fmt: skip

    def mla_key(self) -> int:
        return self.number("attention.key_length_mla", 0)

    def tensor(self, tensor: GgufTensor) -> Tensor:
        layer = layer_of(tensor.name)
        role = "draft" if layer is not None and layer >= self.layers else role_of(tensor)
        columns = tensor.shape[0] if tensor.shape else 1
        rows = tensor.shape[1] if len(tensor.shape) > 1 else 1
        count = tensor.elements // (columns * rows) if columns * rows else 0
        return Tensor(role, columns, rows, count, layer)

    def layer_list(self) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
        arch, rules = self.arch, self.rules
        indices = range(self.layers)
        if arch in rules["recurrent"]:
            return tuple(Layer(None, self.recurrent()) for _ in indices), ()
        if arch in rules["parallel"]:
            return tuple(Layer(self.attention(i), self.recurrent()) for i in indices), ()
        if arch in rules["interval"]:
            every = self.number("full_attention_interval", 4, least=1)
            return tuple(
                Layer(None, self.recurrent()) if (i + 1) % every else Layer(self.attention(i)) for i in indices
            ), ()
        if arch in rules["zero_heads"]:
            return tuple(Layer(self.attention(i)) if self.kv_heads[i] else Layer(None, self.recurrent())
                         for i in indices), ()  # fmt: skip
        if arch in rules["zero_heads_and_feed_forward"]:
            widths = self.per_layer("feed_forward_length", 0)
            return tuple(self.nemotron_layer(i, widths[i]) for i in indices), ()
        if arch in rules["latent"] or arch in rules["latent_indexed"]:
            return tuple(Layer(self.latent(arch in rules["latent_indexed"], i)) for i in indices), ()
        if arch in rules["windowed"]:
            return self.windowed(rules["windowed"][arch]), ()
        if arch in rules["plain"]:
            return tuple(Layer(self.attention(i) if self.kv_heads[i] else None) for i in indices), ()
        return (), (f"how the unknown architecture {arch!r} keeps its context",)

    def attention(self, layer: int, window: int | None = None) -> Attention:
        if self.number("kv_lora_rank", 0) or self.number("attention.kv_lora_rank", 0):
            return self.latent(False, layer)
        key, value = self.key, self.value
        if window is not None:
            key = self.number("attention.key_length_swa", key)
            value = self.number("attention.value_length_swa", value)
        if not key or not self.kv_heads[layer]:
            raise self.fail(f"layer {layer} attends with {self.kv_heads[layer]} KV heads of size {key}")
        return Attention(self.kv_heads[layer], key, value, window)

    def latent(self, indexed: bool, layer: int) -> Attention:
        rank, rope = self.number("attention.kv_lora_rank", 0), self.number("rope.dimension_count", 0)
        if not rank:
            return Attention(self.kv_heads[layer], self.key, self.value)
        key, value = self.mla_key(), self.number("attention.value_length_mla", 0)
        heads = self.heads[layer]
        if not key:
            # Files from before MLA carry expanded heads only; llama.cpp then caches all of them.
            return Attention(
                self.kv_heads[layer], self.key, self.value, None, False, rope, (heads, self.key, self.value)
            )
        pattern = self.values("attention.indexer.types")
        owns = not pattern or (layer < len(pattern) and pattern[layer] != 0)
        size = self.number("attention.indexer.key_length", 0) if indexed and owns else 0
        return Attention(1, rank + rope, 0, None, True, rope, (heads, key, value), size)

    def windowed(self, rule: dict[str, Any]) -> tuple[Layer, ...]:
        window = self.number("attention.sliding_window", rule.get("window", 0))
        window = window or (0 if rule.get("optional") else int(rule.get("window", 0)))
        listed = self.values("attention.sliding_window_pattern")
        period = self.number("attention.sliding_window_pattern", rule.get("period", 0)) if not listed else 0
        if not listed and not period:
            raise self.fail(f"{self.arch}.attention.sliding_window_pattern is missing; which layers are windowed?")
        if listed and len(listed) < self.layers:
            raise self.fail(f"sliding_window_pattern has {len(listed)} entries for {self.layers} layers")
        owners = rule.get("layers_with_cache", self.layers)
        owners = min(owners, self.layers - self.number("attention.shared_kv_layers", 0))
        layers = []
        for index in range(self.layers):
            rest = index % period if period else 0
            narrow = bool(listed[index]) if listed else (rest != 0 if rule.get("first") else rest < period - 1)
            layers.append(Layer(self.attention(index, window if narrow and window else None), None, index >= owners))
        return tuple(layers)

    def nemotron_layer(self, index: int, width: int) -> Layer:
        if width:
            return Layer()
        return Layer(self.attention(index)) if self.kv_heads[index] else Layer(None, self.recurrent())

    def recurrent(self) -> Recurrent:
        """The sizes of llama.cpp's ``n_embd_r`` and ``n_embd_s``."""
        hidden = self.number("embedding_length", least=1)
        head = self.number("wkv.head_size", 0)
        if head:
            return Recurrent(self.number("token_shift_count", 2) * hidden, hidden * head)
        length = self.number("shortconv.l_cache", 0)
        if length:
            return Recurrent((length - 1) * hidden, 0)
        kernel, inner = self.number("ssm.conv_kernel", 0), self.number("ssm.inner_size", 0)
        delta = self.number("kda.head_dim", 0)
        if delta:
            wide = max(self.heads) * delta
            return Recurrent(3 * (kernel - 1 if kernel else 3) * wide, delta * wide)
        state, groups = self.number("ssm.state_size", 0), self.number("ssm.group_count", 0)
        if not inner or not state:
            raise self.fail(f"{self.arch}.ssm.inner_size or ssm.state_size is missing; the state cannot be sized")
        return Recurrent((kernel - 1 if kernel else 0) * (inner + 2 * groups * state), state * inner)

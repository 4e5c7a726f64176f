"""Which type a quantiser gives to which tensor, and how many bytes follow from it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from osport.data import load
from osport.errors import UsageError
from osport.vram.architecture import EXPERT_ROLES, WIDE_ROLES, Architecture, Tensor

__all__ = ["Quantization", "named_quantization"]

_FALLBACK = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL", "IQ2_XXS": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL", "IQ3_S": "IQ4_NL", "IQ4_XS": "IQ4_NL",
}  # fmt: skip
_BITS = re.compile(r"^(\d+(?:\.\d+)?)\s*(?:bpw|bits?)$", re.IGNORECASE)
_ATTENTION = {"attn_q", "attn_k", "attn_v", "attn_o", "attn_q_a", "attn_q_b", "attn_kv_a", "attn_kv_b", "indexer"}


@frozen
class Quantization:
    """A file name's quantisation: a ggml mix, a linear-layer format, or a bare number of bits.

    ``spread`` is the half width of the interval; ``left_wide`` are roles that stay at 16 bits.
    """

    name: str
    kind: str
    spread: float
    source: str
    mix: Mapping[str, Any] | None = None
    bits: float = 16.0
    experts_only: bool = False
    left_wide: frozenset[str] = frozenset()

    def tensor_bytes(self, tensor: Tensor, architecture: Architecture) -> int:
        """Bytes of one tensor at its most likely type."""
        if self.kind == "mix":
            return self._mixed(tensor, architecture)
        if self.kind == "bits":
            return math.ceil(tensor.elements * self.bits / 8)
        narrow = tensor.role not in WIDE_ROLES | {"embedding", "layer_embedding", "head"} | self.left_wide
        if self.experts_only:
            narrow = tensor.role in EXPERT_ROLES
        return math.ceil(tensor.elements * (self.bits if narrow else 16) / 8)

    def _mixed(self, tensor: Tensor, architecture: Architecture) -> int:
        name = "F32" if tensor.role in WIDE_ROLES else self.tensor_type(tensor, architecture)
        layouts = load("ggml_types.toml")["layouts"]
        while tensor.columns % layouts[name][1]:
            name = _FALLBACK.get(name, "F16")
        _, weights, size = layouts[name]
        return int(tensor.elements // weights * size)

    def tensor_type(self, tensor: Tensor, architecture: Architecture) -> str:
        """The ggml type that llama-quantize would choose."""
        mix = self.mix or {}
        base, role = str(mix["base"]), tensor.role
        if role == "head" or (role == "embedding" and architecture.tied):
            return str(mix.get("output", "Q6_K"))
        if role in {"embedding", "layer_embedding"}:
            return str(mix.get("embedding", base))
        if role in EXPERT_ROLES and "experts" in mix:
            return str(mix["experts"])
        layers = max(1, len(architecture.layers))
        at = tensor.layer or 0
        if role == "attn_v":
            return self._value_type(mix, base, at, layers, architecture)
        if role == "attn_k" and architecture.experts == 8:
            return "Q8_0"
        if (
            role == "attn_o"
            and architecture.experts == 8
            and base not in {"F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K"}
        ):
            return "Q5_K"
        if role in {"ffn_down", "expert_down", "shared_down"}:
            return (
                _first(mix.get("ffn_down_first"), at, layers)
                or _more(mix.get("ffn_down_more"), at, layers)
                or str(mix.get("ffn_down", base))
            )
        if role in {"ffn_gate", "ffn_up", "expert_gate", "expert_up"} and "ffn_middle" in mix:
            return str(mix["ffn_middle"]) if layers // 8 <= at < 7 * layers // 8 else base
        return str(mix.get(role, base))

    def _value_type(self, mix: Mapping[str, Any], base: str, at: int, layers: int, architecture: Architecture) -> str:
        attention = next((layer.attention for layer in architecture.layers if layer.attention), None)
        group = architecture.heads // attention.kv_heads if attention and attention.kv_heads else 1
        if base in {"F32", "F16", "BF16"}:
            return base
        if architecture.experts == 8:
            return "Q8_0"
        few = mix.get("attn_v_first")
        kind = str(few[1]) if few and at < few[0] else _more(mix.get("attn_v_more"), at, layers)
        if kind is None and "attn_v_gqa4" in mix and (group >= 4 or architecture.experts >= 4):
            kind = str(mix["attn_v_gqa4"])
        kind = kind or str(mix.get("attn_v", base))
        big = architecture.family.startswith(("llama", "qwen2")) and layers == 80
        return "Q5_K" if big and kind in {"Q3_K", "Q4_K"} else kind


def named_quantization(name: str, *, group: int | None = None, ignored: tuple[str, ...] = ()) -> Quantization:
    """``Q4_K_M``, ``awq``, ``fp8``, ``bf16``, ``4.25bpw``. Raises UsageError with the nearest names."""
    table = load("quantization.toml")
    mixes, linear, like = table["mix"], table["linear"], table["like"]
    bits = _BITS.match(name.strip())
    if bits:
        number = float(bits.group(1))
        if not 0.5 <= number <= 32:
            raise UsageError(f"{name}: between 0.5 and 32 bits per weight")
        return Quantization(name, "bits", 0.02, "the number of bits as given", bits=number)
    exact = {key.lower(): key for key in (*mixes, *like)}
    key = exact.get(name.strip().lower().replace("-gguf", ""))
    if key is not None and name.strip().lower() not in linear:
        mix = mixes[like.get(key, key)]
        spread = table["spread"]["like" if key in like else mix["spread"]]
        return Quantization(key, "mix", spread, table["mix_source"], mix=mix)
    row = linear.get(name.strip().lower())
    if row is None:
        known = [*mixes, *like, *linear]
        near = difflib.get_close_matches(name.upper(), known, 3, 0.5) or difflib.get_close_matches(name, known, 3, 0.4)
        hint = f"; nearest known: {', '.join(near)}" if near else f"; known: {', '.join(sorted(known)[:12])}, ..."
        raise UsageError(f"unknown quantisation {name!r}{hint}")
    width = float(row["bits"])
    if group and "group" in row:
        width = int(width) + 20 / group
    return Quantization(
        name, "linear", 0.02 if width >= 8 else 0.04, row["source"], bits=width,
        experts_only=bool(row.get("experts_only", False)), left_wide=_wide_roles(ignored),
    )  # fmt: skip


def _wide_roles(ignored: tuple[str, ...]) -> frozenset[str]:
    """Roles that a checkpoint's list of unquantised modules names for (nearly) every layer."""
    roles: set[str] = set()
    text = [item.lower() for item in ignored]
    if _many(text, "self_attn") or _many(text, "attn.q_proj"):
        roles |= _ATTENTION
    if _many(text, "linear_attn") or _many(text, "mixer") or _many(text, "mamba"):
        roles |= {"ssm_in", "ssm_out"}
    if _many(text, "shared_expert"):
        roles |= {"shared_gate", "shared_up", "shared_down"}
    return frozenset(roles)


def _many(text: list[str], part: str) -> bool:
    named = [item for item in text if part in item]
    return any("*" in item or item.startswith("re:") for item in named) or len(named) > 8


def _first(rule: Any, at: int, layers: int) -> str | None:
    return str(rule[1]) if rule and at < layers // int(rule[0]) else None


def _more(kind: Any, at: int, layers: int) -> str | None:
    eighth = layers // 8
    more = at < eighth or at >= 7 * layers // 8 or (at - eighth) % 3 == 2
    return str(kind) if kind is not None and more else None

"""What decides the memory of a model: its layers, and the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

__all__ = ["EXPERT_ROLES", "WIDE_ROLES", "Architecture", "Attention", "Layer", "Recurrent", "Tensor"]

EXPERT_ROLES = frozenset({"expert_gate", "expert_up", "expert_down"})
# Roles that quantisers leave at 16 or 32 bits: vectors, routers, convolutions, biases.
WIDE_ROLES = frozenset({"vector", "router"})


@frozen
class Attention:
    """The KV cache of one layer.

    ``window`` is None for full attention, else the sliding (or chunked) window in tokens.
    ``value_dim`` 0 means that only K is stored: the latent of MLA, ``key_dim`` wide in one head.
    ``expanded`` is what the same MLA layer stores where the runtime keeps no latent: (heads, key, value) sizes.
    ``indexer_dim`` is the key width of a sparse-attention indexer, 0 without one.
    """

    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    latent: bool = False
    rope_dim: int = 0
    expanded: tuple[int, int, int] | None = None
    indexer_dim: int = 0

    @property
    def key_width(self) -> int:
        """K elements of one token."""
        return self.kv_heads * self.key_dim

    @property
    def value_width(self) -> int:
        """V elements of one token."""
        return self.kv_heads * self.value_dim


@frozen
class Recurrent:
    """The fixed state of one recurrent layer and sequence, in elements.

    ``convolution`` is the rolling input of a short convolution, ``state`` the state matrix proper.
    """

    convolution: int
    state: int


@frozen
class Layer:
    """One block. ``shares_kv`` marks a layer that reads another layer's cache and owns none."""

    attention: Attention | None = None
    recurrent: Recurrent | None = None
    shares_kv: bool = False


@frozen
class Tensor:
    """A weight matrix by its role: ``columns`` is the length of a row, ``count`` how many of them (experts)."""

    role: str
    columns: int
    rows: int
    count: int = 1
    layer: int | None = None

    @property
    def elements(self) -> int:
        """Number of weights."""
        return self.columns * self.rows * self.count


@frozen
class Architecture:
    """A model, as far as memory is concerned.

    ``query_width`` is heads x head size of the widest layer, ``feed_forward`` the widest feed-forward row
    that one token computes, ``missing`` what could not be learnt (an unknown family leaves ``layers`` empty).
    ``gated_attention`` marks families whose query projection also yields a gate. ``state_type`` is the type of
    a recurrent state where the runtime follows the config (vLLM); llama.cpp always keeps f32.
    """

    name: str
    family: str
    source: str
    hidden: int
    vocabulary: int
    heads: int
    query_width: int
    feed_forward: int
    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    tied: bool
    context: int | None
    experts: int = 0
    experts_used: int = 0
    gated_attention: bool = False
    windows_in_llama_cpp: bool = True
    draft_layers: int = 0
    state_type: str = "bf16"
    towers: tuple[str, ...] = ()
    published_parameters: int | None = None
    missing: tuple[str, ...] = field(default=())

    @property
    def parameters(self) -> int:
        """All parameters, every expert counted; a tied embedding counts once."""
        if self.published_parameters is not None:
            return self.published_parameters
        return _count(tensor for tensor in self.tensors if tensor.role != "draft")

    @property
    def active_parameters(self) -> int:
        """Parameters read for one token: all but the experts that are not routed to and an untied embedding."""
        active = 0
        for tensor in self.tensors:
            if tensor.role in EXPERT_ROLES and self.experts:
                active += tensor.elements * self.experts_used // self.experts
            elif tensor.role != "draft" and (tensor.role != "embedding" or self.tied):
                active += tensor.elements
        return active

    @property
    def attention_layers(self) -> tuple[Attention, ...]:
        """The layers that own a KV cache."""
        return tuple(layer.attention for layer in self.layers if layer.attention and not layer.shares_kv)

    @property
    def recurrent_layers(self) -> tuple[Recurrent, ...]:
        """The layers that own a recurrent state."""
        return tuple(layer.recurrent for layer in self.layers if layer.recurrent)

    @property
    def is_moe(self) -> bool:
        """Whether there are routed experts."""
        return self.experts > 1


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.elements for tensor in tensors)

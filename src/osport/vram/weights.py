"""Bytes of the weights by layer: exact from headers, an interval from a name and a quantisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from osport.formats.gguf import GgufTensor
from osport.formats.safetensors import Checkpoint
from osport.vram.architecture import EXPERT_ROLES, Architecture
from osport.vram.estimate import Estimate, total
from osport.vram.gguf_reader import layer_of, role_of
from osport.vram.quant_mix import Quantization

__all__ = ["Weights", "rough_weights", "weights_of_checkpoint", "weights_of_gguf", "weights_of_plan"]

_ZERO = Estimate(0, 0, 0)


@frozen
class Weights:
    """Where the bytes are: per layer, and how much of a layer is routed experts.

    ``embedding`` is the input embedding, ``head`` the output head with the last norm, ``draft`` the layers
    of multi-token prediction that a checkpoint carries, ``expert_tensor`` the largest single expert tensor.
    """

    layers: tuple[Estimate, ...]
    experts: tuple[Estimate, ...]
    embedding: Estimate
    head: Estimate
    draft: Estimate
    tied: bool
    expert_tensor: int
    rule: str
    source: str

    @property
    def file(self) -> Estimate:
        """All of it, as a file or checkpoint stores it."""
        return total([*self.layers, self.embedding, self.head, self.draft])

    @property
    def routed(self) -> Estimate:
        """Routed experts in all layers."""
        return total(self.experts)


def weights_of_gguf(tensors: Iterable[GgufTensor], architecture: Architecture, source: str) -> Weights:
    """Exact, from the tensor table."""
    count = len(architecture.layers) or 1 + max((layer_of(t.name) or 0 for t in tensors), default=0)
    sizes: dict[str, dict[int | None, int]] = {"dense": {}, "routed": {}}
    embedding = head = draft = biggest = 0
    for tensor in tensors:
        layer, role = layer_of(tensor.name), role_of(tensor)
        if layer is not None and layer >= count:
            draft += tensor.size
        elif layer is not None:
            part = sizes["routed" if role in EXPERT_ROLES else "dense"]
            part[layer] = part.get(layer, 0) + tensor.size
            biggest = max(biggest, tensor.size if role in EXPERT_ROLES else 0)
        elif role in {"embedding", "layer_embedding"}:
            embedding += tensor.size
        else:
            head += tensor.size
    return _assembled(
        {i: Estimate.exact(v) for i, v in sizes["dense"].items() if i is not None},
        {i: Estimate.exact(v) for i, v in sizes["routed"].items() if i is not None},
        count, Estimate.exact(embedding), Estimate.exact(head), Estimate.exact(draft), architecture.tied, biggest,
        "sum of the tensor table", source,
    )  # fmt: skip


def weights_of_plan(architecture: Architecture, quantization: Quantization) -> Weights:
    """An interval, from the tensors that the config implies and the types that the quantiser would choose."""
    spread = quantization.spread
    dense: dict[int, float] = {}
    routed: dict[int, float] = {}
    embedding = head = biggest = 0
    for tensor in architecture.tensors:
        size = quantization.tensor_bytes(tensor, architecture)
        if tensor.role in {"embedding", "layer_embedding"}:
            embedding += size
        elif tensor.layer is None:
            head += size
        elif tensor.role in EXPERT_ROLES:
            routed[tensor.layer] = routed.get(tensor.layer, 0) + size
            biggest = max(biggest, size)
        else:
            dense[tensor.layer] = dense.get(tensor.layer, 0) + size

    def interval(value: float) -> Estimate:
        return Estimate.around(value, spread, spread)

    return _assembled(
        {i: interval(v) for i, v in dense.items()}, {i: interval(v) for i, v in routed.items()},
        len(architecture.layers), interval(embedding), interval(head), _ZERO, architecture.tied, biggest,
        f"every tensor at the type that {quantization.name} gives it", quantization.source,
    )  # fmt: skip


def weights_of_checkpoint(checkpoint: Checkpoint, architecture: Architecture, source: str) -> Weights:
    """Exact in sum; spread over layers in proportion to their parameters.

    Multi-token prediction layers (named behind the last layer) and towers are part of the sum.
    """
    shares: dict[int, int] = {}
    routed: dict[int, int] = {}
    embedding = head = rest = 0
    for tensor in architecture.tensors:
        if tensor.role in {"embedding", "layer_embedding"}:
            embedding += tensor.elements
        elif tensor.layer is None:
            head += tensor.elements
        else:
            part = routed if tensor.role in EXPERT_ROLES else shares
            part[tensor.layer] = part.get(tensor.layer, 0) + tensor.elements
            rest += tensor.elements
    wide = min(2 * (embedding + head), checkpoint.size)
    unit = (checkpoint.size - wide) / rest if rest else 0.0
    middle = checkpoint.size - wide if rest else 0
    exact = {i: Estimate.exact(int(v * unit)) for i, v in shares.items()}
    experts = {i: Estimate.exact(int(v * unit)) for i, v in routed.items()}
    lost = middle - sum(e.likely for e in (*exact.values(), *experts.values()))
    own = wide if rest else checkpoint.size
    embedded = round(own * embedding / (embedding + head)) if embedding + head else 0
    return _assembled(
        exact, experts, len(architecture.layers), Estimate.exact(embedded), Estimate.exact(own - embedded + lost),
        _ZERO, architecture.tied, 0, "sum of the checkpoint's headers", source,
    )  # fmt: skip


def rough_weights(parameters: int, bits: float) -> Weights:
    """Parameters times bits, with the width that published files of one nominal size show."""
    size = parameters * bits / 8
    below, above = (0.02, 0.12) if bits >= 8 else (0.05, 0.35)
    return Weights(
        (Estimate.around(size, below, above),), (_ZERO,), _ZERO, _ZERO, _ZERO, False, 0,
        f"{parameters} parameters x {bits:g} bits; real files keep some tensors wider", "arithmetic",
    )  # fmt: skip


def _assembled(
    dense: Mapping[int, Estimate], routed: Mapping[int, Estimate], count: int, embedding: Estimate, head: Estimate,
    draft: Estimate, tied: bool, biggest: int, rule: str, source: str,
) -> Weights:  # fmt: skip
    experts = tuple(routed.get(i, _ZERO) for i in range(count))
    layers = tuple(dense.get(i, _ZERO) + experts[i] for i in range(count))
    return Weights(layers, experts, embedding, head, draft, tied, biggest, rule, source)

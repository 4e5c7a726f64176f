"""The ceiling of plain decoding: memory bandwidth over the bytes that one token reads."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from osport.data import load
from osport.errors import UsageError
from osport.vram.architecture import Architecture
from osport.vram.devices import Device
from osport.vram.estimate import gib
from osport.vram.weights import Weights

__all__ = ["DecodeCeiling", "bytes_per_token", "decode_ceiling"]


@frozen
class DecodeCeiling:
    """Tokens a second for one sequence. ``tokens_per_second`` is a bound that no plain decoder passes;
    ``expected`` applies the efficiency range that was measured. Speculative decoding may beat the bound."""

    tokens_per_second: float
    expected: tuple[float, float]
    bytes_per_token: int
    rule: str
    source: str

    def __str__(self) -> str:
        low, high = self.expected
        return (
            f"at most {self.tokens_per_second:.1f} tokens/s ({gib(self.bytes_per_token)} read a token); "
            f"{low:.0f} to {high:.0f} seen in practice"
        )


def bytes_per_token(architecture: Architecture, weights: Weights, cache: int) -> int:
    """Weights that one token reads (routed experts in their share, no untied embedding), and the cache."""
    routed = weights.routed.likely
    active = routed * architecture.experts_used // architecture.experts if architecture.is_moe else routed
    dense = sum(layer.likely for layer in weights.layers) - routed
    head = weights.head.likely + (weights.embedding.likely if weights.tied else 0)
    return dense + active + head + cache


def decode_ceiling(read: int, on_host: int, devices: Sequence[Device], host_bandwidth: float | None) -> DecodeCeiling:
    """``read`` bytes lie on the devices, ``on_host`` bytes of experts in the host's memory.

    Raises UsageError when a bandwidth is not known.
    """
    missing = next((device.name for device in devices if device.bandwidth is None), None)
    if missing is not None:
        raise UsageError(f"the bandwidth of {missing} is not known; give Device(..., bandwidth=bytes per second)")
    if on_host and host_bandwidth is None:
        raise UsageError("experts lie in host memory; give host_bandwidth in bytes per second")
    speed = sum(device.bandwidth or 0.0 for device in devices) / len(devices)
    seconds = read / speed + (on_host / host_bandwidth if on_host and host_bandwidth else 0.0)
    table = load("devices.toml")["efficiency"]
    bound = 1 / seconds
    low, high = table["range"]
    return DecodeCeiling(
        bound, (bound * low, bound * high), read + on_host, "bandwidth / bytes read per token", table["source"]
    )

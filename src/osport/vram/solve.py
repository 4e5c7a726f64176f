"""Solvers: the largest context, the most sequences, the least loss that still fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from osport.errors import UsageError
from osport.vram.devices import Device
from osport.vram.fit import Verdict

if TYPE_CHECKING:
    from osport.vram.budget import VramBudget

__all__ = ["LADDERS", "best_quantization", "largest_context", "most_sequences"]

LADDERS = {
    "llama.cpp": ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K", "IQ2_XXS"),
    "vllm": ("bf16", "fp8", "awq"),
}
_MOST_SEQUENCES = 4096


def largest_context(budget: VramBudget, devices: Sequence[Device], risk: bool) -> int:
    """Bisect over steps of 256 tokens; need grows with the context, so the answer is exact to one step."""
    limit = budget.architecture.context
    if limit is None:
        raise UsageError("how long a context the model was trained for is not known; no largest one can be given")
    step = 256 if limit >= 256 else 1
    steps = _largest(limit // step, lambda n: _ok(budget.with_settings(context=n * step), devices, risk))
    return steps * step


def most_sequences(budget: VramBudget, devices: Sequence[Device], risk: bool) -> int:
    """Bisect over the number of sequences, each keeping the present context."""
    context = budget.context
    if context is None:
        raise UsageError("the context is not known; pass one")
    shared = not budget.settings.runtime["per_sequence"]

    def ok(count: int) -> bool:
        whole = context * count if shared else context
        return _ok(budget.with_settings(context=whole, sequences=count), devices, risk)

    return _largest(_MOST_SEQUENCES, ok)


def best_quantization(budget: VramBudget, devices: Sequence[Device], risk: bool) -> str | None:
    """The first rung of the ladder that fits."""
    if not budget.architecture.tensors:
        raise UsageError("the tensors are not known; other quantisations cannot be computed")
    ladder = LADDERS["vllm" if budget.settings.runtime.is_vllm else "llama.cpp"]
    return next((name for name in ladder if _ok(budget.with_quantization(name), devices, risk)), None)


def _largest(most: int, ok: Callable[[int], bool]) -> int:
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if ok(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _ok(budget: VramBudget, devices: Sequence[Device], risk: bool) -> bool:
    verdict = budget.fits(list(devices)).verdict
    if verdict is Verdict.UNKNOWN:
        raise UsageError(f"cannot be computed: {'; '.join(budget.missing)}")
    return verdict is Verdict.FITS or (risk and verdict is Verdict.FITS_WITH_RISK)

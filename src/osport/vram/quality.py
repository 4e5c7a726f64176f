"""What a quantisation costs, from figures that were measured."""

from __future__ import annotations

from enum import StrEnum
from math import log
from typing import Any

from attrs import frozen

from osport.data import load

__all__ = ["Loss", "Quality", "QualityFigure", "quality_of"]

# The figures that divide negligible from visible from collapse, by metric.
_LIMITS = {
    "kld": (0.05, 0.3),
    "ppl": (0.2, 2.0),
    "ppl_percent": (2.5, 15.0),
    "mmlu": (1.0, 8.0),
    "aime": (2.0, 15.0),
    "accuracy": (1.0, 8.0),
}
_ORDER = ("negligible", "visible", "collapses")
_SMALL = 3e9
# Bits a weight below which small models lose more; their 4-bit files are wide because of the embedding.
_NARROW = 5.5


class Loss(StrEnum):
    """How much is lost against 16 bits."""

    NEGLIGIBLE = "negligible"
    VISIBLE = "visible"
    COLLAPSES = "collapses"
    UNKNOWN = "unknown"


@frozen
class QualityFigure:
    """One measurement. ``metric``: kld, ppl (increase), ppl_percent, mmlu and aime (points lost), accuracy (% lost)."""

    format: str
    model: str
    billions: float
    metric: str
    value: float
    source: str

    def __str__(self) -> str:
        return f"{self.format} on {self.model}: {self.metric} {self.value:g} ({self.source})"


@frozen
class Quality:
    """The verdict for short answers and for reasoning or long outputs, with the figures behind it."""

    loss: Loss
    reasoning: Loss
    figures: tuple[QualityFigure, ...]
    note: str

    def __str__(self) -> str:
        text = f"{self.loss} (reasoning and long outputs: {self.reasoning})"
        return f"{text}; {self.figures[0]}" if self.figures else f"{text}; {self.note}"


def quality_of(quantization: str | None, bits: float | None, parameters: int) -> Quality:
    """Look the format up, nearest model size first; without figures, judge by bits and say so."""
    if quantization is None and bits is None:
        return Quality(Loss.UNKNOWN, Loss.UNKNOWN, (), "the quantisation is not known")
    name = (quantization or "").removeprefix("UD-").upper().replace("_XL", "_M")
    rows = [row for row in load("quantization.toml")["loss"] if str(row["format"]).upper() == name]
    rows.sort(key=lambda row: abs(_log_ratio(row["billions"] * 1e9, parameters)))
    figures = tuple(QualityFigure(**row) for row in rows)
    width = bits if bits is not None else 16.0
    near = [row for row in rows if abs(_log_ratio(row["billions"] * 1e9, parameters)) < 1.2] or rows[:2]
    if near:
        level = max(_level(row) for row in near)
        note = f"measured on {near[0]['model']}"
    else:
        level = 0 if width >= 5 else 1 if width >= 3.2 else 2
        note = f"no measurement of {quantization or 'this format'}; judged by {width:.2f} bits a weight"
    small = 0 < parameters < _SMALL and width < _NARROW
    if small and level < 2:
        level += 1
        note += "; small models lose more"
    reasoning = min(2, level + 1) if width < 4 or small else level
    return Quality(Loss(_ORDER[level]), Loss(_ORDER[reasoning]), figures, note)


def _level(row: dict[str, Any]) -> int:
    low, high = _LIMITS[row["metric"]]
    value = row["value"]
    return 0 if value < low else 1 if value < high else 2


def _log_ratio(one: float, other: float) -> float:
    return log(one / other) if one > 0 and other > 0 else 9.0

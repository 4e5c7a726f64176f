"""Models by quantisations on one device: what fits, with how long a context, at what loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from attrs import frozen

from osport.errors import MissingDependency, UsageError
from osport.vram.devices import Device
from osport.vram.estimate import GIB, Estimate
from osport.vram.fit import Verdict
from osport.vram.quality import Quality
from osport.vram.settings import SettingsKeywords

if TYPE_CHECKING:
    from osport.vram.budget import VramBudget

__all__ = ["DecisionCell", "DecisionMap", "decide"]

_DEFAULT = {
    "llama.cpp": ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"),
    "vllm": ("bf16", "fp8", "awq"),
}
_COLOURS = {
    Verdict.FITS: "#4c9f70",
    Verdict.FITS_WITH_RISK: "#e0b252",
Verdict.DOES_NOT_FIT: "#c8553d", Verdict.UNKNOWN: "#9a9a9a",
}  # fmt: skip


@frozen
class DecisionCell:
    """One model at one quantisation."""

    model: str
    quantization: str
    bits: float
    verdict: Verdict
    total: Estimate | None
    largest_context: int
    quality: Quality


@frozen
class DecisionMap:
    """All cells, model by model; ``plot`` draws them, ``str`` prints them."""

    device: str
    models: tuple[str, ...]
    quantizations: tuple[str, ...]
    cells: tuple[DecisionCell, ...]

    def cell(self, model: str, quantization: str) -> DecisionCell:
        """One cell. Raises UsageError when it is not in the map."""
        for cell in self.cells:
            if (cell.model, cell.quantization) == (model, quantization):
                return cell
        raise UsageError(f"{model} at {quantization} is not in this map")

    def __str__(self) -> str:
        lines = [f"on {self.device}; GiB at the asked context / largest context / loss"]
        for cell in self.cells:
            size = "?" if cell.total is None else f"{cell.total.likely / GIB:.1f} GiB"
            lines.append(
                f"{cell.model:24} {cell.quantization:8} {cell.bits:5.2f} bits  {size:>10}  {cell.verdict:14} "
                f"{cell.largest_context:>7} tokens  {cell.quality.loss}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.quantizations)
        rows = []
        for model in self.models:
            row = "".join(self._html_cell(self.cell(model, name)) for name in self.quantizations)
            rows.append(f"<tr><th>{escape(model)}</th>{row}</tr>")
        return f"<table><caption>{escape(self.device)}</caption><tr><th></th>{head}</tr>{''.join(rows)}</table>"

    def _html_cell(self, cell: DecisionCell) -> str:
        size = "?" if cell.total is None else f"{cell.total.likely / GIB:.1f} GiB"
        text = f"{size}<br>{cell.largest_context} tokens<br>{escape(str(cell.quality.loss))}"
        return f'<td style="background:{_COLOURS[cell.verdict]};color:#fff" title="{cell.verdict}">{text}</td>'

    def plot(self) -> Any:
        """A heat map as a matplotlib figure. Raises MissingDependency without matplotlib."""
        try:
            from matplotlib.colors import ListedColormap
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingDependency("matplotlib", "port") from error
        order = list(_COLOURS)
        table = [[order.index(self.cell(m, q).verdict) for q in self.quantizations] for m in self.models]
        figure = Figure(figsize=(1.6 + 1.3 * len(self.quantizations), 1.2 + 0.8 * len(self.models)))
        axes = figure.subplots()
        axes.imshow(
            table, cmap=ListedColormap([_COLOURS[v] for v in order]), vmin=0, vmax=len(order) - 1, aspect="auto"
        )
        axes.set_xticks(range(len(self.quantizations)), self.quantizations)
        axes.set_yticks(range(len(self.models)), self.models)
        axes.set_title(self.device)
        for y, model in enumerate(self.models):
            for x, name in enumerate(self.quantizations):
                cell = self.cell(model, name)
                size = "?" if cell.total is None else f"{cell.total.likely / GIB:.1f} GiB"
                axes.text(x, y, f"{size}\n{cell.quality.loss}", ha="center", va="center", color="white", fontsize=8)
        figure.tight_layout()
        return figure


def decide(
    make: Callable[..., VramBudget],
    models: Sequence[str],
    devices: Sequence[Device],
    quantizations: Sequence[str] | None,
    settings: SettingsKeywords,
) -> DecisionMap:
    """Fill the map. Raises UsageError for an unknown model or quantisation."""
    if not models:
        raise UsageError("a decision map needs at least one model")
    family = "vllm" if str(settings.get("runtime", "llama.cpp")).startswith("vllm") else "llama.cpp"
    names = tuple(quantizations or _DEFAULT[family])
    cells = []
    for model in models:
        for name in names:
            budget = make(model, quantization=name, **settings)
            fit = budget.fits(list(devices))
            cells.append(
                DecisionCell(model, name, budget.bits_per_weight or 0.0, fit.verdict, budget.total,
                             budget.largest_context(list(devices)), budget.quality)
            )  # fmt: skip
    label = devices[0].name if len(devices) == 1 else f"{len(devices)} x {devices[0].name}"
    return DecisionMap(label, tuple(models), names, tuple(cells))

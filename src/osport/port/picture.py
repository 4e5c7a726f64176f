"""The picture of the report: accuracy against latency, both with their intervals, as SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from osport.evals.optional import optional
from osport.port.summary import ArmSummary

__all__ = ["accuracy_against_latency"]

CANDIDATE, INCUMBENT, OTHER, GUIDE = "#0b63ce", "#b4410e", "#5b6573", "#9aa3af"


def accuracy_against_latency(
    arms: Sequence[ArmSummary],
    *,
    candidate: str,
    incumbent: str | None,
    best_constant: float | None,
    p95_limit: float | None,
) -> tuple[str, str]:
    """The SVG, and a note on what could not be drawn (empty when all is there).

    Marks lie at p95 latency (logarithmic) and accuracy; bars are 95 % intervals, an arrow an end
    that is not known or infinite. An arm whose p95 is unknown or infinite is named in the note.
    """
    matplotlib = optional("matplotlib")
    figure_class = optional("matplotlib.figure").Figure
    style = {"svg.fonttype": "none", "svg.hashsalt": "osport", "font.family": "sans-serif", "font.size": 11}
    drawn = [arm for arm in arms if arm.latency is not None and math.isfinite(arm.latency.p95.value)]
    with matplotlib.rc_context(style):
        figure = figure_class(figsize=(8.2, 4.3), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for arm in drawn:
            draw(axes, arm, CANDIDATE if arm.name == candidate else INCUMBENT if arm.name == incumbent else OTHER)
        if best_constant is not None:
            axes.axhline(100 * best_constant, color=GUIDE, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
            axes.annotate(
                "best constant answer", (1, 100 * best_constant), xycoords=("axes fraction", "data"),
                xytext=(-4, 4), textcoords="offset points", ha="right", color=OTHER, fontsize=9,
            )  # fmt: skip
        if p95_limit is not None:
            axes.axvline(p95_limit, color=GUIDE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            axes.annotate(
                "p95 limit", (p95_limit, 1), xycoords=("data", "axes fraction"),
                xytext=(4, -12), textcoords="offset points", color=OTHER, fontsize=9,
            )  # fmt: skip
        axes.set_xlabel("p95 latency of one answer, seconds (logarithmic)")
        axes.set_ylabel("accuracy, %")
        axes.set_ylim(-3, 103)
        axes.margins(x=0.18)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(color="#e6e9ee", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GUIDE)
        axes.tick_params(colors=OTHER, which="both")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    missing = [arm.name for arm in arms if arm not in drawn]
    note = f"Not drawn, because p95 is unknown or infinite: {', '.join(missing)}." if missing else ""
    return svg[svg.index("<svg") :], note


def draw(axes: object, arm: ArmSummary, colour: str) -> None:
    assert arm.latency is not None  # noqa: S101 - the caller draws only timed arms
    p95, accuracy = arm.latency.p95, 100 * arm.right / arm.items
    low = p95.low if p95.low is not None else p95.value
    known_high = p95.high is not None and math.isfinite(p95.high)
    high = p95.high if known_high and p95.high is not None else p95.value
    plot = axes  # matplotlib is untyped
    plot.errorbar(  # type: ignore[attr-defined]
        [p95.value], [accuracy],
        xerr=[[p95.value - low], [high - p95.value]],
        yerr=[[accuracy - 100 * arm.accuracy.low], [100 * arm.accuracy.high - accuracy]],
        fmt="o", color=colour, markersize=8, elinewidth=1.6, capsize=3, zorder=3,
    )  # fmt: skip
    if not known_high:
        plot.annotate(  # type: ignore[attr-defined]
            "", (p95.value, accuracy), xytext=(26, 0), textcoords="offset points",
            arrowprops={"arrowstyle": "<-", "color": colour, "linewidth": 1.6},
        )  # fmt: skip
    plot.annotate(  # type: ignore[attr-defined]
        f"{arm.name}  {accuracy:.0f} %", (p95.value, accuracy), xytext=(9, 9),
        textcoords="offset points", color=colour, fontweight="bold",
    )  # fmt: skip

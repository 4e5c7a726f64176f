"""The picture of the report: accuracy against latency, both with their intervals, as SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from osport.evals.optional import optional
from osport.port.summary import ArmSummary, Latency
from osport.port.wording import seconds

__all__ = ["accuracy_against_latency"]

CANDIDATE, INCUMBENT, OTHER, GUIDE, GRID = "#0b63ce", "#b4410e", "#5b6573", "#9aa3af", "#e6e9ee"
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "osport", "font.family": "sans-serif", "font.size": 11}
LABEL_PLACES = (
    {"xytext": (10, 8), "ha": "left", "va": "bottom"},
    {"xytext": (10, -8), "ha": "left", "va": "top"},
    {"xytext": (-10, 8), "ha": "right", "va": "bottom"},
    {"xytext": (-10, -8), "ha": "right", "va": "top"},
)


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
    colours = {candidate: CANDIDATE, incumbent: INCUMBENT}
    drawn = [(arm, arm.latency) for arm in arms if arm.latency and math.isfinite(arm.latency.p95.value)]
    with optional("matplotlib").rc_context(STYLE):
        figure = optional("matplotlib.figure").Figure(figsize=(10.6, 4.4), layout="constrained")
        axes = figure.add_subplot()
        prepare(axes)
        for arm, latency in drawn:
            mark(axes, arm, latency, colours.get(arm.name, OTHER))
        if best_constant is not None:
            axes.axhline(100 * best_constant, color=GUIDE, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
            axes.annotate(
                "best constant answer",
                (1, 100 * best_constant),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 4),
                textcoords="offset points",
                ha="right",
                color=OTHER,
                fontsize=9,
            )
        if p95_limit is not None:
            axes.axvline(p95_limit, color=GUIDE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        figure.draw_without_rendering()
        taken: list[Any] = [mark_box(axes, arm, latency) for arm, latency in drawn]
        for arm, latency in drawn:
            accuracy = 100 * arm.right / arm.items
            style: dict[str, Any] = {
                "xy": (latency.p95.value, accuracy),
                "color": colours.get(arm.name, OTHER),
                "fontweight": "bold",
            }
            taken.append(label(axes, f"{arm.name}  {accuracy:.0f} %", [style | place for place in LABEL_PLACES], taken))
        if p95_limit is not None:
            style = {
                "xycoords": ("data", "axes fraction"),
                "xytext": (4, 0),
                "color": OTHER,
                "fontsize": 9,
                "va": "center",
            }
            heights = (0.96, 0.04, 0.5, 0.3, 0.7)
            label(axes, "p95 limit", [style | {"xy": (p95_limit, height)} for height in heights], taken)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    missing = [arm.name for arm in arms if arm.name not in {drawn_arm.name for drawn_arm, _ in drawn}]
    note = f"Not drawn, because p95 is unknown or infinite: {', '.join(missing)}." if missing else ""
    return svg[svg.index("<svg") :], note


def prepare(axes: Any) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("p95 latency of one answer (logarithmic)", color=OTHER)
    axes.set_ylabel("accuracy, %", color=OTHER)
    axes.set_ylim(-4, 108)
    axes.margins(x=0.25)
    axes.xaxis.set_major_formatter(lambda value, _: seconds(value))
    axes.xaxis.set_minor_formatter(lambda _value, _: "")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GUIDE)
    axes.tick_params(colors=OTHER, which="both")


def mark(axes: Any, arm: ArmSummary, latency: Latency, colour: str) -> None:
    p95, accuracy = latency.p95, 100 * arm.right / arm.items
    low = p95.value if p95.low is None else p95.low
    high = p95.value if p95.high is None or math.isinf(p95.high) else p95.high
    axes.errorbar(
        [p95.value],
        [accuracy],
        xerr=[[p95.value - low], [high - p95.value]],
        yerr=[[accuracy - 100 * arm.accuracy.low], [100 * arm.accuracy.high - accuracy]],
        fmt="o",
        color=colour,
        markersize=8,
        elinewidth=1.6,
        capsize=3,
        zorder=3,
    )
    if p95.high is None or math.isinf(p95.high):
        arrow = {"arrowstyle": "<-", "color": colour, "linewidth": 1.6}
        axes.annotate("", (p95.value, accuracy), xytext=(28, 0), textcoords="offset points", arrowprops=arrow)


def mark_box(axes: Any, arm: ArmSummary, latency: Latency) -> Any:
    x, y = axes.transData.transform((latency.p95.value, 100 * arm.right / arm.items))
    return optional("matplotlib.transforms").Bbox.from_extents(x - 6, y - 6, x + 6, y + 6)


def label(axes: Any, words: str, places: Sequence[Mapping[str, Any]], taken: Sequence[Any]) -> Any:
    """Write the words at the first place that is inside the frame and free; returns their box."""
    frame = axes.get_window_extent()
    for place in places:
        text = axes.annotate(words, textcoords="offset points", **place)
        box = text.get_window_extent()
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
        if (inside and not any(box.overlaps(other) for other in taken)) or place is places[-1]:
            break
        text.remove()
    return box

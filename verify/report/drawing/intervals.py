"""Bounds of outputs, one below the other."""

from __future__ import annotations

from matplotlib.axes import Axes

from leaktight.verify.report.drawing.ink import ACCENT, INK
from leaktight.verify.report.figures import Intervals
from leaktight.verify.report.words import clean


def intervals(axes: Axes, figure: Intervals) -> None:
    """One bar for each output, from its lower to its upper bound."""
    for place, (_, low, high) in enumerate(figure.rows):
        axes.plot((low, high), (place, place), color=ACCENT, linewidth=5, solid_capstyle="butt", alpha=0.35)
        axes.plot((low, high), (place, place), color=ACCENT, linestyle="", marker="|", markersize=9)
    axes.set_yticks(range(len(figure.rows)), [clean(name) for name, _, _ in figure.rows], parse_math=False)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_xlabel(clean(figure.across))

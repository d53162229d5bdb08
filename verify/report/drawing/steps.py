"""Staircases of numbers over the slopes of the leak."""

from __future__ import annotations

from matplotlib.axes import Axes

from leaktight.verify.report.drawing.ink import ACCENT, INK
from leaktight.verify.report.drawing.percentages import percentages
from leaktight.verify.report.figures import Steps
from leaktight.verify.report.words import clean


def steps(axes: Axes, figure: Steps) -> None:
    """One line for each name: the first full, the second dashed."""
    looks = [(ACCENT, "-", 2.0), (INK, (0, (4, 2)), 1.2)]
    for (name, line), (colour, dash, width) in zip(figure.lines.items(), looks, strict=False):
        across = [place for span, _ in line for place in span]
        heights = [value for _, value in line for _ in range(2)]
        axes.plot(across, heights, color=colour, linestyle=dash, linewidth=width, label=name, solid_capstyle="butt")
        if colour is ACCENT:
            axes.fill_between(across, 0, heights, color=ACCENT, alpha=0.13, linewidth=0)
    if len(figure.lines) > 1:
        axes.legend(loc="lower left")
    percentages(axes) if figure.shares else axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.set_xlabel(clean(figure.across))
    axes.set_ylabel(clean(figure.upwards))

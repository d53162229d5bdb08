"""What share of inputs reaches which number."""

from __future__ import annotations

from matplotlib.axes import Axes

from leaktight.verify.report.drawing.ink import ACCENT
from leaktight.verify.report.drawing.percentages import percentages
from leaktight.verify.report.figures import Survival
from leaktight.verify.report.words import clean


def survival(axes: Axes, figure: Survival) -> None:
    """A staircase that falls from the share of inputs that have the number at all."""
    values = sorted(figure.values)
    across, heights = [0.0], [len(values) / max(1, figure.total)]
    step = max(1, len(values) // 400)
    for place in range(0, len(values), step):  # left out steps lower the staircase: it stays on the safe side
        reached = (len(values) - min(place + step, len(values))) / max(1, figure.total)
        across += [values[place], values[place]]
        heights += [heights[-1], reached]
    axes.plot(across, heights, color=ACCENT, linewidth=1.8)
    axes.fill_between(across, 0, heights, color=ACCENT, alpha=0.13, linewidth=0)
    percentages(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel(clean(figure.across))
    axes.set_ylabel("share of inputs")

"""An axis of shares."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter


def percentages(axes: Axes) -> None:
    """From 0 to 100 %, upwards."""
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

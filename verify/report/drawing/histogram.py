"""How many inputs have which number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import isqrt

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from leaktight.verify.report.drawing.ink import COLOURS, INK
from leaktight.verify.report.figures import Histogram
from leaktight.verify.report.words import clean

_HATCHES = {"proved": None, "refuted": "xxxx", "unknown": "////", "timeout": "\\\\\\\\"}


def histogram(axes: Axes, figure: Histogram) -> None:
    """Bars, with the kinds of inputs on top of each other."""
    width, edges = _bars([value for values in figure.values.values() for value in values])
    kinds = list(figure.values)
    below = [0] * (len(edges) - 1)
    for kind in kinds:
        heights = counts(figure.values[kind], edges)
        axes.bar(
            [edge for edge, count in zip(edges, heights, strict=False) if count],
            [count for count in heights if count],
            0.92 * width,
            [start for start, count in zip(below, heights, strict=True) if count],
            align="edge",
            label=kind,
            facecolor=COLOURS[kind] if kind == "proved" else "none",
            edgecolor=COLOURS[kind],
            hatch=_HATCHES[kind],
            linewidth=0.6,
        )
        below = [start + count for start, count in zip(below, heights, strict=True)]
    axes.axvline(0, color=INK, linewidth=0.9)
    if len(kinds) > 1:
        axes.legend()
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel(clean(figure.across))
    axes.set_ylabel("inputs")


def _bars(values: Sequence[float]) -> tuple[float, list[float]]:
    """How wide the bars are, and their edges. 0 is one: no bar mixes the two signs."""
    low, high = min([0.0, *values]), max([0.0, *values])
    width = (high - low) / min(48, 8 + isqrt(len(values))) or 1.0
    first, last = int(low // width) if low < 0 else 0, int(high // width) + 1
    edges = [width * place for place in range(first, last + 1)]
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)  # rounding loses nobody
    return width, edges


def counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many of the values lie between each edge and the next; the last interval has both its ends."""
    found = [0] * (len(edges) - 1)
    for value in values:
        found[min(bisect_right(edges, value), len(found)) - 1] += 1
    return found

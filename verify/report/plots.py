"""Figures as SVG that stands inside a page: text is text, colours are the page's, and equal figures are equal text.

Identifiers come from contents (``svg.hashsalt``) and a prefix for each picture; nothing refers outside.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from leaktight.verify.report.drawing.curve import curve
from leaktight.verify.report.drawing.histogram import histogram
from leaktight.verify.report.drawing.ink import FAINT, INK
from leaktight.verify.report.drawing.intervals import intervals
from leaktight.verify.report.drawing.steps import steps
from leaktight.verify.report.drawing.survival import survival
from leaktight.verify.report.drawing.svg import embedded
from leaktight.verify.report.figures import Curve, Figure, Histogram, Intervals, Steps, Survival

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "leaktight",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.6,
    "path.simplify": False,
    "axes.unicode_minus": False,
    "legend.frameon": False,
}
_LIMIT = 1e100  # beyond, places of ticks overflow
_WIDE, _SMALL = (7.2, 3.4), (2.3, 1.5)
_DRAWINGS: dict[type, Callable[[Axes, Any], None]] = {
    Curve: curve,
    Steps: steps,
    Histogram: histogram,
    Intervals: intervals,
    Survival: survival,
}


def draw(figure: Figure, *, name: str, title: str, description: str) -> str:
    """The figure as one ``<svg>`` element with a title and a description; `name` starts all its identifiers."""
    with _canvas(_SMALL if isinstance(figure, Curve) and figure.small else _size(figure)) as (canvas, axes):
        if _largest(astuple(figure)) > _LIMIT:
            axes.set_axis_off()
            axes.text(0.5, 0.5, f"not drawn: it has numbers beyond {_LIMIT:g}", ha="center")
        else:
            _DRAWINGS[type(figure)](axes, figure)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return embedded(stream.getvalue(), name, title, description)


def _largest(value: object) -> float:
    """The largest absolute value of the numbers anywhere inside."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0.0)
    return abs(value) if isinstance(value, (int, float)) else 0.0


def _size(figure: Figure) -> tuple[float, float]:
    return (_WIDE[0], 0.9 + 0.26 * len(figure.rows)) if isinstance(figure, Intervals) else _WIDE


@contextmanager
def _canvas(size: tuple[float, float]) -> Iterator[tuple[Canvas, Axes]]:
    with matplotlib.rc_context(), matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasSVG(canvas)
        yield canvas, canvas.add_subplot()

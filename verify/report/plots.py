"""Figures as SVG that stands inside a page: text is text, colours are the page's, and equal figures are equal text.

matplotlib draws with stand-in colours, which become the page's CSS variables: so the same picture is right in light and
dark. Identifiers come from contents (``svg.hashsalt``) and a prefix for each picture; nothing refers outside.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from html import escape
from math import isqrt
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, PercentFormatter

from leaktight.verify.report.figures import Curve, Figure, Histogram, Intervals, Span, Steps, Survival
from leaktight.verify.report.words import clean

# stand-ins, replaced by the variables of the page's style
_INK, _FAINT, _ACCENT = "#010203", "#010204", "#010205"
_COLOURS = {"proved": "#010206", "refuted": "#010207", "unknown": "#010208", "timeout": "#010208", "open": "#010208"}
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--faint)",
    _ACCENT: "var(--accent)",
    "#010206": "var(--proved)",
    "#010207": "var(--refuted)",
    "#010208": "var(--open)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "leaktight",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _FAINT,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.6,
    "path.simplify": False,
    "axes.unicode_minus": False,
    "legend.frameon": False,
}
_LIMIT = 1e100  # beyond, places of ticks overflow
_WIDE, _SMALL = (7.2, 3.4), (2.3, 1.5)


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
    return _embedded(stream.getvalue(), name, title, description)


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


def _embedded(svg: str, name: str, title: str, description: str) -> str:
    """What matplotlib wrote, without its prologue, its size in points and identifiers that nothing refers to."""
    body = svg[svg.index("<svg") :]
    opening, rest = body.split(">", 1)
    found = re.search(r'viewBox="([^"]+)"', opening)
    box = found.group(1) if found else "0 0 1 1"
    rest = rest.replace("xlink:href", "href")
    wanted = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', rest))
    rest = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in wanted else "", rest)
    rest = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", rest)
    rest = re.sub("#01020[3-8]", lambda m: _VARIABLES[m[0]], rest)
    rest = re.sub(r"<style.*?</style>", "", rest, flags=re.DOTALL)
    rest = re.sub(r' (?:d|x|y|points|transform)="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), rest)
    rest = re.sub(r' transform="rotate\(-0 [^"]*"', "", rest)
    rest = re.sub(r"<!--.*?-->\n?|^\s+", "", rest, flags=re.DOTALL | re.MULTILINE)
    rest = re.sub(r"\n+", "\n", rest)
    return (
        f'<svg viewBox="{box}" role="img" aria-labelledby="{name}-title" aria-describedby="{name}-description">'
        f'<title id="{name}-title">{escape(clean(title))}</title>'
        f'<desc id="{name}-description">{escape(clean(description))}</desc>{rest}'
    ).strip()


def _curve(axes: Axes, figure: Curve) -> None:
    lows = [value for _, ends in figure.chords for value in ends]
    highs = [value for _, value in figure.attained]
    low, high = min([0.0, *lows, *highs]), max([0.0, *lows, *highs])
    room = 0.1 * (high - low) or 1.0
    floor = low - 1.6 * room
    width = 1.0 if figure.small else 1.8
    for slopes, values in _joined(figure.chords):
        axes.fill_between(slopes, floor, values, color=_ACCENT, alpha=0.13, linewidth=0)
        axes.plot(slopes, values, color=_ACCENT, linewidth=width, solid_capstyle="round")
    if figure.attained:
        size = 2.0 if figure.small else 4.5
        axes.plot(
            *zip(*figure.attained, strict=True),
            linestyle="",
            marker="o",
            markersize=size,
            markerfacecolor="none",
            markeredgecolor=_INK,
            markeredgewidth=0.6 if figure.small else 1.0,
            clip_on=False,
            zorder=3,
        )
    axes.axhline(0, color=_INK, linewidth=0.6 if figure.small else 0.9)
    axes.set_ylim(floor, high + room)
    _strip(axes, figure, floor, 0.55 * room)
    start, end = figure.slopes
    axes.set_xlim((start, end) if end > start else (start - 0.5, end + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(3 if figure.small else 7))
    axes.yaxis.set_major_locator(MaxNLocator(3 if figure.small else 6))
    if figure.small:
        axes.tick_params(labelsize=7, length=2)
        return
    if figure.own is not None:
        for slope in sorted(set(figure.own)):
            axes.axvline(slope, color=_INK, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.annotate(
            "own slope" if figure.own[0] == figure.own[1] else "own slopes",
            (figure.own[1], 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            fontsize=8,
        )
    _name_lines(axes, figure)
    axes.set_xlabel("slope of the leak")
    axes.set_ylabel("margin")


def _joined(chords: Sequence[tuple[Span, Span]]) -> list[tuple[list[float], list[float]]]:
    """Chords as few lines: where one begins at the slope at which another ends, they are one line."""
    lines: list[tuple[list[float], list[float]]] = []
    for slopes, values in sorted(chords):
        if not lines or lines[-1][0][-1] != slopes[0]:
            lines.append(([], []))
        lines[-1][0].extend(slopes)
        lines[-1][1].extend(values)
    return lines


def _name_lines(axes: Axes, figure: Curve) -> None:
    """Names beside what they name: no legend to look up."""
    offset: dict[str, Any] = {"xycoords": "data", "textcoords": "offset points", "fontsize": 8}
    if figure.chords:
        (start, end), (first, last) = figure.chords[len(figure.chords) // 4]
        place = ((start + end) / 2, (first + last) / 2)
        axes.annotate("proven", place, xytext=(-6, -9), ha="right", va="top", color=_ACCENT, **offset)
    if figure.attained:
        place = figure.attained[(2 * len(figure.attained)) // 3]
        axes.annotate("attained by attack", place, xytext=(0, 10), ha="center", va="bottom", **offset)


def _strip(axes: Axes, figure: Curve, floor: float, height: float) -> None:
    """Along the bottom, which slopes are proved (full), refuted (crossed) and open (empty)."""
    for kind, spans, hatch in (("proved", figure.proved, ""), ("refuted", figure.refuted, "xxxx")):
        for start, end in spans:
            axes.fill_between(
                (start, end),
                floor,
                floor + height,
                facecolor=_COLOURS[kind] if not hatch else "none",
                edgecolor=_COLOURS[kind],
                hatch=hatch or None,
                linewidth=0 if not hatch else 0.8,
            )
    start, end = figure.slopes
    axes.plot((start, end), (floor + height,) * 2, color=_FAINT, linewidth=0.5)


def _steps(axes: Axes, figure: Steps) -> None:
    looks = [(_ACCENT, "-", 2.0), (_INK, (0, (4, 2)), 1.2)]
    for (name, steps), (colour, dash, width) in zip(figure.lines.items(), looks, strict=False):
        across = [place for span, _ in steps for place in span]
        heights = [value for _, value in steps for _ in range(2)]
        axes.plot(across, heights, color=colour, linestyle=dash, linewidth=width, label=name, solid_capstyle="butt")
        if colour is _ACCENT:
            axes.fill_between(across, 0, heights, color=_ACCENT, alpha=0.13, linewidth=0)
    if len(figure.lines) > 1:
        axes.legend(loc="lower left")
    _percentages(axes) if figure.shares else axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.set_xlabel(clean(figure.across))
    axes.set_ylabel(clean(figure.upwards))


def _percentages(axes: Axes) -> None:
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _histogram(axes: Axes, figure: Histogram) -> None:
    everything = [value for values in figure.values.values() for value in values]
    low, high = min([0.0, *everything]), max([0.0, *everything])
    width = (high - low) / min(48, 8 + isqrt(len(everything))) or 1.0
    first, last = int(low // width) if low < 0 else 0, int(high // width) + 1
    edges = [width * place for place in range(first, last + 1)]  # 0 is an edge: no bar mixes the two signs
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)  # rounding loses nobody
    hatches = {"proved": None, "refuted": "xxxx", "unknown": "////", "timeout": "\\\\\\\\"}
    kinds = list(figure.values)
    below = [0] * (len(edges) - 1)
    for kind in kinds:
        counts = _counts(figure.values[kind], edges)
        axes.bar(
            [edge for edge, count in zip(edges, counts, strict=False) if count],
            [count for count in counts if count],
            0.92 * width,
            [start for start, count in zip(below, counts, strict=True) if count],
            align="edge",
            label=kind,
            facecolor=_COLOURS[kind] if kind == "proved" else "none",
            edgecolor=_COLOURS[kind],
            hatch=hatches[kind],
            linewidth=0.6,
        )
        below = [start + count for start, count in zip(below, counts, strict=True)]
    axes.axvline(0, color=_INK, linewidth=0.9)
    if len(kinds) > 1:
        axes.legend()
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel(clean(figure.across))
    axes.set_ylabel("inputs")


def _counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many of the values lie between each edge and the next; the last interval has both its ends."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(bisect_right(edges, value), len(counts)) - 1] += 1
    return counts


def _intervals(axes: Axes, figure: Intervals) -> None:
    for place, (_, low, high) in enumerate(figure.rows):
        axes.plot((low, high), (place, place), color=_ACCENT, linewidth=5, solid_capstyle="butt", alpha=0.35)
        axes.plot((low, high), (place, place), color=_ACCENT, linestyle="", marker="|", markersize=9)
    axes.set_yticks(range(len(figure.rows)), [clean(name) for name, _, _ in figure.rows], parse_math=False)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=_INK, linewidth=0.9)
    axes.set_xlabel(clean(figure.across))


def _survival(axes: Axes, figure: Survival) -> None:
    values = sorted(figure.values)
    across, heights = [0.0], [len(values) / max(1, figure.total)]
    step = max(1, len(values) // 400)
    for place in range(0, len(values), step):  # left out steps lower the staircase: it stays on the safe side
        reached = (len(values) - min(place + step, len(values))) / max(1, figure.total)
        across += [values[place], values[place]]
        heights += [heights[-1], reached]
    axes.plot(across, heights, color=_ACCENT, linewidth=1.8)
    axes.fill_between(across, 0, heights, color=_ACCENT, alpha=0.13, linewidth=0)
    _percentages(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel(clean(figure.across))
    axes.set_ylabel("share of inputs")


_DRAWINGS: dict[type, Callable[[Axes, Any], None]] = {
    Curve: _curve,
    Steps: _steps,
    Histogram: _histogram,
    Intervals: _intervals,
    Survival: _survival,
}

"""The curve of a margin over the slopes of the leak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from leaktight.verify.report.drawing.ink import ACCENT, COLOURS, FAINT, INK
from leaktight.verify.report.figures import Curve, Span


def curve(axes: Axes, figure: Curve) -> None:
    """What is proved at each slope, what an attack attains, and along the bottom which slopes are decided."""
    lows = [value for _, ends in figure.chords for value in ends]
    highs = [value for _, value in figure.attained]
    low, high = min([0.0, *lows, *highs]), max([0.0, *lows, *highs])
    room = 0.1 * (high - low) or 1.0
    floor = low - 1.6 * room
    width = 1.0 if figure.small else 1.8
    for slopes, values in _joined(figure.chords):
        axes.fill_between(slopes, floor, values, color=ACCENT, alpha=0.13, linewidth=0)
        axes.plot(slopes, values, color=ACCENT, linewidth=width, solid_capstyle="round")
    if figure.attained:
        _circles(axes, figure)
    axes.axhline(0, color=INK, linewidth=0.6 if figure.small else 0.9)
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
        _name_own(axes, figure.own)
    _name_lines(axes, figure)
    axes.set_xlabel("slope of the leak")
    axes.set_ylabel("margin")


def _circles(axes: Axes, figure: Curve) -> None:
    axes.plot(
        *zip(*figure.attained, strict=True),
        linestyle="",
        marker="o",
        markersize=2.0 if figure.small else 4.5,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=0.6 if figure.small else 1.0,
        clip_on=False,
        zorder=3,
    )


def _name_own(axes: Axes, own: Span) -> None:
    for slope in sorted(set(own)):
        axes.axvline(slope, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.annotate(
        "own slope" if own[0] == own[1] else "own slopes",
        (own[1], 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -2),
        textcoords="offset points",
        va="top",
        fontsize=8,
    )


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
    """Names beside what they name, on the side from which the line leads away: no legend to look up."""
    offset: dict[str, Any] = {"xycoords": "data", "textcoords": "offset points", "fontsize": 8}
    values = [value for _, ends in figure.chords for value in ends] or [value for _, value in figure.attained]
    below, above = ("left", "right") if values and values[-1] > values[0] else ("right", "left")
    aside = {"left": 6, "right": -6}
    if figure.chords:
        (start, end), (first, last) = figure.chords[len(figure.chords) // 4]
        place = ((start + end) / 2, (first + last) / 2)
        axes.annotate("proven", place, xytext=(aside[below], -9), ha=below, va="top", color=ACCENT, **offset)
    if figure.attained:
        place = figure.attained[(2 * len(figure.attained)) // 3]
        axes.annotate("attained by attack", place, xytext=(aside[above], 6), ha=above, va="bottom", **offset)


def _strip(axes: Axes, figure: Curve, floor: float, height: float) -> None:
    """Along the bottom, which slopes are proved (full), refuted (crossed) and open (empty)."""
    for kind, spans, hatch in (("proved", figure.proved, ""), ("refuted", figure.refuted, "xxxx")):
        for start, end in spans:
            axes.fill_between(
                (start, end),
                floor,
                floor + height,
                facecolor=COLOURS[kind] if not hatch else "none",
                edgecolor=COLOURS[kind],
                hatch=hatch or None,
                linewidth=0 if not hatch else 0.8,
            )
    start, end = figure.slopes
    axes.plot((start, end), (floor + height,) * 2, color=FAINT, linewidth=0.5)

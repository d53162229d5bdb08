"""Plain text for people: one drawing for each kind of document."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

from rich.console import Console, RenderableType

from leaktight.verify.report import schemas
from leaktight.verify.report.plain.answers import bounds, certification, verdict
from leaktight.verify.report.plain.inspection import inspection
from leaktight.verify.report.plain.installation import demo, doctor, init, operators
from leaktight.verify.report.plain.outlined import outlined
from leaktight.verify.report.schemas import Document

_DRAWINGS: Mapping[str, Callable[[Document], RenderableType]] = {
    schemas.VERDICT: verdict,
    schemas.CERTIFICATION: certification,
    schemas.BOUNDS: bounds,
    schemas.LEAK: outlined,
    schemas.LIPSCHITZ: outlined,
    schemas.COMPARISON: outlined,
    schemas.BUNDLE: outlined,
    schemas.RUN: outlined,
    schemas.HISTORY: outlined,
    "leaktight.inspection/1": inspection,
    "leaktight.operators/1": operators,
    "leaktight.doctor/1": doctor,
    "leaktight.init/1": init,
    "leaktight.demo/1": demo,
}


def render(document: Document, *, width: int = 100, colour: bool = False) -> str:
    """The document as text of at most `width` columns, with terminal colours if asked for.

    Raises KeyError: no kind of document has its ``schema``.
    """
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    console.print(_DRAWINGS[document["schema"]](document), crop=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"

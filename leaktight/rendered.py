"""A command's document as the text that it is written in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from leaktight import provenance
from leaktight.arguments import Format, ReportFormat


def rendered(document: Mapping[str, Any], style: Format | ReportFormat, *, to_terminal: bool) -> str:
    """The document in the given format; in a `Format` it is signed with what made it."""
    if isinstance(style, Format):
        document = provenance.signed(document)
    if style is Format.JSON:
        from leaktight.verify.report import json

        return json.render(document)
    if style not in (Format.TEXT, ReportFormat.TEXT):
        from leaktight.verify.report.render import render

        return render(document, style.value)
    from shutil import get_terminal_size

    from leaktight.verify.report import text

    colour = to_terminal and not os.environ.get("NO_COLOR")
    return text.render(document, width=get_terminal_size().columns if to_terminal else 100, colour=colour)

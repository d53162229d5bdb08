"""HTML: one page that holds everything it needs, and fetches nothing.

Its content security policy forbids every request and every script but the page's own, which is named by its hash. All
text goes through Jinja2's autoescaping; only figures and the page's own style and script are inserted as they are.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from leaktight.verify.report import outline, plots
from leaktight.verify.report.pages import pages
from leaktight.verify.report.schemas import Document
from leaktight.version import __version__


def render(document: Document) -> str:
    """The document as one page; equal documents give equal pages."""
    found = pages(document)
    script, style = _asset("page.js"), _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    names = (f"figure-{number}" for number in range(1, 1 << 30))
    page = _environment().get_template("page.html")
    return page.render(
        pages=found,
        title=found[0].headline if len(found) == 1 else f"{len(found)} results",
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'",
        script=Markup(script),
        style=Markup(style),
        draw=lambda picture: _drawn(picture, next(names)),
        version=__version__,
    )


def _drawn(picture: outline.Picture, name: str) -> Markup:
    svg = plots.draw(picture.figure, name=name, title=picture.title, description=picture.description)
    return Markup(svg)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("leaktight.verify.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["kind"] = lambda thing: type(thing).__name__
    environment.filters["shown"] = outline.shown
    environment.filters["rows"] = _rows
    return environment


def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _rows(table: outline.Table) -> Markup:
    """The body of a table, one line a row. Written here and not in the template: there may be ten thousand."""
    wordy = table.wordy
    return Markup("\n").join(
        Markup("<tr>") + Markup("").join(_cell(cell, words) for cell, words in zip(row, wordy, strict=True))
        for row in table.rows
    )


def _cell(cell: outline.Cell, wordy: bool) -> Markup:
    text = outline.shown(cell)
    if isinstance(cell, outline.Verdict):
        return Markup('<td class="{0}">{0}').format(text)
    if isinstance(cell, outline.Code):
        return Markup('<td class="code">{}').format(text)
    return Markup('<td class="w">{}').format(text) if wordy else Markup("<td>{}").format(text)

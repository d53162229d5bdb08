"""A picture as it stands inside a page."""

from __future__ import annotations

import re
from html import escape

from leaktight.verify.report.drawing.ink import VARIABLES
from leaktight.verify.report.words import clean


def embedded(svg: str, name: str, title: str, description: str) -> str:
    """What matplotlib wrote, without its prologue, its size in points and identifiers that nothing refers to."""
    body = svg[svg.index("<svg") :]
    opening, rest = body.split(">", 1)
    found = re.search(r'viewBox="([^"]+)"', opening)
    box = found.group(1) if found else "0 0 1 1"
    rest = rest.replace("xlink:href", "href")
    wanted = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', rest))
    rest = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in wanted else "", rest)
    rest = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", rest)
    rest = re.sub("#01020[3-8]", lambda m: VARIABLES[m[0]], rest)
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

"""Colours while a figure is drawn: stand-ins, which `svg.embedded` replaces by the variables of the page's style."""

from __future__ import annotations

INK, FAINT, ACCENT = "#010203", "#010204", "#010205"
COLOURS = {"proved": "#010206", "refuted": "#010207", "unknown": "#010208", "timeout": "#010208", "open": "#010208"}
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    ACCENT: "var(--accent)",
    "#010206": "var(--proved)",
    "#010207": "var(--refuted)",
    "#010208": "var(--open)",
}

"""Reports: what a document says is on the page, and nothing that stands in it can do anything there."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import documents
import pytest
from matplotlib.figure import Figure as Canvas

import leaktight
from leaktight.verify.digits import rounded_down, rounded_up, short
from leaktight.verify.report import compare, outline, plots, render
from leaktight.verify.report.drawing.curve import curve
from leaktight.verify.report.figures import Curve, Histogram, Intervals
from leaktight.verify.report.pages import leak_curve, pages
from leaktight.verify.report.words import clean

Document = dict[str, Any]
KINDS: dict[str, Document] = {
    "verdict": documents.verdict(),
    "refuted": documents.verdict("refuted", -2.5, -1.25),
    "certification": documents.certification(40),
    "bounds": documents.bounds(),
    "leak": documents.leak(),
    "leak over data": documents.leak_over_data(6),
    "run": documents.run(),
    "history": documents.history(),
    "comparison": compare.compare(documents.certification(40), documents.certification(40, seed=1)),
}
_VOID = {"meta", "input", "br", "link", "img"}
_UNCLOSED = {"td", "tr", "tbody"}  # HTML ends them where the next one begins


class Page(HTMLParser):
    """The elements of a page with their attributes, the text of each table, and all text outside style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text, self.script, self.headings = "", "", list[int]()
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " "
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in _VOID | _UNCLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _UNCLOSED:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.script += data
        elif "style" not in self.open:
            self.text += data
            if "table" in self.open and "caption" not in self.open and self.tables[-1] and self.tables[-1][-1]:
                self.tables[-1][-1][-1] += data.strip()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def numbers(value: Any) -> list[float]:
    """All numbers of a document, of booleans none."""
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if type(value) in (int, float) else []


@pytest.mark.parametrize("style", ["html", "md", "text"])
@pytest.mark.parametrize("kind", ["verdict", "refuted", "certification", "bounds", "leak"])
def test_every_number_of_the_document_is_in_the_report(kind: str, style: str) -> None:
    if style == "text" and kind in ("verdict", "refuted", "bounds", "certification"):
        return  # drawn for a terminal: less is shown, and tested with the commands
    text = leaktight.report(KINDS[kind], style)
    text = Page(text).text if style == "html" else text
    found = set(re.findall(r"-?\d+\.?\d*(?:e[+-]\d+)?%?", text))
    for number in numbers(KINDS[kind]):
        written = {short(number), rounded_down(number), rounded_up(number), f"{number:.1%}"}
        assert written & found, f"{number} is not on the page"


@pytest.mark.parametrize("kind", KINDS)
def test_equal_documents_give_equal_pages(kind: str) -> None:
    first = render.render(KINDS[kind], "html")
    render.render(KINDS["leak"], "html")
    assert render.render(KINDS[kind], "html") == first


def test_pages_are_equal_in_every_process() -> None:
    code = (
        "import sys, hashlib; sys.path.insert(0, 'tests'); import documents, leaktight;"
        "print(hashlib.sha256(leaktight.report(documents.leak()).encode()).hexdigest())"
    )
    seeds = ("1", "2")
    found = [
        subprocess.run([sys.executable, "-c", code], env={**_environment(), "PYTHONHASHSEED": seed}, **_CAPTURED)
        for seed in seeds
    ]
    own = hashlib.sha256(leaktight.report(documents.leak()).encode()).hexdigest()
    assert [process.stdout.strip() for process in found] == [own, own], found[0].stderr


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)


_CAPTURED: dict[str, Any] = {"capture_output": True, "text": True, "check": False}


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_fetches_nothing_and_may_run_only_its_own_script(kind: str) -> None:
    text = render.render(KINDS[kind], "html")
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]|url\((?!#)|@import|\bsrc=", text.replace(page.script, ""))
    assert not re.search(r"https?:|fetch|XMLHttp|import\(|eval|innerHTML", page.script)
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "action", "srcdoc")]
        assert (attributes.get("href") or "#").startswith("#")
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}';" in policy
    assert len(page.all("script")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_well_formed_and_can_be_read_by_everyone(kind: str) -> None:
    page = Page(render.render(KINDS[kind], "html"))
    assert page.open == []
    assert page.headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    names = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(names.values()) == {1}
    assert len(page.all("caption")) == len(page.tables) > 0
    assert all(cell.get("scope") == "col" for cell in page.all("th"))
    assert all(len({len(row) for row in table}) == 1 for table in page.tables)
    for picture in page.all("svg"):
        assert picture["role"] == "img"
        assert picture["aria-labelledby"] in names
        assert picture["aria-describedby"] in names
    for _, attributes in page.elements:
        target = attributes.get("href") or ""
        assert not target or target[1:] in names
    assert (page.all("html")[0]["lang"], len(page.all("main"))) == ("en", 1)


def test_pictures_take_their_colours_from_the_page() -> None:
    text = render.render(KINDS["leak over data"], "html")
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 1 + 6
    for picture in pictures:
        assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", picture)) <= {
            "none",
            *(f"var(--{name})" for name in ("ink", "faint", "accent", "proved", "refuted", "open")),
            *re.findall(r"url\(#figure-\d+-[^)]+\)", picture),
        }
        assert "<text" in picture


# everything that could act: HTML, attributes, templates, Markdown, terminals, text running backwards, half a character
HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}`|[a](javascript:b)"
    "\x1b[31m\x07\x9b\u202e\ud800\n# x"
)


_FIXED = ("schema", "status", "leak", "kind", "rule")


def hostile(value: Any, key: str = "") -> Any:
    """The document with every word that is not one of the schema's replaced, keys of free objects too."""
    if isinstance(value, dict):
        free = key in ("inputs", "outputs", "versions", "statistics")
        return {HOSTILE + name if free else name: hostile(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, key if key in _FIXED else "") for item in value]
    return HOSTILE if isinstance(value, str) and key not in _FIXED else value


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_are_shown_and_do_nothing(kind: str) -> None:
    document = hostile(KINDS[kind])
    text = leaktight.report(document, "html") if kind != "comparison" else render.render(document, "html")
    page, harmless = Page(text), Page(render.render(KINDS[kind], "html"))
    tags = Counter(tag for tag, _ in page.elements)
    assert set(tags) <= {tag for tag, _ in harmless.elements} | {"path", "use", "defs"}
    assert (tags["script"], tags["img"]) == (1, 0)
    assert page.open == []
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert clean(HOSTILE) in page.text
    assert "{{7*7}}" in page.text
    assert "\ufffd" in page.text
    text.encode("utf-8")


@pytest.mark.parametrize("style", ["html", "md", "text"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_report_holds_characters_that_act_without_being_seen(kind: str, style: str) -> None:
    text = render.render(hostile(KINDS[kind]), style)
    acting = {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not acting


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_markdown_is_markup_but_its_own(kind: str) -> None:
    for line in render.render(hostile(KINDS[kind]), "md").splitlines():
        unescaped = re.sub(r"`[^`]*`|\\.", "", line)
        assert not re.search(r"[<>\[\]`]", unescaped), line
        if line.startswith("|"):
            assert unescaped.endswith("|")
        assert line.count("# x") == 0 or not line.startswith("# x")


def tables_of(text: str) -> list[list[str]]:
    """The rows of each Markdown table as the number of their cells."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


@pytest.mark.parametrize("change", [lambda document: document, hostile], ids=["as it is", "hostile"])
@pytest.mark.parametrize("kind", KINDS)
def test_markdown_tables_have_rows_of_one_length(kind: str, change: Callable[[Document], Document]) -> None:
    found = tables_of(render.render(change(KINDS[kind]), "md"))
    assert found
    for table in found:
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
        assert len(bars) == 1
        assert re.fullmatch(r"(?:\| ---:? )+\|", table[1])


def test_the_curve_and_its_table_say_the_same() -> None:
    document = documents.leak()
    (page,) = pages(document)
    (section,) = [section for section in page.sections if section.title == "The curve"]
    picture = next(block for block in section.blocks if isinstance(block, outline.Picture))
    figure = picture.figure
    assert isinstance(figure, Curve)
    assert [list(slopes) for slopes, _ in figure.chords] == [part["slopes"] for part in document["curve"]]
    assert [list(values) for _, values in figure.chords] == [part["lower"] for part in document["curve"]]
    assert len(figure.attained) == len(document["curve"]) + 1
    table = next(block for block in section.blocks if isinstance(block, outline.Table))
    assert [row[:2] for row in table.rows] == [tuple(part["slopes"]) for part in document["curve"]]


def test_no_slope_is_drawn_as_proved_that_the_document_does_not_prove() -> None:
    for start in (-1.0, 0.5, 2.0, 4.2, 9.0):
        document = documents.leak(start=start)
        proved, refuted = leak_curve.decided(document, document)
        chords = [(part["slopes"], part["lower"]) for part in document["curve"]]
        for low, high in proved:
            for place in range(101):
                a = low + (high - low) * place / 100
                values = [
                    ends[0] + (ends[1] - ends[0]) * (a - s[0]) / (s[1] - s[0])
                    for s, ends in chords
                    if s[0] <= a <= s[1]
                ]
                assert max(values) > -1e-12
        for low, high in refuted:
            assert low >= document["refuted_from"]
            assert all(high <= begin or low >= end for begin, end in [*proved, *map(tuple, document["open"])])


@pytest.mark.parametrize(
    ("settings", "headline"),
    [
        ({"start": 9.0}, "Proved for every slope from 0 to 0.3"),
        ({"start": 4.2}, "Proved up to slope 0.20625, refuted from 0.2625"),
        ({"start": 5.05}, "Proved up to slope 0.2625, undecided beyond"),
        ({"start": -1.0}, "Refuted from slope 0"),
    ],
)
def test_the_headline_of_a_leak_is_its_answer(settings: Document, headline: str) -> None:
    assert leaktight.report(documents.leak(**settings), "md").splitlines()[0] == f"# {headline}"


@pytest.mark.parametrize(
    ("margins", "headline"),
    [
        ([-1, -1, 1, 2, 2, -1], "Refuted from slope 0; proved from 0.2 to 0.4"),
        ([-1, 1, 1, -1, 2, 2, 2], "Refuted from slope 0; proved from 0.4 to 0.6 and elsewhere"),
        ([1, 1, -1, -1, 2, 2], "Proved up to slope 0.1, refuted from 0.3; proved from 0.4 to 0.5"),
        ([-1, -1, 1, -1], "Refuted from slope 0"),
    ],
)
def test_the_headline_of_a_leak_names_what_is_proved_further_on(margins: list[float], headline: str) -> None:
    curve = [
        {"slopes": [k / 10, (k + 1) / 10], "lower": list(map(float, ends)), "upper": None}
        for k, ends in enumerate(pairwise(margins))
    ]
    proved, refuted = (0.1, 0.3) if margins[0] > 0 else (None, 0.0)
    found = {"status": "refuted", "proved_up_to": proved, "refuted_from": refuted, "curve": curve, "slopes": [0, 1]}
    assert leak_curve.headline(found) == headline


def test_what_is_not_known_is_not_made_up() -> None:
    document = documents.leak()
    for key in ("shift", "radius", "signal", "counterexample", "own_slopes", "tolerance"):
        document[key] = None
    document |= {"curve": [{"slopes": [0.0, 0.3], "lower": None, "upper": [1.0, None]}], "status": "unknown"}
    document |= {"proved_up_to": None, "refuted_from": None, "open": [[0.0, 0.3]]}
    text = leaktight.report(document, "md")
    assert text.startswith("# Undecided")
    assert "| 0 | 0.3 | - | - | 1 | - |" in text
    assert "The proven margin has gaps." in text
    assert all(f"## {title}" not in text for title in ("The shift", "Radius", "Signals", "The counterexample"))
    leaktight.report(document)


def test_a_line_is_not_drawn_between_a_known_and_an_unknown_end() -> None:
    document = documents.leak()
    document["curve"][3]["lower"][1] = None
    figure = leak_curve.picture(document, document).figure
    assert isinstance(figure, Curve)
    assert len(figure.chords) == len(document["curve"]) - 1


def test_the_shift_table_has_every_level_beside_the_intersection() -> None:
    text = leaktight.report(documents.leak(), "md")
    rows = [
        line for line in text.splitlines() if re.match(r"\| (closed formula|local|parametric lines|all together)", line)
    ]
    assert len(rows) == 4
    ends = [tuple(map(float, re.findall(r"(-?[\d.]+) to (-?[\d.]+) \|$", row)[0])) for row in rows]
    assert all(low <= ends[3][0] and ends[3][1] <= high for low, high in ends[:1])
    assert ends[0] == (pytest.approx(-93.71234567 * 0.3, rel=1e-5), pytest.approx(93.71234567 * 0.3, rel=1e-5))
    assert ends[0][1] >= 93.71234567 * 0.3


def test_the_histogram_counts_every_margin() -> None:
    from leaktight.verify.report.drawing.histogram import counts

    document = documents.certification(200)
    (page,) = pages(document)
    (figure,) = [
        block.figure
        for section in page.sections
        for block in section.blocks
        if isinstance(block, outline.Picture) and isinstance(block.figure, Histogram)
    ]
    known = [record for record in document["inputs"] if record["margin"]["lower"] is not None]
    assert sum(map(len, figure.values.values())) == len(known)
    values = [-2.0, -1.0, 0.0, 0.5, 3.0]
    assert counts(values, [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]) == [1, 1, 2, 0, 1]


def test_numbers_too_large_to_draw_are_said_and_tabulated() -> None:
    document = documents.bounds(3)
    document["outputs"]["scores"]["upper"][0] = 1e300
    page = Page(leaktight.report(document))
    assert "not drawn" in page.text
    assert "1e+300" in page.text


def test_several_results_are_one_page_with_links_to_each() -> None:
    page = Page(leaktight.report([documents.verdict(), documents.leak(), documents.bounds()]))
    assert [link["href"] for link in page.all("a")] == ["#result-1", "#result-2", "#result-3"]
    assert page.headings[:2] == [1, 2]
    assert len(page.all("article")) == 3


@pytest.mark.parametrize(
    "make", [documents.certification, pytest.param(documents.leak_over_data, marks=pytest.mark.slow)]
)
def test_ten_thousand_inputs_are_a_small_page_with_all_of_them(make: Callable[[int], Document]) -> None:
    began = time.process_time()
    document = make(10_000)
    made = time.process_time()
    text = leaktight.report(document)
    assert time.process_time() - made < 60
    assert made - began < 60
    assert len(text.encode()) < 5_000_000
    rows = max((table for table in Page(text).tables), key=len)
    assert [row[0] for row in rows[1:]] == [str(index) for index in range(10_000)]
    assert len(re.findall("<svg", text)) <= 2 + 24


def test_reports_are_made_without_matplotlib_where_there_are_no_pictures() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import documents, leaktight;"
        "[leaktight.report(documents.leak(), style) for style in ('md', 'text', 'json')];"
        "sys.exit(bool({'matplotlib', 'jinja2', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("style", ["html", "md"])
def test_what_is_proven_is_shown_rounded_to_the_side_of_less(style: str) -> None:
    almost, above = 1.99999999, 0.123456000001
    results = [documents.verdict(lower=almost, upper=above + 2), documents.certification(1), documents.leak()]
    results[1]["inputs"][0] |= {
        "margin": {"lower": almost, "upper": almost},
        "radius": 0.02999999999,
        "status": "proved",
    }
    results[2]["proved_up_to"] = 0.206249999
    results[2]["shift"]["change"] = [-5.65111001, -4.75111999]
    text = leaktight.report(results, style)
    cells = set(re.findall(r"-?\d+\.\d+", text))
    assert {"1.99999", "2.12346", "0.0299999", "0.206249", "-5.65112", "-4.75111"} <= cells
    assert "refuted from 0.2625" in text
    assert "0.20625," not in text


def test_what_a_picture_is_called_is_escaped_and_never_read_as_mathematics() -> None:
    figure = Intervals("output", [(HOSTILE + "$x^2$", -1.0, 1.0), ("$\\frac{", 0.0, 2.0)])
    page = Page(plots.draw(figure, name="f", title=HOSTILE, description=HOSTILE))
    assert not page.all("script")
    assert not page.all("img")
    assert page.text.count(clean(HOSTILE)) == 3
    assert "$x^2$" in page.text
    assert "$\\frac{" in page.text


def test_slopes_between_what_is_proved_and_what_is_refuted_are_not_drawn_as_refuted() -> None:
    document = {**documents.leak(), "open": []}
    _, ((start, end),) = leak_curve.decided(document, document)
    assert (start, end) == (document["refuted_from"], 0.3)
    assert start > document["proved_up_to"]


@pytest.mark.parametrize("style", ["html", "md", "text"])
def test_the_table_of_inputs_has_every_number_whole(style: str) -> None:
    """Also where the table is wider than a terminal."""
    document = documents.leak_over_data(12)
    (page,) = pages(document)
    table = next(b for s in page.sections for b in s.blocks if isinstance(b, outline.Table) and b.searchable)
    text = render.render(document, style)
    if style == "html":
        rows = max(Page(text).tables, key=lambda rows: len(rows[0]) if len(rows) == 13 else 0)[1:]
    else:
        lines = [re.sub(r"[|✅❌❔⏱]", " ", line).split() for line in text.splitlines()]
        rows = [
            line for line in lines if len(line) == len(table.columns) and line[3] in ("proved", "refuted", "unknown")
        ]
    assert rows == [[outline.shown(cell) for cell in row] for row in table.rows]


def test_text_shows_some_rows_of_long_curves_from_the_first_to_the_last() -> None:
    few, many = (render.report(documents.leak(segments=count), format="text") for count in (16, 200))
    assert "from the first to the last" not in few
    cut = "... 16 of 200, from the first to the last; --format json has all"
    shown = many.split(cut)
    assert len(shown) == 4  # curve, its bounds, shifts
    for rows in (part.splitlines()[-16:] for part in shown[:3]):
        slopes = [(float(row.split()[0]), float(row.split()[1 + ("to" in row.split())])) for row in rows]
        assert slopes[0][0] == 0.0
        assert slopes[-1][1] == pytest.approx(0.3)
        assert slopes == sorted(slopes)
    assert len(many.splitlines()) - len(few.splitlines()) < 10


@pytest.mark.parametrize("fall", [-21.0, 21.0])
def test_names_of_lines_are_on_the_side_from_which_the_line_leads_away(fall: float) -> None:
    figure = leak_curve.picture(document := documents.leak(fall=fall), document).figure
    axes = Canvas().add_subplot()
    curve(axes, figure)
    sides = {text.get_text(): text.get_ha() for text in axes.texts}
    rises = figure.chords[-1][1][-1] > figure.chords[0][1][0]
    assert sides["proven"] == ("left" if rises else "right")
    assert sides["attained by attack"] == ("right" if rises else "left")
    assert rises == (fall < 0)

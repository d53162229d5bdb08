"""Result files: what is read, and what is refused with its name and place."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import documents
import pytest
import torch

import leaktight
from leaktight import cli
from leaktight.demo import IMAGES, NETWORK, PROVED, REFUTED
from leaktight.errors import UsageError
from leaktight.specs.region import Norm
from leaktight.verify import digits
from leaktight.verify.lipschitz.bound import LipschitzBound
from leaktight.verify.report import compare, curve, read, render, text, words
from leaktight.verify.report.check import check

Document = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
KINDS: dict[str, Document] = {
    "verdict": documents.verdict(),
    "refuted": documents.verdict("refuted", -2.5, -1.25),
    "certification": documents.certification(12),
    "bounds": documents.bounds(),
    "leak": documents.leak(),
    "leak over data": documents.leak_over_data(6),
    "lipschitz": documents.lipschitz(),
    "lipschitz in a ball": documents.lipschitz(radius=0.25),
}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return call


def written(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_that_was_written_is_read_again(kind: str, tmp_path: Path) -> None:
    assert read.read(written(tmp_path / "result.json", KINDS[kind])) == KINDS[kind]


FILES = {
    "empty": (b"", "no JSON document"),
    "binary": (b"\xff\xfe\x00\x01", "not UTF-8"),
    "truncated": (json.dumps(documents.verdict()).encode()[:-10], "no JSON document"),
    "not a number": (b'{"schema": "leaktight.verdict/1", "seconds": NaN}', "NaN is no number"),
    "infinity": (b'{"schema": "leaktight.verdict/1", "seconds": -Infinity}', "-Infinity is no number"),
    "two verdicts": (b'{"status": "refuted", "status": "proved"}', "the key 'status' is given twice"),
    "digits without end": (b"[" + b"9" * 100_000 + b"]", "no JSON document"),
    "brackets without end": (b"[" * 100_000, "nested too deeply"),
    "a list": (b"[]", "must be an object"),
    "no schema": (b"{}", "schema is missing"),
    "another schema": (b'{"schema": "leaktight.doctor/1"}', "schema must be one of leaktight.verdict/1"),
    "a schema that is no string": (b'{"schema": ["leaktight.verdict/1"]}', "schema must be one of"),
}


@pytest.mark.parametrize(("content", "fragment"), FILES.values(), ids=FILES.keys())
def test_a_bad_file_is_refused_with_its_name(content: bytes, fragment: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    code, out, err = run("report", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"leaktight: error: {path}: ")
    assert fragment in err


def test_deep_nesting_is_refused_whatever_the_recursion_limit(tmp_path: Path) -> None:
    """Some packages raise the limit beyond what the stack holds; the parser would end the process."""
    path = tmp_path / "deep.json"
    for content, fragment in (('[{"a": ' * 500_000, "nested too deeply"), ('["' + "[" * 500_000 + '"]', "an object")):
        path.write_text(content)
        program = (
            "import sys; sys.setrecursionlimit(10**6)\n"
            "from leaktight.errors import UsageError; from leaktight.verify.report.read import read\n"
            f"try: read({str(path)!r})\nexcept UsageError as error: print(error)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert fragment in done.stdout


def test_a_missing_file_a_folder_and_one_that_is_too_large_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        code, _, err = run("report", path)
        assert code == 2
        assert f"{path}: it cannot be read" in err
    path = written(tmp_path / "large.json", documents.verdict())
    monkeypatch.setattr(read, "LIMIT", 100)
    code, _, err = run("report", path)
    assert code == 2
    assert f"{path}: it is larger than" in err


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document; of a list the first."""
    if isinstance(value, dict):
        return [place for key, item in value.items() for place in [(*path, key), *places(item, (*path, key))]]
    if isinstance(value, list) and value:
        return [(*path, 0), *places(value[0], (*path, 0))]
    return []


def refused_with(document: Document) -> str | None:
    try:
        check(document, "result.json")
    except UsageError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_stands_in_a_place_is_either_refused_or_rendered(kind: str) -> None:
    """No document makes the renderers fail: what they cannot show, the schemas refuse."""
    refused = 0
    for place in places(KINDS[kind]):
        for wrong in (None, -1, 1e308, 10**400, "<b>", [], {}, [None], [[]], True, "REMOVED"):
            document = copy.deepcopy(KINDS[kind])
            holder = document
            for key in place[:-1]:
                holder = holder[key]
            if wrong == "REMOVED":
                del holder[place[-1]]
            else:
                holder[place[-1]] = wrong
            refusal = refused_with(document)
            if refusal is None:
                render.render(document, "md")
                render.render(document, "text")
            else:
                assert refusal.startswith("result.json: ")
                refused += 1
    assert refused > 2 * len(places(KINDS[kind]))


@pytest.mark.parametrize("key", ["status", "margin", "network", "guarantee", "engine", "version", "counterexample"])
def test_a_missing_key_is_named(key: str, run: Run, tmp_path: Path) -> None:
    document = documents.verdict()
    del document[key]
    code, _, err = run("report", written(tmp_path / "r.json", document))
    assert code == 2
    assert f"{key} is missing" in err


def test_the_place_of_a_wrong_value_is_named() -> None:
    document = documents.leak_over_data(3)
    document["inputs"][1]["curve"][2]["lower"][0] = "high"
    with pytest.raises(
        UsageError, match=r"r\.json: inputs\[1\]\.curve\[2\]\.lower\[0\] must be a finite number, and is 'hi"
    ):
        check(document, "r.json")


def contradictions() -> dict[str, Document]:
    wrong = {"proved with a counterexample": documents.verdict()}
    wrong["proved with a counterexample"]["counterexample"] = documents.verdict("refuted")["counterexample"]
    wrong["proved beyond a refuted slope"] = {**documents.leak(), "proved_up_to": 0.28}
    wrong["a segment outside the range"] = documents.leak()
    wrong["a segment outside the range"]["curve"][0]["slopes"][0] = -1
    wrong["proved with open slopes"] = {**documents.leak(), "status": "proved"}
    wrong["bounds of two shapes"] = documents.bounds()
    wrong["bounds of two shapes"]["outputs"]["scores"]["lower"].pop()
    return wrong


@pytest.mark.parametrize("name", contradictions())
def test_a_document_that_contradicts_itself_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="contradicts itself"):
        check(contradictions()[name], "r.json")
    with pytest.raises(UsageError, match="contradicts itself"):
        leaktight.report([documents.bounds(), contradictions()[name]])


def test_what_the_commands_write_says_how_it_came_about_and_can_be_reported(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for command in (
        ["verify", NETWORK, PROVED],
        ["verify", NETWORK, REFUTED],
        ["bounds", NETWORK, PROVED],
        ["certify", NETWORK, IMAGES, "--epsilon", "0.01", "--limit", "3", "--radius"],
    ):
        arguments = [*map(str, command), "--format", "json", "-o", str(path)]
        assert run(*arguments)[0] in (0, 1)
        document = json.loads(path.read_text())
        assert document["command"] == ["leaktight", *arguments]
        assert set(document["versions"]) == {"python", "torch", "numpy", "onnxruntime"}
        assert all(document["versions"].values())
        code, out, err = run("report", path, "--format", "json")
        assert (code, json.loads(out)) == (0, document), err
        for style in ("text", "md", "html"):
            code, out, err = run("report", path, "--format", style)
            assert code == 0, err
            assert style != "html" or document["network"]["path"] in out


def test_formats_are_chosen_by_option_then_by_name_then_text(run: Run, tmp_path: Path) -> None:
    path = written(tmp_path / "r.json", documents.verdict())
    for name, arguments, start in (
        ("page.html", [], "<!DOCTYPE html>"),
        ("page.md", [], "# The property is proved"),
        ("page.json", [], "{"),
        ("page.html", ["--format", "md"], "# The property is proved"),
        ("page", [], "verdict"),
    ):
        assert run("report", path, "-o", tmp_path / name, *arguments)[:2] == (0, "")
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    assert run("report", path)[1].startswith("verdict")


@pytest.mark.parametrize("name", ["pdf", "xml", "yaml"])
def test_an_unknown_format_is_refused_with_what_is_allowed(name: str, run: Run, tmp_path: Path) -> None:
    code, out, err = run("report", written(tmp_path / "r.json", documents.verdict()), "--format", name)
    assert (code, out) == (2, "")
    assert name in err
    assert all(allowed in err for allowed in ("html", "md", "json", "text"))
    with pytest.raises(UsageError, match=f"'{name}' is not known; allowed: html, md, json, text"):
        leaktight.report(documents.verdict(), name)


def test_several_results_are_one_document(run: Run, tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{place}.json", document) for place, document in enumerate(KINDS.values())]
    found = json.loads(run("report", *paths, "--format", "json")[1])
    assert found["schema"] == "leaktight.report/1"
    assert found["results"] == list(KINDS.values())
    again = written(tmp_path / "all.json", found)
    assert run("report", again, "--format", "md")[1] == run("report", *paths, "--format", "md")[1]


def test_a_comparison_needs_two_results_of_one_kind(run: Run, tmp_path: Path) -> None:
    one, other = (written(tmp_path / f"{kind}.json", KINDS[kind]) for kind in ("verdict", "bounds"))
    data = written(tmp_path / "data.json", KINDS["leak over data"])
    single = written(tmp_path / "single.json", KINDS["leak"])
    for paths, fragment in (
        ([one], "exactly two"),
        ([one, one, one], "exactly two"),
        ([one, other], "of the same kind"),
        ([data, single], "of the same kind"),
    ):
        code, out, err = run("report", *paths, "--compare")
        assert (code, out) == (2, "")
        assert fragment in err
    with pytest.raises(UsageError, match="exactly two"):
        leaktight.report(KINDS["leak"], compared=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_does_not_differ_from_itself(kind: str) -> None:
    found = compare.compare(KINDS[kind], KINDS[kind])
    assert (found["settings"], found["contradictions"], found["entries"], found["moved_most"]) == ([], [], [], [])
    assert all(move["change"] == 0 for move in found["quantities"])
    assert all(pair["before"] == pair["after"] for pair in found["verdicts"])
    check(found, "comparison")


def test_a_comparison_finds_what_changed_and_what_moved_most() -> None:
    before, after = documents.certification(20), documents.certification(20)
    after["inputs"][3]["margin"]["lower"] += 2.5
    after["inputs"][4]["margin"]["lower"] -= 0.5
    after["inputs"][5]["status"] = "timeout"
    after["accuracy"]["certified"] -= 0.05
    after["inputs"].pop()
    after["engine"] = "crown"
    found = compare.compare(before, after)
    assert [entry["name"] for entry in found["entries"]] == ["input 3", "input 4", "input 5"]
    assert found["entries"][2]["status"] == [before["inputs"][5]["status"], "timeout"]
    (moved,) = found["moved_most"]
    assert moved["rise"]["entry"] == "input 3"
    assert moved["rise"]["change"] == pytest.approx(2.5)
    assert moved["fall"] == {"entry": "input 4", "change": pytest.approx(-0.5)}
    assert found["settings"] == [{"name": "engine", "before": "auto", "after": "crown"}]
    assert found["only_before"] == ["input 19"]
    assert found["only_after"] == []
    changes = {move["name"]: move["change"] for move in found["quantities"]}
    assert changes["certified accuracy"] == pytest.approx(-0.05)


def test_leak_results_are_compared_by_slopes_margins_and_radii() -> None:
    before, after = documents.leak(), documents.leak(start=4.6)
    (entry,) = compare.compare(before, after)["entries"]
    moves = {move["name"]: move for move in entry["moves"]}
    assert moves["proved up to"]["change"] == pytest.approx(after["proved_up_to"] - before["proved_up_to"])
    assert moves["smallest margin, proven"]["change"] == pytest.approx(0.4)
    assert moves["radius, proven"]["change"] > 0


def test_results_that_deny_each_other_on_one_question_are_called_contradictions() -> None:
    proved, refuted = documents.verdict(lower=1.5), documents.verdict("refuted", None, -0.5)
    found = compare.compare(proved, refuted)["contradictions"]
    assert "the property: proved before, and refuted after" in found
    assert any("1.5" in claim and "-0.5" in claim for claim in found)
    another = {**refuted, "property": documents.source("specs/b.vnnlib", "2" * 64)}
    assert compare.compare(proved, another)["contradictions"] == []
    nameless = {**proved, "network": {"path": "a.onnx", "sha256": None}}
    assert compare.compare(nameless, refuted)["contradictions"] == []


def test_lipschitz_results_are_compared_by_their_bounds() -> None:
    before, after = documents.lipschitz(method="fast"), documents.lipschitz(40.5)
    found = compare.compare(before, after)
    assert found["kind"] == "lipschitz"
    assert found["settings"] == [{"name": "method", "before": "fast", "after": "lipsdp"}]
    changes = {move["name"]: move["change"] for move in found["quantities"]}
    assert changes["constant, upper"] == pytest.approx(40.5 - 48.0811234)
    assert changes["constant, lower"] == 0
    assert changes["gap"] == pytest.approx((40.5 - 48.0811234) / 20.5)
    assert [entry["name"] for entry in found["entries"]] == ["slopes 0.0 to 0.5"]
    assert (found["only_before"], found["only_after"]) == (["method fast"], ["method lipsdp"])
    assert found["contradictions"] == []
    for form in ("text", "html", "md"):
        shown = render.render(found, form)
        assert "The proven constant is 40.5, and was 48.0812" in shown
        assert "134" in shown  # the gap before, in percent, rounded as every share
    same = text.render(compare.compare(before, before))
    assert "The proven constant is 48.0812 in both" in same
    assert "was nothing" in text.render(compare.compare(documents.lipschitz(None), after))


def test_constants_that_exclude_each_other_are_a_contradiction_only_in_one_ball() -> None:
    low, high = documents.lipschitz(30.0, radius=0.25), documents.lipschitz(50.0, radius=0.25)
    high["lower"] = 30.5
    for before, after, which in ((low, high, "after"), (high, low, "before")):
        (claim,) = compare.compare(before, after)["contradictions"]
        assert f"constant, lower is 30.5 {which}, and constant, upper is 30 in the other result" in claim
    for other in (
        {"radius": 0.5},
        {"center": {"sha256": "4" * 64}},
        {"norm": "inf"},
        {"network": documents.source("a.onnx", "5" * 64)},
    ):
        found = compare.compare(low, {**high, **other})
        assert found["contradictions"] == []
        assert [setting["name"] for setting in found["settings"]] == list(other)
    unsaid = [{name: value for name, value in one.items() if name != "center"} for one in (low, high)]
    assert compare.compare(*unsaid)["contradictions"] == []


def test_an_attained_margin_below_a_proven_one_by_a_rounding_is_no_contradiction() -> None:
    before, after = documents.verdict(lower=1.5, upper=1.5), documents.verdict(lower=0.5, upper=1.4999999)
    assert compare.compare(before, after)["contradictions"] == []
    after["margin"]["upper"] = 1.49
    assert len(compare.compare(before, after)["contradictions"]) == 1


@pytest.mark.parametrize("value", [0.1234565, -0.1234565, 1.0000001, -1e-300, 123456.7, 9.9999999, 0.3, 0.0, 5e-324])
def test_directed_digits_never_claim_more(value: float) -> None:
    from fractions import Fraction

    low, high = digits.rounded_down(value), digits.rounded_up(value)
    assert float(low) <= value <= float(high)
    if value and float(low) != value:
        assert Fraction(low) < Fraction(value) < Fraction(high)
        assert Fraction(high) - Fraction(low) <= abs(Fraction(value)) * Fraction(1, 10**5) or abs(value) < 1e-300


def test_plain_text_never_claims_more_than_is_proven() -> None:
    """The nearest six digits of 15.484798 lie above it."""
    near = 15.484798
    verdict, certified = documents.verdict(lower=near, upper=near), documents.certification(1)
    certified["inputs"] *= 10000
    certified["inputs"][0] |= {"margin": {"lower": near, "upper": -near}, "radius": 0.0123456789}
    certified["accuracy"]["certified"] = 0.9999
    bounds = documents.bounds(1)
    bounds["outputs"] = {"y": {"lower": [near, None], "upper": [-near, None]}}
    assert "proven >= 15.4847; some input attains 15.4848" in text.render(verdict)
    shown = text.render(certified)
    assert re.search(r"15\.4847 +-15\.4847 +0\.0123456 ", shown)
    assert "certified  <100% provably" in shown
    assert re.search(r"y\[0\] +15\.4847 +-15\.4847\ny\[1\] +- +-\n", text.render(bounds))


@pytest.mark.parametrize(
    "document", [documents.certification(3), documents.leak_over_data(3)], ids=["plain", "outlined"]
)
def test_no_number_of_a_table_is_broken_where_the_terminal_is_narrow(document: dict[str, Any]) -> None:
    rows = [line.split() for line in text.render(document, width=400).splitlines() if re.match(r" *\d+ +\d+ ", line)]
    narrow = [line.split() for line in text.render(document, width=30).splitlines()]
    assert len(rows) >= 3
    assert all(row in narrow for row in rows)


def test_no_sentence_claims_a_larger_ball_or_range_than_is_proven() -> None:
    """2/255 is 0.0078431372..., and the nearest six digits lie above it."""
    certified, leak, moved = documents.certification(3), documents.leak_over_data(2), documents.leak()
    for document in (certified, leak):
        document["epsilon"] = 2 / 255
    for record in certified["inputs"]:
        record |= {"status": "proved", "margin": {"lower": 2 / 255, "upper": 1.0}, "radius": 2 / 255}
    for document in (leak, moved):
        document["slopes"] = [1 / 3, 2 / 3]
    moved["status"] = "proved"
    for shown in (render.render(certified, "text"), *(render.render(d, "md") for d in (certified, leak))):
        assert "0.00784313" in shown
        assert "0.00784314" not in shown.replace("epsilon | 0.00784314", "")  # which is what was asked
    for shown in (render.render(d, "md").replace("\\", "") for d in (leak, moved)):
        assert "every slope from 0.333334 to 0.666666" in shown
    local = LipschitzBound(Norm.L2, 1.0, 1.0, "product", {}, scope="local", asked={"radius": 2 / 255}).to_json()
    assert "within 0.00784313 of an input" in render.render({**documents.common(), **local}, "text")
    leak["accuracy"][0]["certified"] = 0.99999
    assert r"accuracy is between \<100% and" in render.render(leak, "md")


def test_summaries_claim_no_more_than_the_results() -> None:
    bound = LipschitzBound(Norm.L2, 2 / 3, 2 / 3, "product", {})
    assert "at most 0.666667 by product, some inputs attain 0.666666 " in bound.summary
    result = leaktight.leak_of_data(
        leaktight.load(NETWORK), torch.zeros(1, 64), torch.zeros(1, dtype=torch.long), 0.0, (1 / 3, 2 / 3)
    )
    assert "every slope from 0.333334 to 0.666666 " in result.summary


def test_few_digits_of_an_interval_lie_inside_it() -> None:
    assert digits.rounded_inwards(0.25, 0.5) == "0.25 to 0.5"
    assert digits.rounded_inwards(1 / 3, 2 / 3) == "0.333334 to 0.666666"
    assert digits.rounded_inwards(1 / 3, 1 / 3) == f"{1 / 3!r} to {1 / 3!r}"


def test_a_comparison_never_shows_more_than_is_proven() -> None:
    before, after = documents.certification(2), documents.certification(2)
    after["inputs"][0]["margin"] = {"lower": 15.484798, "upper": -15.484798}
    after["accuracy"]["certified"] = 0.9999
    shown = text.render(compare.compare(before, after))
    assert re.search(r"input 0 .* 15\.4847 .* -15\.4847 ", shown)
    assert re.search(r"certified accuracy +\S+ +<100%", shown)


def test_a_reason_never_claims_more_than_the_margin() -> None:
    verdict = leaktight.prove(leaktight.load(NETWORK), leaktight.read_property(PROVED))
    (said,) = re.findall(r"at least (\S+) on", verdict.reason)
    assert float(said) <= verdict.margin.lower <= float(said) + 2e-4


def test_a_percentage_is_100_or_0_only_if_it_is() -> None:
    assert [words.percent(x) for x in (0.0, 1e-5, 0.5, 0.99999, 1.0)] == ["0.0%", ">0%", "50.0%", "<100%", "100.0%"]


def test_positive_slopes_are_those_where_the_chord_is_above_0() -> None:
    parts = [
        {"slopes": [0.0, 0.1], "lower": [1.0, 0.5], "upper": None},
        {"slopes": [0.1, 0.2], "lower": [0.5, -0.5], "upper": None},
        {"slopes": [0.2, 0.3], "lower": [None, 2.0], "upper": None},
        {"slopes": [0.3, 0.4], "lower": None, "upper": None},
        {"slopes": [0.4, 0.5], "lower": [-1.0, 3.0], "upper": [4.0, None]},
    ]
    (first, second) = curve.positive(parts)
    assert first == (0.0, pytest.approx(0.15))
    assert second == (pytest.approx(0.425), 0.5)
    assert curve.lowest(parts) is None
    assert curve.lowest(parts[:2]) == -0.5
    assert curve.attained(parts) == [(0.4, 4.0)]
    assert curve.gaps([(0.1, 0.2), (0.3, 0.6)], 0.15, 0.5) == [(0.2, 0.3)]
    assert curve.gaps([(0.1, 0.2), (0.3, 0.4)], 0.0, 0.5) == [(0.0, 0.1), (0.2, 0.3), (0.4, 0.5)]

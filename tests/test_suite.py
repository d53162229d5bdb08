"""Suites: what they may say, where each mistake is, and which jobs they become."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktight.demo import IMAGES, NETWORK, PROVED, REFUTED
from leaktight.errors import UsageError
from leaktight.verify.run import requirement
from leaktight.verify.run.instances import read_suite
from leaktight.verify.run.lines import line_of, lines

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HEAD = f"""\
[networks]
digits = "{NETWORK}"
other = {{ path = "{NETWORK}", mean = [0.5], std = 2 }}
"""


def suite(folder: Path, text: str, name: str = "suite.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_lists_are_matrices_and_defaults_are_inherited(tmp_path: Path) -> None:
    text = f"""
[defaults]
timeout = 5
seed = 3
epsilon = 0.5

{HEAD}
[[certify]]
network = ["digits", "other"]
data = "{IMAGES}"
epsilon = [0.01, "8/255"]
clip = "0:1"
require = "certified_accuracy >= 0.9"
tags = "smoke"

[[verify]]
network = "*"
property = "{PROVED}"
timeout = 7
"""
    found = read_suite(suite(tmp_path, text))
    assert [job.name for job in found.jobs] == [
        *(f"verify {network} {PROVED}" for network in ("digits", "other")),
        *(f"certify {n} {IMAGES} epsilon={e}" for n in ("digits", "other") for e in ("0.01", "0.0313725")),
    ]
    certify, verify = found.jobs[2], found.jobs[0]
    assert certify.question["epsilon"] == 0.01
    assert (certify.question["timeout"], verify.question["timeout"]) == (5.0, 7.0)
    assert (certify.question["seed"], verify.question["seed"]) == (3, 3)
    assert certify.question["clip"] == [0.0, 1.0]
    assert certify.tags == ("smoke",)
    assert [wanted.text for wanted in certify.requires] == ["certified_accuracy >= 0.9"]
    assert found.jobs[3].question["epsilon"] == 8 / 255
    assert (found.jobs[4].network["mean"], found.jobs[4].network["std"]) == ([0.5], [2.0])
    assert certify.place.line == text.splitlines().index("[[certify]]") + 1


def test_patterns_name_every_file_that_matches_in_order(tmp_path: Path) -> None:
    for name in ("b.vnnlib", "a.vnnlib", "c.txt"):
        (tmp_path / name).write_text(PROVED.read_text())
    found = read_suite(suite(tmp_path, f'{HEAD}[[verify]]\nnetwork = "digits"\nproperty = "*.vnnlib"\n'))
    assert [Path(job.files["property"]).name for job in found.jobs] == ["a.vnnlib", "b.vnnlib"]


VERIFY = f'[[verify]]\nnetwork = "digits"\nproperty = "{PROVED}"\n'
MISTAKES = {
    "no TOML": ("[networks\n", "suite.toml: this is no TOML"),
    "nothing asked": (HEAD, "there is no job; add one of [[verify]], [[certify]]"),
    "unknown table": (f"{HEAD}{VERIFY}[defalts]\n", "suite.toml:7: defalts: there is no such table; did you mean"),
    "unknown kind of job": (
        f"{HEAD}{VERIFY}[[certfy]]\n",
        "suite.toml:7: certfy: there is no such table; did you mean",
    ),
    "unknown key": (
        f"{HEAD}{VERIFY}timeuot = 3\n",
        "suite.toml:7: verify[1].timeuot: there is no such key; did you mean 'timeout'?",
    ),
    "unknown default": (
        f"[defaults]\nepsilonn = 3\n{HEAD}{VERIFY}",
        "suite.toml:2: defaults.epsilonn: there is no such key; did you mean 'epsilon'?",
    ),
    "wrong default": (
        f'[defaults]\ntimeout = "soon"\n{HEAD}{VERIFY}',
        "suite.toml:2: defaults.timeout: 'soon' is not a finite number",
    ),
    "unknown key of a network": (
        f'{HEAD}[networks.third]\npath = "{NETWORK}"\nmeen = 1\n{VERIFY}',
        "suite.toml:6: networks.third.meen: there is no such key; did you mean 'mean'?",
    ),
    "missing key": (f'{HEAD}[[verify]]\nnetwork = "digits"\n', "suite.toml:4: verify[1].property: it is missing"),
    "wrong kind": (
        f"{HEAD}{VERIFY}tags = [1]\n",
        "suite.toml:7: verify[1].tags[1]: input should be a valid string; got 1",
    ),
    "negative timeout": (
        f"{HEAD}{VERIFY}timeout = -1\n",
        "suite.toml:7: verify[1].timeout: input should be greater than 0; got -1",
    ),
    "NaN": (f"{HEAD}{VERIFY}timeout = nan\n", "suite.toml:7: verify[1].timeout: nan is not a finite number"),
    "unknown engine": (
        f'{HEAD}{VERIFY}engine = "magic"\n',
        "suite.toml:7: verify[1].engine: 'magic' is not known; allowed: auto, interval, crown, alpha-crown, branch,",
    ),
    "true for a number": (
        f'{HEAD}[[certify]]\nnetwork = "digits"\ndata = "{IMAGES}"\nepsilon = true\n',
        "suite.toml:7: certify[1].epsilon: True is not a finite number",
    ),
    "unknown network": (
        f'{HEAD}[[verify]]\nnetwork = "digit"\nproperty = "{PROVED}"\n',
        "suite.toml:5: verify[1].network: no network is called 'digit'; did you mean 'digits'?",
    ),
    "one bracket": (f'{HEAD}[verify]\nnetwork = "digits"\n', "suite.toml:4: verify: jobs are written [[verify]]"),
    "name twice": (f"{HEAD}{VERIFY}{VERIFY}", "two jobs are called"),
    "unknown quantity": (
        f'{HEAD}{VERIFY}require = "marign > 0"\n',
        "suite.toml:7: verify[1].require: 'marign' is no quantity of verify; did you mean 'margin'?",
    ),
    "undecidable": (f'{HEAD}{VERIFY}require = "margin <= 0"\n', "what is proven of margin decides >= and > only"),
    "no requirement": (f'{HEAD}{VERIFY}require = ["margin"]\n', "'margin' is no requirement; write it like"),
    "leak of nothing": (
        f'{HEAD}[[leak]]\nnetwork = "digits"\nslopes = "0:1"\n',
        "suite.toml:4: leak[1]: give either 'property', or 'data' with 'epsilon'",
    ),
    "leak without epsilon": (
        f'{HEAD}[[leak]]\nnetwork = "digits"\nslopes = "0:1"\ndata = "{IMAGES}"\n',
        "'data' and 'epsilon' belong together",
    ),
    "reversed slopes": (
        f'{HEAD}[[leak]]\nnetwork = "digits"\nslopes = "1:0"\nproperty = "{PROVED}"\n',
        "suite.toml:6: leak[1].slopes: '1:0' is reversed",
    ),
    "unknown gate": (
        f'{HEAD}{VERIFY}[gate]\nfail_on = ["refused"]\n',
        "suite.toml:8: gate.fail_on[1]: 'refused' is not known; did you mean 'refuted'?",
    ),
    "a table as text": (f"gate = 3\n{HEAD}{VERIFY}", "suite.toml:1: gate: it is a table, written [gate]"),
    "unknown method": (
        f'{HEAD}[[lipschitz]]\nnetwork = "digits"\nmethod = "guess"\n',
        "suite.toml:6: lipschitz[1].method: 'guess' is not known; allowed: auto, product,",
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_refused_with_file_line_and_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_suite(suite(tmp_path, text))
    told = str(caught.value)
    assert message in told
    assert told.startswith(str(tmp_path / "suite.toml"))
    assert len(told.splitlines()) == 1, "one mistake, one line"


def test_all_missing_files_are_listed_at_once(tmp_path: Path) -> None:
    text = f"""\
[networks]
gone = "gone.onnx"
digits = "{NETWORK}"

[[verify]]
network = ["gone", "digits"]
property = ["lost.vnnlib", "{PROVED}", "no/*.vnnlib"]

[[certify]]
network = "digits"
data = "away.npz"
epsilon = 1
labels = "none.idx"
"""
    with pytest.raises(UsageError) as caught:
        read_suite(suite(tmp_path, text))
    told = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
    assert told == [
        "suite.toml:2: networks.gone: there is no file gone.onnx",
        "suite.toml:7: verify[1].property: there is no file lost.vnnlib",
        "suite.toml:7: verify[1].property: no file matches no/*.vnnlib",
        "suite.toml:11: certify[1].data: there is no file away.npz",
        "suite.toml:13: certify[1].labels: there is no file none.idx",
    ]


def test_instances_become_jobs(tmp_path: Path) -> None:
    rows = f"{NETWORK},{PROVED},10\n\n{NETWORK}, {REFUTED} ,2.5\n{NETWORK},{PROVED},10\n"
    jobs = read_suite(suite(tmp_path, rows, "instances.csv")).jobs
    assert [(job.question["timeout"], job.place.line) for job in jobs] == [(10.0, 1), (2.5, 3), (10.0, 4)]
    assert jobs[2].name == f"{jobs[0].name} #2"


def test_bad_instances_are_refused_with_their_lines(tmp_path: Path) -> None:
    rows = f"{NETWORK},{PROVED}\n{NETWORK},{PROVED},soon\ngone.onnx,lost.vnnlib,3\n"
    with pytest.raises(UsageError) as caught:
        read_suite(suite(tmp_path, rows, "instances.csv"))
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == [
        "instances.csv:1: there are 2 columns; expected onnx,vnnlib,timeout",
        "instances.csv:2: timeout: 'soon' is not a positive number of seconds",
        "instances.csv:3: onnx: there is no file gone.onnx",
        "instances.csv:3: vnnlib: there is no file lost.vnnlib",
    ]


@pytest.mark.parametrize(
    ("name", "content"), [("s.toml", b"\xff\xfe"), ("i.csv", b"\xff"), ("i.csv", b""), ("s.yaml", b"")]
)
def test_what_is_no_suite_is_refused_with_its_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        read_suite(tmp_path / name)


TRICKY = '''
# [not] = "a table"
a = """
[no.table]
b = 3 # in a string """ # a comment with [
"quoted.key" = { x = 1, y = [2,
  3] }
c.d = [
  "]", # not the end
  '[',
]
[one."two three".four]
x = 1
[[rows]]
x = 1
[[rows]]
x = [[1], [2]]
[rows.inner]
y = 2
[[rows.deep]]
z = 1
'''


def test_lines_of_keys_are_found_among_strings_and_brackets() -> None:
    tomllib.loads(TRICKY)
    known = lines(TRICKY)
    texts = TRICKY.splitlines()
    expected = {
        ("a",): 'a = """',
        ("quoted.key",): '"quoted.key" = { x = 1, y = [2,',
        ("c",): "c.d = [",
        ("c", "d"): "c.d = [",
        ("one", "two three", "four"): '[one."two three".four]',
        ("rows", 1, "x"): "x = [[1], [2]]",
        ("rows", 1, "inner", "y"): "y = 2",
        ("rows", 1, "deep", 0, "z"): "z = 1",
    }
    assert {path: texts[known[path] - 1] for path in expected} == expected
    assert ("b",) not in known
    assert ("no", "table") not in known
    assert line_of(known, ("rows", 1, "x", 0, "z")) == known["rows", 1, "x"]


NAMES = st.text("abc_-", min_size=1, max_size=4)
VALUES = st.sampled_from(['"[x]"', "[1,\n 2]", '"""\n[t]\nk = 1\n"""', "{ a = 1 }", "'#'", "3 # c = 4"])


@given(st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), max_size=4, unique_by=lambda t: t[0]))
def test_every_table_and_key_of_a_document_has_its_line(tables: list[tuple[str, dict[str, str]]]) -> None:
    written, expected = "", {}
    for name, keys in tables:
        expected[(name,)] = written.count("\n") + 1
        written += f"[{name}]\n"
        for key, value in keys.items():
            expected[(name, key)] = written.count("\n") + 1
            written += f"{key} = {value}\n"
    tomllib.loads(written)
    assert lines(written) == expected


CERTIFIED: dict[str, Any] = {
    "accuracy": {"clean": 1.0, "certified": 0.9, "attacked": 0.95},
    "inputs": [{"margin": {"lower": 0.5}, "radius": 0.1}, {"margin": {"lower": -1.0}, "radius": 0.0}],
}


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("certified_accuracy >= 0.9", 0.9, True),
        ("certified_accuracy > 9/10", 0.9, False),
        ("attacked_accuracy>=0.96", 0.95, False),
        ("margin >= -1", -1.0, True),
        ("radius > 0", 0.0, False),
    ],
)
def test_requirements_compare_what_is_proven(text: str, value: float, holds: bool) -> None:
    assert requirement.parse(text, "certify").judge(CERTIFIED) == {"text": text, "value": value, "holds": holds}


def test_what_nothing_is_proven_of_satisfies_nothing() -> None:
    unproven = {**CERTIFIED, "inputs": [{"margin": {"lower": None}, "radius": None}, *CERTIFIED["inputs"]]}
    for text in ("margin >= -1e9", "radius >= 0"):
        assert requirement.parse(text, "certify").judge(unproven) == {"text": text, "value": None, "holds": False}
    curve = {"curve": [{"slopes": [0, 1], "lower": [2.0, None]}], "proved_up_to": None}
    for text in ("margin > -9", "proved_up_to >= 0"):
        assert not requirement.parse(text, "leak").judge(curve)["holds"]


def test_lipschitz_limits_are_upper_bounds() -> None:
    wanted = requirement.parse("lipschitz <= 12", "lipschitz")
    assert wanted.judge({"upper": 12.0})["holds"]
    assert not wanted.judge({"upper": 12.1})["holds"]
    with pytest.raises(ValueError, match="decides <= and < only"):
        requirement.parse("lipschitz >= 12", "lipschitz")


def test_an_unknown_key_hides_nothing_else_that_is_wrong(tmp_path: Path) -> None:
    """Networks, files and requirements of a table are looked at although it has a key that there is not."""
    (tmp_path / "suite.toml").write_text(
        '[networks]\na = "gone.onnx"\n[[verify]]\nnetwork = "b"\npropert = 1\nproperty = ["x.vnnlib", "y.vnnlib"]\n'
        'require = "radius > 1"\n'
    )
    with pytest.raises(UsageError) as caught:
        read_suite(tmp_path / "suite.toml")
    told = str(caught.value).splitlines()
    assert len(told) == 6
    numbers = [int(line.split(":")[1]) for line in told]
    assert numbers == sorted(numbers), "in the order of the file"
    for says in ("no file", "did you mean 'property'?", "no network is called 'b'", "x.vnnlib", "y.vnnlib", "radius"):
        assert any(says in line for line in told), (says, told)

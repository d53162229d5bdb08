"""VNN-LIB: what a text means, exactly; what is refused, and where; and every public file that is at hand."""

from __future__ import annotations

import gzip
import hashlib
import random
import re
import time
from fractions import Fraction
from itertools import product
from operator import eq, ge, gt, le, lt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaktight.errors import PropertyError
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Box
from leaktight.specs.vnnlib import format_counterexample, parse_property, read_property

BENCH = Path(__file__).resolve().parents[1].parent / "shared" / "bench"

TWO_BY_TWO = "".join(f"(declare-const {v}_{i} Real)\n" for v in "XY" for i in (0, 1))
BOX = "(assert (and (<= X_0 1) (>= X_0 0) (>= X_1 -2) (<= X_1 0.5)))\n"
HEAD = TWO_BY_TWO + BOX  # five lines

Disjuncts = list[list[tuple[list[float], float, bool]]]
Cases = list[tuple[list[list[float]], Disjuncts]]


def box_of(case: object) -> Box:
    assert isinstance(case, Case)
    assert isinstance(case.region, Box)
    return case.region


def plain(found: Property) -> Cases:
    """Boxes as [lower, upper], with their disjuncts as lists of (weights, bound, strict)."""
    listed: Cases = []
    for case in found.cases:
        assert isinstance(case, Case)
        disjuncts: Disjuncts = [[] for _ in range(case.unsafe.disjuncts)]
        unsafe = case.unsafe
        rows = zip(unsafe.weights[0].tolist(), unsafe.bounds[0].tolist(), unsafe.strict.tolist(), strict=True)
        for at, row in zip(case.unsafe.disjunct.tolist(), rows, strict=True):
            disjuncts[at].append(row)
        listed.append(([case.region.lower[0].tolist(), case.region.upper[0].tolist()], disjuncts))
    return listed


def disjuncts(condition: str) -> Disjuncts:
    """The unsafe set of one condition on two outputs."""
    ((_, found),) = plain(parse_property(f"{HEAD}(assert {condition})"))
    return found


@pytest.mark.parametrize(
    ("condition", "meaning"),
    [
        ("(<= Y_0 0.5)", [[([1.0, 0.0], 0.5, False)]]),
        ("(>= Y_0 0.5)", [[([-1.0, 0.0], -0.5, False)]]),
        ("(< Y_1 -1e2)", [[([0.0, 1.0], -100.0, True)]]),
        ("(> 3 Y_1)", [[([0.0, 1.0], 3.0, True)]]),
        ("(<= Y_0 Y_1)", [[([1.0, -1.0], 0.0, False)]]),
        ("(>= (+ Y_0 Y_1 1) (- 2 Y_0))", [[([-2.0, -1.0], -1.0, False)]]),
        ("(<= (- Y_0) (* 2 (- 3) Y_1))", [[([-1.0, 6.0], 0.0, False)]]),
        ("(<= (* (+ Y_0 1) 4) (/ 1 2))", [[([4.0, 0.0], -3.5, False)]]),
        ("(<= (/ Y_0 4 2) 1)", [[([0.125, 0.0], 1.0, False)]]),
        ("(= Y_0 Y_1)", [[([1.0, -1.0], 0.0, False), ([-1.0, 1.0], 0.0, False)]]),
        ("(<= 0 Y_0 1)", [[([-1.0, 0.0], 0.0, False), ([1.0, 0.0], 1.0, False)]]),
        ("(or (<= Y_0 1) (<= Y_1 2))", [[([1.0, 0.0], 1.0, False)], [([0.0, 1.0], 2.0, False)]]),
        ("(and (<= Y_0 1) (<= Y_1 2))", [[([1.0, 0.0], 1.0, False), ([0.0, 1.0], 2.0, False)]]),
        (
            "(or (and (<= Y_0 1)) (or (<= Y_1 2) false) (<= 1 0))",
            [[([1.0, 0.0], 1.0, False)], [([0.0, 1.0], 2.0, False)]],
        ),
        ("(and true (<= 0 0) (<= Y_0 1))", [[([1.0, 0.0], 1.0, False)]]),
        ("true", [[([0.0, 0.0], 0.0, False)]]),
        ("(<= (- Y_0 Y_0) 1)", [[([0.0, 0.0], 0.0, False)]]),
        ("(<= (* 0.1 Y_0) Y_1)", [[([0.125, -1.25], 0.0, False)]]),
    ],
)
def test_a_condition_becomes_these_disjuncts(condition: str, meaning: Disjuncts) -> None:
    assert disjuncts(condition) == meaning


def test_boxes_are_read_whatever_the_order_of_declarations_and_bounds() -> None:
    text = """
    ; inputs last, and the second one first
    (set-logic QF_LRA) (declare-fun Y_0 () Real)
    (declare-const X_1 Real) (declare-const X_0 Real)
    (assert (>= 5 X_1)) (assert (<= (* 2 X_0) 3.0)) (assert (<= Y_0 0)) (assert (>= X_1 (- 4.5)))
    (assert (or (>= (- X_0) 8))) (assert (>= X_0 -10)) (check-sat)
    """
    assert plain(parse_property(text)) == [([[-10.0, -4.5], [-8.0, 5.0]], [[([1.0], 0.0, False)]])]


def test_the_tightest_of_several_bounds_counts() -> None:
    ((box, _),) = plain(parse_property(HEAD + "(assert (<= X_0 0.75))(assert (<= X_0 0.875))(assert (<= Y_0 0))"))
    assert box == [[0.0, -2.0], [0.75, 0.5]]


def test_each_distinct_input_box_is_a_case_with_its_own_outputs() -> None:
    text = (
        HEAD
        + """(assert (or
      (and (<= X_0 0.25) (<= Y_0 1)) (and (>= X_0 0.75) (<= Y_0 2))
      (and (<= Y_1 3) (<= X_0 0.25)) (<= Y_1 4)
      (and (>= X_0 2) (<= Y_0 5))))"""
    )
    assert plain(parse_property(text)) == [
        ([[0.0, -2.0], [0.25, 0.5]], [[([1.0, 0.0], 1.0, False)], [([0.0, 1.0], 3.0, False)]]),
        ([[0.75, -2.0], [1.0, 0.5]], [[([1.0, 0.0], 2.0, False)]]),
        ([[0.0, -2.0], [1.0, 0.5]], [[([0.0, 1.0], 4.0, False)]]),
    ]


def test_bounds_that_only_the_disjuncts_give_are_enough() -> None:
    text = (
        TWO_BY_TWO
        + """(assert (<= Y_0 0)) (assert (or
      (and (<= X_0 1) (>= X_0 0) (<= X_1 1) (>= X_1 0)) (and (<= X_0 3) (>= X_0 2) (<= X_1 3) (>= X_1 2))))"""
    )
    assert [box for box, _ in plain(parse_property(text))] == [[[0.0, 0.0], [1.0, 1.0]], [[2.0, 2.0], [3.0, 3.0]]]


def test_strict_input_bounds_leave_the_wall_out_of_what_is_inside() -> None:
    found = parse_property(HEAD + "(assert (< X_0 1)) (assert (> X_1 -2)) (assert (<= Y_0 0))")
    box = box_of(found.cases[0])
    assert (float(box.lower[0, 1]), float(box.upper[0, 0])) == (-2.0, 1.0)
    low, high = box.inside
    assert float(high[0, 0]) == np.nextafter(1.0, 0.0)
    assert float(low[0, 1]) == np.nextafter(-2.0, 0.0)


decimals = st.one_of(
    st.floats(-1e9, 1e9).map(repr),
    st.decimals(-1000, 1000, allow_nan=False, places=5).map(str),
    st.from_regex(r"-?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
)


@settings(max_examples=300, deadline=None)
@given(decimals, decimals)
def test_boxes_enclose_the_decimals_as_tightly_as_float64_can(first: str, second: str) -> None:
    low, high = sorted((Fraction(first), Fraction(second)))
    texts = {Fraction(first): first, Fraction(second): second}
    text = f"(assert (>= X_0 {texts[low]}))(assert (<= X_0 {texts[high]}))(assert (<= Y_0 0))"
    box = box_of(parse_property("(declare-const X_0 Real)(declare-const Y_0 Real)" + text).cases[0])
    inner_low, inner_high = (
        box.lower if box.inner_lower is None else box.inner_lower,
        box.upper if box.inner_upper is None else box.inner_upper,
    )
    for exact, below, above in ((low, box.lower, inner_low), (high, inner_high, box.upper)):
        assert Fraction(float(below)) <= exact <= Fraction(float(above))
        assert float(above) in (float(below), np.nextafter(float(below), np.inf))
        assert (float(below) == float(above)) == (Fraction(float(below)) == exact)


@settings(max_examples=300, deadline=None)
@given(decimals, st.sampled_from(["<=", ">="]))
def test_the_unsafe_set_is_rounded_outwards_to_prove_and_inwards_to_refute(number: str, operator: str) -> None:
    (case,) = parse_property(f"{HEAD}(assert ({operator} Y_0 {number}))").cases
    assert isinstance(case, Case)
    assert case.unsafe.inner_bounds is not None
    exact = Fraction(number) * (1 if operator == "<=" else -1)
    assert Fraction(float(case.unsafe.inner_bounds)) <= exact <= Fraction(float(case.unsafe.bounds))


small = st.integers(-3, 3)
terms = st.recursive(
    st.one_of(small.map(str), st.sampled_from(["Y_0", "Y_1"])),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("+-"), st.lists(inner, min_size=1, max_size=3)).map(
            lambda p: f"({p[0]} {' '.join(p[1])})"
        ),
        st.tuples(small, inner).map(lambda p: f"(* {p[0]} {p[1]})"),
    ),
    max_leaves=6,
)
conditions = st.recursive(
    st.tuples(st.sampled_from(["<=", "<", ">=", ">", "="]), terms, terms).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda p: f"({p[0]} {' '.join(p[1])})"
    ),
    max_leaves=6,
)


def meaning(text: str, y: tuple[int, int]) -> bool:
    """Whether integer outputs satisfy a condition, by Python's own evaluation of it."""
    stack: list[list[object]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", text):
        if token == "(":
            stack.append([])
        elif token == ")":
            head, *rest = stack.pop()
            stack[-1].append(applied(str(head), rest))
        else:
            stack[-1].append({"Y_0": y[0], "Y_1": y[1]}.get(token, token if len(stack[-1]) == 0 else int_or(token)))
    return bool(stack[0][0])


def int_or(token: str) -> object:
    return int(token) if re.fullmatch(r"-?\d+", token) else token


def applied(head: str, rest: list[object]) -> object:
    if head in ("and", "or"):
        return (all if head == "and" else any)(rest)
    numbers = [int(str(v)) for v in rest]
    if head == "+":
        return sum(numbers)
    if head == "-":
        return -numbers[0] if len(numbers) == 1 else numbers[0] - sum(numbers[1:])
    if head == "*":
        return numbers[0] * numbers[1]
    return {"<=": le, "<": lt, ">=": ge, ">": gt, "=": eq}[head](*numbers)


@settings(max_examples=300, deadline=None)
@given(conditions)
def test_any_nesting_means_what_it_says_at_every_point(condition: str) -> None:
    truth = {y: meaning(condition, y) for y in product(range(-3, 4), repeat=2)}
    found = disjuncts(f"(or (<= Y_0 -100) {condition})")  # so that some point is unsafe
    for y, expected in truth.items():
        values = [[(sum(w * v for w, v in zip(c, y, strict=True)) - d, s) for c, d, s in atoms] for atoms in found]
        assert any(all(v < 0 if s else v <= 0 for v, s in atoms) for atoms in values) == expected


def test_deep_nesting_is_read_without_recursion() -> None:
    depth = 20_000
    assert disjuncts("(and (or " * depth + "(<= Y_0 1)" + "))" * depth) == [[([1.0, 0.0], 1.0, False)]]
    sums = "(+ 1 " * 2000 + "Y_0" + ")" * 2000
    assert disjuncts(f"(<= {sums} 2001)") == [[([1.0, 0.0], 1.0, False)]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f:1:1: the file holds no declarations; give"),
        ("; only a comment", "f:1:17: the file holds no declarations"),
        ("(assert", "f:1:8: the text ends inside a form that starts at line 1; expected ')'"),
        ("\n  )", "f:2:3: found ')' where a form must start; expected '('"),
        ("x", "f:1:1: found 'x' where a form must start"),
        ("()(declare-const X_0 Real)", "f: the output Y_0 is not declared"),
        ("((declare-const X_0 Real))", "f:1:3: the operator 'declare-const' is not supported"),
        ("(declare-const X_0 Int)", "f:1:1: found (declare-const X_0 Int); expected (declare-const NAME Real)"),
        ("(declare-const Z_0 Real)", "f:1:16: the variable 'Z_0' is neither an input X_0"),
        ("(declare-const X_01 Real)", "f:1:16: the variable 'X_01' is neither"),
        ("(declare-const X_0 Real)\n(declare-const X_0 Real)", "f:2:16: X_0 is declared twice"),
        ("(declare-const X_1 Real)(declare-const Y_0 Real)", "f: the input X_0 is not declared, of 1 inputs"),
        ("(declare-const X_0 Real)", "f: the output Y_0 is not declared, of 0 outputs"),
        ("(assert (<= X_0 1))", "f:1:13: 'X_0' is not declared; declare it first"),
        (HEAD + "(assert (<= Y_0 Z))", "f:6:17: 'Z' is not a variable or a number"),
        (HEAD + "(assert (<= Y_0 nan))", "f:6:17: 'nan' is not a variable or a number"),
        (HEAD + "(assert (<= Y_0 1.5.2))", "f:6:17: '1.5.2' is not a variable or a number"),
        (HEAD + "(assert (<= Y_0 1e400))", "f:6:17: the number 1e400 is out of range"),
        (HEAD + "(assert (<= Y_0 1e-99999))", "f:6:17: the number 1e-99999 is out of range"),
        (HEAD + "(assert\n  (<= (* Y_0 Y_1) 1))", "f:7:7: a product of variables (Y_0 and Y_1) is not linear"),
        (HEAD + "(assert (<= (* X_0 Y_1) 1))", "f:6:13: a product of variables (X_0 and Y_1) is not linear"),
        (HEAD + "(assert (<= (/ 1 Y_1) 1))", "f:6:13: a division by Y_1 is not linear"),
        (HEAD + "(assert (<= (/ 1 0.0) 1))", "f:6:13: a division by zero"),
        (HEAD + "(assert (<= (exp Y_0) 1))", "f:6:14: the operator 'exp' is not supported; supported: and, or,"),
        (HEAD + "(assert (not (<= Y_0 1)))", "f:6:10: the operator 'not' is not supported"),
        (HEAD + "(assert (<= (+ X_0 X_1) 1))", "f:6:9: a condition on several inputs together (X_0, X_1)"),
        (HEAD + "(assert (<= X_0 Y_0))", "f:6:9: one condition on inputs and outputs together (X_0, Y_0)"),
        (HEAD + "(assert (<= (* 0.12345678901234567 Y_0) Y_1))", "f:6:9: the coefficient"),
        (HEAD + "(assert (<= Y_0))", "f:6:9: <= has 1 arguments; expected at least two terms"),
        (HEAD + "(assert (and))", "f:6:9: and has no arguments"),
        (HEAD + "(assert)", "f:6:1: assert has 0 arguments; expected one condition"),
        (HEAD + "(assert Y_0)", "f:6:9: found 'Y_0'; expected a condition"),
        (HEAD + "(assert (+ Y_0 1))", "f:6:1: found a term"),
        (HEAD + "(assert (and Y_0))", "f:6:14: found 'Y_0'; expected a condition"),
        (HEAD + "(assert (+ (<= Y_0 1)))", "f:6:9: found a condition"),
        (HEAD + "(assert ((<= Y_0 1)))", "f:6:10: found a form where a word must stand"),
        (HEAD + "(push 1)", "f:6:2: the command 'push' is not supported; supported: declare-const"),
        (HEAD + "(assert (<= X_0 -1))", "f: the input region is empty: X_0 has lower bound 0, upper bound -1"),
        (HEAD + "(assert (< X_0 0))", "f: the input region is empty: X_0 has lower bound 0, upper bound < 0"),
        (HEAD + "(assert (or (<= X_0 -1) (>= X_0 1.5)))", "region is empty: X_0 has lower bound 1.5, upper bound 1"),
        (HEAD + "(assert (<= 1 0))", "f: the assertions contradict each other"),
        (
            TWO_BY_TWO + "(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= X_1 1))",
            "not bounded: X_1 has no lower bound",
        ),
        (TWO_BY_TWO, "not bounded: X_0 has no lower bound"),
        (
            HEAD + "(assert (and " + "(or (<= Y_0 1) (<= Y_1 1)) " * 20 + "))",
            "f:6:9: the property has 131072 disjuncts",
        ),
        ("(vnnlib-version <3.0>)", "f:1:17: the version <3.0> is not known; allowed: <1.0>, <2.0>"),
        ("(vnnlib-version)", "f:1:16: the version ) is not known"),
    ],
)
def test_a_wrong_text_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(PropertyError, match=re.escape(message)):
        parse_property(text, path="f")


@pytest.mark.parametrize("packed", [False, True])
def test_files_are_read_plain_and_packed_with_the_digest_of_their_bytes(tmp_path: Path, packed: bool) -> None:
    content = (HEAD + "(assert (<= Y_0 1))").encode()
    raw = gzip.compress(content) if packed else b"\xef\xbb\xbf" + content
    path = tmp_path / "p.vnnlib"
    path.write_bytes(raw)
    found = read_property(path)
    assert (found.path, found.sha256) == (str(path), hashlib.sha256(raw).hexdigest())
    assert plain(found)[0][1] == [[([1.0, 0.0], 1.0, False)]]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "there is no such file"),
        (b"", "1:1: the file holds no declarations"),
        (b"; fine\n(assert \xff\xfe)", r":2: byte 15 is 0xff, which is not UTF-8 text"),
        (gzip.compress(b"(declare-const X_0 Real)", mtime=0)[:-6], "the gzip data is damaged"),
        (b"\x1f\x8bnot gzip at all", "the gzip data is damaged"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, raw: bytes | None, message: str) -> None:
    path = tmp_path / "p.vnnlib"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(PropertyError, match=message):
        read_property(path)
    with pytest.raises(PropertyError, match="this is a folder"):
        read_property(tmp_path)


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaktight.specs.vnnlib.FILE_SIZE", 1000)
    path = tmp_path / "bomb.vnnlib.gz"
    path.write_bytes(gzip.compress(b" " * 100_000))
    with pytest.raises(PropertyError, match="holds more than 1000 bytes"):
        read_property(path)


def test_the_time_to_read_grows_with_the_size_of_a_file_and_no_faster() -> None:
    """Three megabytes take about ten times as long as a tenth of that; what is quadratic takes a hundred times."""

    def seconds(size: int) -> float:
        rng = random.Random(0)
        lines = [f"(declare-const X_{i} Real)" for i in range(size)] + ["(declare-const Y_0 Real)"]
        for i in range(size):
            low = rng.random()
            lines += [f"(assert (<= X_{i} {low + 0.1!r}))", f"(assert (>= X_{i} {low!r}))"]
        text = "\n".join([*lines, "(assert (<= Y_0 0.5))"])
        start = time.process_time()
        assert box_of(parse_property(text).cases[0]).size == size
        return time.process_time() - start

    assert seconds(27_000) < 40 * min(seconds(2_700) for _ in range(3))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4),
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=4),
)
def test_a_written_counterexample_reads_back_exactly(inputs: list[float], outputs: list[float]) -> None:
    text = format_counterexample(np.array([inputs]), np.array(outputs, dtype=np.float32))
    pairs = re.findall(r"\(([XY]_\d+) (\S+?)\)", text)
    names = [f"X_{i}" for i in range(len(inputs))] + [f"Y_{i}" for i in range(len(outputs))]
    assert [name for name, _ in pairs] == names
    assert [float(value) for _, value in pairs] == [*inputs, *outputs]
    assert text.count("(") == text.count(")") == len(pairs) + 1


VERSION_2 = """(vnnlib-version <2.0>)
(declare-network net
  (declare-input A float32 [1, 2])
  (declare-input B real [2])
  (declare-output Y float32 [2])
)
"""
BOUNDS_2 = """(assert (and (<= A[0,0] 1.0) (>= A[0,0] -1.0) (<= A[0,1] 2.5e-1) (>= A[0,1] 1e-1)))
(assert (and (<= B[0] 0.5) (>= B[0] 0.0) (== B[1] 0.75)))
"""


def test_version_2_declares_tensors_which_are_flattened_in_order() -> None:
    found = parse_property(VERSION_2 + BOUNDS_2 + "(assert (or (<= Y[0] (* 2.0 Y[1])) (!= Y[1] (- 3.0))))")
    ((box, unsafe),) = plain(found)
    assert box == [[-1.0, np.nextafter(0.1, 0), 0.0, 0.75], [1.0, 0.25, 0.5, 0.75]]
    assert sorted(unsafe) == [[([0.0, -1.0], 3.0, True)], [([0.0, 1.0], -3.0, True)], [([1.0, -2.0], 0.0, False)]]
    assert [(v.name, v.shape, v.dtype) for v in (*found.inputs, *found.outputs)] == [
        ("A", (1, 2), "float32"),
        ("B", (2,), "real"),
        ("Y", (2,), "float32"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VERSION_2 + BOUNDS_2 + "(assert (<= (* Y[0] Y[1]) 1.0))", "f: a product of variables (Y[0] and Y[1])"),
        (VERSION_2 + BOUNDS_2 + "(assert (<= Q[0] 1.0))", "f:9: Undeclared variable (Q)"),
        (VERSION_2 + BOUNDS_2 + "(assert (<= Y[7] 1.0))", "f:9: Index out of bounds"),
        (VERSION_2 + BOUNDS_2 + "(assert (<= Y[0] ))", "f:9:17: syntax error at ')'; expected VNN-LIB 2.0"),
        (VERSION_2 + "(assert (<= Y[0] 1.0))", "f: the input region is not bounded: A[0,0] has no lower bound"),
        (VERSION_2 + BOUNDS_2 + "(assert (<= B[0] -1.0))", "f: the input region is empty: B[0] has lower bound 0"),
        (
            VERSION_2.replace("float32 [2]", "int32 [2]") + BOUNDS_2 + "(assert (<= Y[0] 1))",
            "Y has the element type I32",
        ),
        (
            VERSION_2.replace("(declare-output", '(declare-hidden H real [1] "h")\n(declare-output')
            + BOUNDS_2
            + "(assert (<= Y[0] 1.0))",
            "f: the hidden node 'H' is declared; conditions on hidden nodes are not supported",
        ),
        (
            VERSION_2
            + "(declare-network two (declare-input C real [1]) (declare-output Z real [1]))\n(assert (<= Y[0] 1.0))",
            "f: the property is about 2 networks",
        ),
        (
            VERSION_2 + "(assert " + "(and " * 100_000 + "(<= Y[0] 1.0)" + ")" * 100_001,
            "f: parentheses are nested 100002",
        ),
    ],
)
def test_a_wrong_version_2_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(PropertyError, match=re.escape(message)):
        parse_property(text, path="f")


def bench_files() -> list[Path]:
    return sorted(BENCH.glob("*/vnnlib/**/*.vnnlib*"))


@pytest.mark.skipif(not BENCH.is_dir(), reason="the public benchmarks are not beside the repository")
def test_a_share_of_the_public_benchmarks_parses_to_bounded_boxes() -> None:
    files = bench_files()
    chosen = files[::12] + sorted(files, key=lambda path: path.stat().st_size)[-3:]
    assert len(chosen) > 100
    for path in chosen:
        found = read_property(path)
        text = path.read_text()
        assert found.cases
        for case in found.cases:
            box = box_of(case)
            assert box.size == len(re.findall(r"declare-const\s+X_", text))
            assert isinstance(case, Case)
            assert case.unsafe.weights.shape[-1] == len(re.findall(r"declare-const\s+Y_", text))

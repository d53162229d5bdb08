"""Properties: margins, unsafe sets and the fit to a network, against brute force."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leaktight.errors import PropertyError
from leaktight.specs.declared import Variable
from leaktight.specs.property import Case, Label, LabelCase, Property, robust
from leaktight.specs.region import Ball, Box
from leaktight.specs.unsafe import Unsafe, misclassified


def doubles(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


halves = st.integers(-8, 8).map(lambda k: k / 2)


@st.composite
def unsafe_sets(draw: st.DrawFn) -> tuple[Unsafe, list[list[tuple[list[float], float, bool]]]]:
    """An unsafe set, and the same as nested lists: disjuncts of atoms (weights, bound, strict)."""
    outputs = draw(st.integers(1, 4))
    atom = st.tuples(st.lists(halves, min_size=outputs, max_size=outputs), halves, st.booleans())
    plain = draw(st.lists(st.lists(atom, min_size=1, max_size=3), min_size=1, max_size=4))
    atoms = [a for conjunction in plain for a in conjunction]
    disjunct = [i for i, conjunction in enumerate(plain) for _ in conjunction]
    order = draw(st.permutations(range(len(atoms))))
    return Unsafe(
        torch.tensor([[atoms[i][0] for i in order]], dtype=torch.float64),
        torch.tensor([[atoms[i][1] for i in order]], dtype=torch.float64),
        torch.tensor([disjunct[i] for i in order]),
        torch.tensor([atoms[i][2] for i in order]),
    ), plain


@settings(max_examples=300, deadline=None)
@given(unsafe_sets(), st.data())
def test_margin_and_membership_are_those_of_the_definition(
    pair: tuple[Unsafe, list[list[tuple[list[float], float, bool]]]], data: st.DataObject
) -> None:
    unsafe, plain = pair
    outputs = unsafe.weights.shape[-1]
    y = data.draw(st.lists(halves, min_size=outputs, max_size=outputs))
    values = [[(sum(w * v for w, v in zip(c, y, strict=True)) - d, s) for c, d, s in atoms] for atoms in plain]
    point = torch.tensor([y], dtype=torch.float64)
    assert float(unsafe.margin(point)) == min(max(value for value, _ in conjunction) for conjunction in values)
    inside = any(all(value < 0 if strict else value <= 0 for value, strict in conjunction) for conjunction in values)
    assert bool(unsafe.holds(point)) == inside
    assert bool(unsafe.holds(point.float())) == inside


def test_a_batch_of_conditions_is_judged_row_by_row() -> None:
    unsafe = misclassified(torch.tensor([0, 2]), 3)
    y = torch.tensor([[3.0, 1.0, 2.5], [0.0, 0.5, 0.25]], dtype=torch.float64)
    assert unsafe.margin(y).tolist() == [0.5, -0.25]
    assert unsafe.holds(y).tolist() == [False, True]
    assert unsafe.select(torch.tensor([1])).margin(y[1:]).tolist() == [-0.25]


@settings(max_examples=200, deadline=None)
@given(st.lists(halves, min_size=2, max_size=6), st.data())
def test_misclassified_is_the_lead_over_the_best_other_class(scores: list[float], data: st.DataObject) -> None:
    label = data.draw(st.integers(0, len(scores) - 1))
    unsafe = misclassified(torch.tensor([label]), len(scores))
    y = torch.tensor([scores], dtype=torch.float64)
    lead = scores[label] - max(score for i, score in enumerate(scores) if i != label)
    assert float(unsafe.margin(y)) == lead
    assert bool(unsafe.holds(y)) == (lead <= 0)


def test_undefined_outputs_are_in_no_unsafe_set() -> None:
    unsafe = misclassified(torch.tensor([0]), 2)
    assert not bool(unsafe.holds(torch.tensor([[float("nan"), 1.0]])))


def test_bounds_rounded_up_prove_and_bounds_rounded_down_refute() -> None:
    above, below = 0.1, 0.1 - 2**-56
    one = doubles([1.0]).unsqueeze(0)
    unsafe = Unsafe(one, doubles([above]), torch.tensor([0]), inner_bounds=doubles([below]))
    assert float(unsafe.margin(doubles([above]))) == 0
    assert not bool(unsafe.holds(doubles([above])))
    assert bool(unsafe.holds(doubles([below])))
    assert unsafe.select(slice(0, 1)).inner_bounds is unsafe.inner_bounds


def test_an_unsafe_set_without_disjuncts_is_empty() -> None:
    nothing = Unsafe(torch.zeros(1, 0, 2).double(), torch.zeros(1, 0).double(), torch.zeros(0, dtype=torch.long))
    assert nothing.margin(torch.zeros(3, 2).double()).tolist() == [torch.inf] * 3
    assert not bool(nothing.holds(torch.zeros(3, 2)).any())


def test_robust_takes_one_input_of_any_shape() -> None:
    image = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    found = robust(image, 1, 0.5, clip=(0, 10))
    assert isinstance(found.region, Box)
    assert found.region.lower.tolist() == [[0.0, 0.5, 1.5, 2.5, 3.5, 4.5]]
    (case,) = found.fitted(6, 2)
    assert case.unsafe.weights.tolist() == [[[-1.0, 1.0]]]
    assert isinstance(robust(image, 1, 0.5, norm=2).region, Ball)


def box(entries: int, batch: int = 1) -> Box:
    return Box(torch.zeros(batch, entries).double(), torch.ones(batch, entries).double())


@dataclass(frozen=True)
class Port:
    name: str
    shape: tuple[int, ...]


def two_tensors(given: bool = False) -> Property:
    """About inputs a (2 entries) and b (1), whose lower bounds are 0, 1, 2, and outputs p (1) and q (1)."""
    low = doubles([0.0, 1.0, 2.0])
    unsafe = Unsafe(doubles([5.0, 7.0]).unsqueeze(0), doubles([0.0]), torch.tensor([0]))
    inputs = (Variable("a", (1, 2), given=given), Variable("b", (1,), given=given))
    outputs = (Variable("p", (1,)), Variable("q", (1,)))
    return Property((Case(Box(low, low + 1), unsafe),), "f.vnnlib", None, inputs, outputs)


def test_declared_tensors_are_matched_by_name() -> None:
    found = two_tensors().arranged([Port("b", (1,)), Port("a", (1, 2))], [Port("q", (1,)), Port("p", (1,))])
    (case,) = found.fitted(3, 2)
    assert case.region.lower.tolist() == [[2.0, 0.0, 1.0]]
    assert case.unsafe.weights.tolist() == [[[7.0, 5.0]]]


def test_declared_tensors_with_other_names_are_matched_by_position() -> None:
    found = two_tensors().arranged([Port("in", (2,)), Port("b", (1, 1))], [Port("out", (1,)), Port("more", (1,))])
    assert found.region.lower.tolist() == [[0.0, 1.0, 2.0]]


def nothing_declared() -> Property:
    return robust(torch.zeros(3), 0, 0.1)


def test_a_property_without_declared_tensors_fits_any_arrangement() -> None:
    given = nothing_declared()
    assert given.arranged([Port("b", (1,)), Port("a", (1, 2))], [Port("q", (2,))]) is given


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: two_tensors().arranged([Port("a", (1, 3))], []), r"f.vnnlib: input: .* declares 2 \(a, b\)"),
        (lambda: two_tensors().arranged([Port("a", (2, 2)), Port("b", (1,))], []), r"input 'a' has the shape \[1, 2\]"),
        (lambda: two_tensors(given=True).arranged([Port("x", (1, 2)), Port("y", (1,))], []), "none called .a."),
        (lambda: nothing_declared().fitted(4, 10), "3 input variables, but the network has 4 inputs"),
        (lambda: nothing_declared().fitted(3, 1), "at least 2 outputs; this one has 1"),
        (lambda: robust(torch.zeros(3), 10, 0.1).fitted(3, 10), "label 10 .* the classes 0 to 9"),
        (lambda: robust(torch.zeros(3), -1, 0.1).fitted(3, 10), "label -1 .* out of range"),
        (lambda: robust(torch.zeros(3), 0, -0.1), "radius .* must be a finite number >= 0"),
        (lambda: robust([float("nan")], 0, 0.1), "NaN or infinite"),
        (lambda: two_tensors().fitted(3, 5), "2 output variables, but .* has 5 outputs"),
        (lambda: Property((LabelCase(box(3, 2), Label(torch.tensor([1]))),)).fitted(3, 4), "2 regions, but .* for 1"),
        (
            lambda: Property((Case(box(3, 3), misclassified(torch.tensor([0, 1]), 4)),)).fitted(3, 4),
            "3 regions, but .* 2",
        ),
        (lambda: Property((Case(box(1), misclassified(torch.tensor([0]), 2)),) * 2).region, "about 2 regions"),
        (
            lambda: Unsafe(torch.full((1, 1, 1), torch.nan), torch.zeros(1, 1), torch.zeros(1).long()),
            "infinite numbers",
        ),
    ],
)
def test_properties_that_do_not_fit_are_refused_with_both_numbers(make: object, message: str) -> None:
    with pytest.raises(PropertyError, match=message):
        make()  # type: ignore[operator]

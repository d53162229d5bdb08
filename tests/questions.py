"""Small questions whose answers are known exactly: random networks of two inputs with few neurons, in short binary
fractions, so that the rational oracle is quick."""

from __future__ import annotations

from dataclasses import replace

import torch
from networks import Draft
from rational import Fraction, smallest_margin
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Clip, Linear, Maximum, Reshape, Sum, TwoSlope, leaky_relu
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Box
from leaktight.specs.unsafe import Unsafe

SHAPES = ("chain", "residual", "per channel", "kinked", "clipped", "maximum")
FIXED = 14  # inputs that a padded question has besides the two that vary: too many for halving boxes


def coarse(x: Tensor, parts: int = 16) -> Tensor:
    """Rounded to multiples of 1/parts, for short fractions."""
    return (x * parts).round() / parts


class Coarse(Draft):
    """A draft whose numbers are short binary fractions."""

    def dense(self, source: str, out: int, scale: float = 1.5) -> str:
        width = self.shape(source)[-1]
        return self.add(
            Linear(coarse(self.normal(out, width, scale=scale)), coarse(self.normal(out, scale=0.7))), source
        )

    def slope(self, *shape: int) -> Tensor:
        return coarse(self.uniform(-2, 3, *shape), 8)


def tiny_network(shape: str, seed: int, width: int = 3, inputs: int = 2) -> Network:
    """Two hidden layers of `width` activations, with slopes anywhere in [-2, 3]."""
    draft = Coarse(seed)
    x = draft.input(1, inputs)
    z = draft.dense(x, width)
    if shape == "per channel":
        a = draft.add(leaky_relu(draft.slope(width)), z)
        b = draft.add(leaky_relu(draft.slope(width)), draft.dense(a, width))
    elif shape == "residual":
        a = draft.add(leaky_relu(float(draft.slope(1))), z)
        inner = draft.dense(a, width, 1.0)
        b = draft.add(leaky_relu(float(draft.slope(1))), draft.add(Sum((1, -1)), inner, z))
    elif shape == "kinked":
        parameters = lambda: (draft.slope(width), draft.slope(width), coarse(draft.normal(width) / 2))  # noqa: E731
        a = draft.add(TwoSlope(*parameters(), coarse(draft.normal(width))), z)
        b = draft.add(TwoSlope(*parameters(), coarse(draft.normal(width))), draft.dense(a, width))
    elif shape == "clipped":
        a = draft.add(Clip(-0.5, 0.75), z)
        b = draft.add(leaky_relu(0.125), draft.dense(a, width))
    elif shape == "maximum":
        pairs = draft.add(Reshape((1, 6), (1, 2, 3)), draft.dense(x, 6))
        b = draft.add(leaky_relu(-0.5), draft.dense(draft.add(Maximum(), pairs), width))
    else:
        a = draft.add(leaky_relu(float(draft.slope(1))), z)
        b = draft.add(leaky_relu(float(draft.slope(1))), draft.dense(a, width))
    return draft.network(draft.dense(b, 2))


def tiny_case(seed: int) -> Case:
    """A box around a random point, and two or three atoms in one or two disjuncts."""
    draft = Coarse(seed + 10**6)
    centre, radius = coarse(draft.normal(1, 2)), coarse(draft.uniform(0.2, 1.2, 1, 2)) + 1 / 16
    disjunct = torch.tensor(((0, 0, 1), (0, 1), (0, 0))[seed % 3])
    weights = coarse(draft.normal(1, len(disjunct), 2))
    return Case(
        Box(centre - radius, centre + radius), Unsafe(weights, torch.zeros(1, len(disjunct)).double(), disjunct)
    )


def shifted(case: Case, by: float) -> Case:
    """The case with its margin lowered: ``m - by``."""
    return replace(case, unsafe=replace(case.unsafe, bounds=case.unsafe.bounds + by))


def padded(case: Case) -> Case:
    """The case of a network with `FIXED` inputs more, which do not move."""
    rest = coarse(Coarse(len(case.unsafe.disjunct)).normal(1, FIXED))
    return replace(case, region=Box(*(torch.cat([wall, rest], 1) for wall in (case.region.lower, case.region.upper))))


def tiny_question(shape: str, seed: int, gap: float, *, wide: bool = False) -> tuple[Network, Property, Fraction]:
    """A network, a property that holds, or fails, by about `gap` times its margin's size, and its exact least margin.

    `wide`: with inputs that do not move, so many that a search splits neurons rather than boxes of inputs.
    """
    network, case = tiny_network(shape, seed, inputs=2 + FIXED if wide else 2), tiny_case(seed)
    case = padded(case) if wide else case
    least = smallest_margin(network, case)
    holds = seed % 2 == 0
    shift = float(least) + (-gap if holds else gap) * (1 + abs(float(least)))
    moved = shifted(case, shift)
    exact = smallest_margin(network, moved)
    assert (exact > 0) == holds
    return network, Property((moved,)), exact

"""Lines that turn row by row: below the activation for every tilt, and the same as lines made for that tilt."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from networks import KINDS, Draft, build

from leaktight.models.network import Network
from leaktight.models.ops import Linear, Sum, leaky_relu
from leaktight.specs.region import Box, ball
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import intermediate_bounds, plain_rows
from leaktight.verify.bounds.optimise import default_tilts
from leaktight.verify.bounds.rows import rows_on_outputs

ONE = torch.ones(1, 1, dtype=torch.float64)


class Rebuilt(Backward):
    """Passes that make all lines anew for their tilts."""


def minus(slope: float, factor: float) -> Network:
    """``f(z) - factor z``."""
    draft = Draft(0)
    z = draft.add(Linear(ONE, None), draft.input(1, 1))
    return draft.network(
        draft.add(Sum((1, 1)), draft.add(leaky_relu(slope), z), draft.add(Linear(-factor * ONE, None), z))
    )


@pytest.mark.parametrize("ends", [(-3.0, 1.0), (-1.0, 3.0)])
@pytest.mark.parametrize("slope", [0.0, 0.01, 0.1, 0.7, 1.0])
def test_no_tilt_gives_more_than_the_least_value(slope: float, ends: tuple[float, float]) -> None:
    for factor in (-1.0, 0.0, 2.0):
        network, region = minus(slope, factor), Box(ends[0] * ONE, ends[1] * ONE)
        exact = min(
            Fraction(max(z, 0.0)) + Fraction(slope) * Fraction(min(z, 0.0)) - Fraction(factor) * Fraction(z)
            for z in (*ends, 0.0)
        )
        known = intermediate_bounds(network, region, 2**30, refine=plain_rows)
        (name,) = (node.name for node in network if node.name.startswith("TwoSlope"))
        found = []
        for tilt in (-2.0, 0.0, 0.3, 1.0, 3.0):
            backward = Backward(network, region, known, {name: tilt * ONE.unsqueeze(1)})
            found.append(Fraction(float(backward.lower(*rows_on_outputs(network, ONE.unsqueeze(0))))))
        assert max(found) <= exact
        assert float(exact - max(found)) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_turning_in_a_pass_is_as_good_as_making_the_lines_anew(kind: str) -> None:
    for seed in range(3):
        network, generator = build(kind, seed), torch.Generator().manual_seed(seed)
        centre = torch.randn(4, network.input_size, generator=generator).double()
        region, rows = ball(centre, 0.3), torch.randn(4, 3, network.output_size, generator=generator).double()
        known = intermediate_bounds(network, region, 2**30, refine=plain_rows)
        tilts = {name: torch.rand_like(tilt) for name, tilt in default_tilts(network, known, 3).items()}
        starts = rows_on_outputs(network, rows)
        one, other = (way(network, region, known, tilts).lower(*starts) for way in (Backward, Rebuilt))
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)

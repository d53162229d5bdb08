"""Networks whose slope moves: what they compute at a slope without any rounding, and what to ask of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from networks import Draft, _exact, build
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Scale, TwoSlope
from leaktight.models.simplify import simplify
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Box, Norm, Region, ball

RANGES = ((0.0, 0.3), (0.1, 0.1 + 1e-9), (-1.5, -0.2), (-0.4, 0.7), (0.5, 1.0), (0.8, 2.5), (1.1, 1.9), (0.0, 0.0))
EXACT_KINDS = (
    "fully_connected",
    "relu_only",
    "per_channel",
    "convolutional",
    "transposed",
    "residual",
    "several_inputs",
    "several_outputs",
    "scaled",
    "max_pool",
    "average_pool",
    "rearranged",
    "affine_only",
    "flipped",
)


def flipped(seed: int) -> Network:
    """Scales of both signs around activations, which take them in when the network is simplified."""
    draft = Draft(seed)
    at = draft.input(1, 5)
    for slope in (draft.uniform(0.1, 0.6, 5), None, None):
        at = draft.add(Scale(draft.choose((-1.5, -0.7, 0.9, 1.3), 5), draft.normal(5, scale=0.2)), at)
        at = draft.add(Scale(draft.choose((-1.5, -0.7, 0.9, 1.3), 5), draft.normal(5)), draft.leaky(at, slope))
        at = draft.leaky(at)
    return draft.network(draft.linear(draft.linear(at, 5), 3))


@dataclass(frozen=True, eq=False)
class Question:
    """A network as it was made (`plain`) and simplified, one region for each range of slopes, and objectives."""

    plain: Slopes
    slopes: Slopes
    region: Region
    objectives: Tensor
    lo: Tensor
    hi: Tensor
    generator: torch.Generator

    @property
    def network(self) -> Network:
        return self.slopes.network

    def draw(self) -> tuple[Tensor, Tensor]:
        """A point ``(n,)`` of each region and a slope of each range, often at its end."""
        share = torch.rand(len(self.lo), generator=self.generator, dtype=torch.float64) * 1.4 - 0.2
        a = self.lo + share.clamp(0, 1) * (self.hi - self.lo)
        return self.region.sample(self.generator), torch.minimum(torch.maximum(a, self.lo), self.hi)


def ask(kind: str, seed: int, norm: Norm = Norm.LINF, radius: float = 0.3) -> Question:
    network = flipped(seed) if kind == "flipped" else build(kind, seed)
    generator = torch.Generator().manual_seed(seed)
    lo, hi = torch.tensor(RANGES, dtype=torch.float64).unbind(1)
    centre = torch.randn(len(lo), network.input_size, generator=generator, dtype=torch.float64)
    size = radius * torch.rand(len(lo), generator=generator, dtype=torch.float64)
    objectives = torch.randn(len(lo), 3, network.output_size, generator=generator, dtype=torch.float64)
    region = Box(centre - size[:, None], centre + size[:, None]) if norm is Norm.LINF else ball(centre, size, norm)
    names = Slopes.of(network).nodes
    return Question(Slopes.of(network), Slopes.of(simplify(network), names), region, objectives, lo, hi, generator)


Slope = Fraction | Mapping[str, Sequence[Fraction]]


def exact_at(slopes: Slopes, point: Sequence[Fraction], a: Slope) -> list[Fraction]:
    """All output entries of an unsimplified network at a slope, in rational arithmetic.

    `a` may be a slope for every entry of every chosen node.
    """
    network = slopes.network
    known: dict[str, list[Fraction]] = {}
    entries = list(point)
    for port in network.inputs:
        known[port.name], entries = entries[: port.size], entries[port.size :]
    for node in network:
        if node.name in known:
            continue
        given = [known[name] for name in node.inputs]
        if node.name not in slopes.nodes:
            known[node.name] = _exact(network, node, given)
            continue
        assert isinstance(node.op, TwoSlope)
        assert node.op.leak is not None
        trained = node.op.leak.slope
        own = Fraction(float(trained.mean()))
        single = trained.unique().numel() == 1
        each = [a] * node.size if isinstance(a, Fraction) else a[node.name]
        given_slopes = zip(each, trained.expand(node.shape).flatten().tolist(), strict=True)
        factors = [s if single else s * Fraction(p) / own for s, p in given_slopes]
        known[node.name] = [z if z >= 0 else s * z for z, s in zip(given[0], factors, strict=True)]
    return [y for port in network.outputs for y in known[port.name]]


def exact_rows(question: Question, i: int, x: Tensor, a: float | Mapping[str, Sequence[Fraction]]) -> list[Fraction]:
    """``objectives . f(x; a)`` of region ``i``, without rounding."""
    slope = a if isinstance(a, Mapping) else Fraction(a)
    y = exact_at(question.plain, [Fraction(v) for v in x.tolist()], slope)
    return [
        sum((Fraction(c) * v for c, v in zip(row, y, strict=True)), Fraction(0))
        for row in question.objectives[i].tolist()
    ]

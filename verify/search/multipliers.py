"""Domains with decisions, lines that turn and multipliers: what they all share, and what one of them is worth.

Quick passes say how good a domain's variables are (`leaktight.verify.search.relaxed`); what is proved by them is said
by `leaktight.verify.search.proof`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.region import Region
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.search.activations import Activations
from leaktight.verify.search.batch import Batch
from leaktight.verify.search.implied import Implied, implied
from leaktight.verify.search.lines import QUICK, Lines, Shape
from leaktight.verify.search.passes import Replayed
from leaktight.verify.search.proof import Proof
from leaktight.verify.search.questions import Questions
from leaktight.verify.search.reduced import Reduced, kept_neurons
from leaktight.verify.search.relaxed import Relaxed
from leaktight.verify.search.splits import Domains, packed, unpacked

_CURVED = 0.3  # see `Bounding.worth`: of the first layer, where parabolas have most of it already


class Bounding:
    """Everything about one case that domains share: the network, its root bounds, the questions, the neurons.

    known: intervals of all nodes over the regions. `columns` ``(neurons,)``: which of all neurons may be split, those
    that not every region's intervals show linear; `spots`: their places among those that quick passes keep.
    backward: the passes that prove, by default those of the network; those of a family of networks with the same kinks
    prove for all of them. floors ``(questions,)``: proven lower bounds of the questions' margins, from elsewhere. worth
    ``(neurons,)``: how much of what splitting a neuron gains for lines it gains for what is proven, about.
    """

    def __init__(
        self,
        network: Network,
        region: Region,
        known: Mapping[str, Interval],
        questions: Questions,
        backward: Backward | None = None,
        *,
        floors: Tensor | None = None,
    ) -> None:
        self.network, self.region, self.known, self.questions = network, region, known, questions
        self.floors = floors
        self.worth: Tensor | float = 1.0
        self.activations = Activations.of(network)
        self.base = self.activations.joined(known)
        kept, cheaper = kept_neurons(network, self.activations, self.base)
        self.relaxed = (
            Reduced(network, self.activations, self.base, kept) if cheaper else Relaxed(network, self.activations)
        )
        kink = self.activations.kink
        bent = (self.base.lower < kink) & (self.base.upper > kink) & (self.activations.left != self.activations.right)
        self.columns = bent.any(0).nonzero().flatten()
        self.spots = torch.searchsorted(self.relaxed.places, self.columns)
        self.bending = Lines(*(p[self.columns] for p in self.activations.parameters))
        self.implied: Implied | None = None
        self.backward = Backward(network, region, known) if backward is None else backward
        lines, places = self.relaxed.lines, self.relaxed.places
        self.proof = Proof(network, known, questions, self.activations, lines, places, self.backward)
        self._shape = self.relaxed.shape(self.base)
        self.quick_region = region.to(QUICK)
        self.quick_weights = questions.weights.to(QUICK)
        self.quick_bounds = questions.bounds.to(QUICK)

    @cached_property
    def tolerance(self) -> Tensor:
        """How far above zero a quick value should be for each question, ``(questions,)``."""
        size = (self.questions.weights.abs() @ self.proof.reach.unsqueeze(-1)).squeeze(-1)
        return (1e-6 * size.amax(1)).to(QUICK)

    def first(self) -> Domains:
        """One domain without decisions for each question."""
        count = len(self.questions.region)
        z = self.base.select(self.questions.region)
        right = z.upper - self.activations.kink > self.activations.kink - z.lower
        nothing = torch.zeros(count, 0)
        return Domains(
            torch.arange(count, dtype=torch.int32),
            torch.full((count,), -torch.inf, dtype=torch.float64) if self.floors is None else self.floors.clone(),
            nothing.to(torch.int32),
            nothing.bool(),
            nothing,
            packed(right[:, self.columns].float()),
            self.questions.real.float() / self.questions.real.sum(1, keepdim=True),
        )

    def unpacked(self, domains: Domains) -> Batch:
        owner, sign = domains.owner.long(), domains.sign
        at = self.questions.region[owner]
        column = self.spots[domains.neuron.long().clamp(min=0)] if domains.depth else domains.neuron.long()
        shape = self._cut_shape(at, column, sign)
        within = self._narrowed(at, domains.neuron.long(), sign)
        if within is not None:
            self._lay_around(within, shape)
        some, lines = self.spots, self.relaxed.lines
        ray = shape.chord.clone()
        turned = torch.addcmul(lines.left[some], unpacked(domains.turn), lines.gap[some])
        ray[:, some] = torch.clamp(turned, shape.least[:, some], shape.most[:, some])
        region = self.quick_region if self.quick_region.batch == 1 else self.quick_region.select(at)
        multiplier, mix = domains.multiplier.clone(), domains.mix.clone()
        return Batch(owner, shape, region, ray, multiplier, column, sign, mix, within)

    def _cut_shape(self, at: Tensor, column: Tensor, sign: Tensor) -> Shape:
        """The regions' neurons, those exact that decisions name."""
        shape = self._shape.select(at)
        if column.shape[1]:
            # where there is no decision the first one stands again: no place is written twice with different values
            column, side = (torch.where(sign == 0, x[:, :1], x) for x in (column, sign))
            exact = torch.where(side > 0, self.relaxed.lines.right[column], self.relaxed.lines.left[column])
            for lines in (shape.chord, shape.least, shape.most):
                lines.scatter_(1, column, torch.where(side == 0, lines.gather(1, column), exact))
            shape.sink.scatter_(1, column, torch.where(side == 0, shape.sink.gather(1, column), 0.0))
        return shape

    def imply(self) -> None:
        """From now on decisions count for what they say of other neurons too, where the question is of a single box."""
        self.implied = implied(self.region, self.activations, self.columns, self.base, self.backward)

    def _narrowed(self, at: Tensor, neuron: Tensor, sign: Tensor) -> Interval | None:
        """The intervals ``(batch, neurons)`` that decisions leave of the neurons that may be split; None: not known."""
        if self.implied is None or not neuron.shape[1]:
            return None
        z = Interval(self.base.lower[:, self.columns], self.base.upper[:, self.columns]).select(at)
        z = self.implied.narrowed(z, neuron, sign)
        neuron, kink = neuron.clamp(min=0), self.activations.kink[self.columns]
        above, below = (torch.where(sign * s > 0, kink[neuron], -s * torch.inf) for s in (1.0, -1.0))
        return Interval(
            z.lower.scatter_reduce(1, neuron, above, "amax"), z.upper.scatter_reduce(1, neuron, below, "amin")
        )

    def _lay_around(self, z: Interval, shape: Shape) -> None:
        """Lays the lines of the neurons that may be split around these intervals, in place."""
        small = self.bending.shape(z)
        for whole, part in zip(
            (shape.chord, shape.sink, shape.least, shape.most),
            (small.chord, small.sink, small.least, small.most),
            strict=True,
        ):
            whole[:, self.spots] = part

    def clamped(self, z: Interval, column: Tensor, sign: Tensor) -> Interval:
        """Intervals ``(batch, width)`` cut at the kinks that decisions name."""
        if not column.shape[1]:
            return z
        column = self.relaxed.places[column]
        kink = self.activations.kink[column]
        above = torch.where(sign > 0, kink, -torch.inf)
        below = torch.where(sign < 0, kink, torch.inf)
        return Interval(
            z.lower.scatter_reduce(1, column, above, "amax"), z.upper.scatter_reduce(1, column, below, "amin")
        )

    def objective(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The quick rows ``(batch, outputs)`` and offsets ``(batch,)`` of the mixed atoms."""
        mix = batch.mix.unsqueeze(1)
        rows = (mix @ self.quick_weights[batch.owner]).squeeze(1)
        return rows, -(batch.mix * self.quick_bounds[batch.owner]).sum(1)

    def glance(self, batch: Batch) -> Replayed:
        """One quick pass, replayed."""
        rows, offset = self.objective(batch)
        found = self.relaxed.value(rows, offset, batch.shape, batch.ray, batch.pull, batch.region)
        return self.relaxed.replay(found)

    def decisions(self, domain: Domains) -> dict[str, Tensor]:
        """The decisions of a single domain by activation, int8 ``(size,)``: 1 above the kink, -1 below, 0 for none.

        What they imply is among them.
        """
        whole = torch.zeros(self.activations.width, dtype=torch.int8)
        kink = self.activations.kink[self.columns]
        z = self._narrowed(self.questions.region[domain.owner.long()], domain.neuron.long(), domain.sign)
        if z is not None:
            whole[self.columns] = (z.lower >= kink)[0].to(torch.int8) - (z.upper <= kink)[0].to(torch.int8)
        made = domain.neuron[0] >= 0
        whole[self.columns[domain.neuron[0][made].long()]] = domain.sign[0][made].to(torch.int8)
        return {name: whole[part] for name, part in self.activations.parts.items()}

    def margins(self, owner: Tensor, points: Tensor) -> Tensor:
        """The questions' quick margins at some inputs ``(batch, n)``: what the network itself computes there."""
        values = self.relaxed.network.flat(points).unsqueeze(-1)
        atoms = (self.quick_weights[owner] @ values).squeeze(-1) - self.quick_bounds[owner]
        return atoms.masked_fill(~self.questions.real[owner], -torch.inf).amax(1).nan_to_num(nan=torch.inf)

    def repacked(self, domains: Domains, batch: Batch, bound: Tensor) -> Domains:
        """The domains with what the batch's variables have become, and better bounds where `bound` is one."""
        some, lines = self.spots, self.relaxed.lines
        turn = (batch.ray[:, some] - lines.left[some]) / lines.gap[some]
        better = torch.maximum(domains.bound, bound)
        return replace(domains, bound=better, multiplier=batch.multiplier, turn=packed(turn), mix=batch.mix)

    def proven(self, batch: Batch) -> Tensor:
        """Proven lower bounds ``(batch,)``, float64, of the margins of the questions on the domains."""
        z = self.clamped(self.base.select(self.questions.region[batch.owner]), batch.column, batch.sign)
        if batch.within is not None:
            z.lower[:, self.columns], z.upper[:, self.columns] = batch.within.lower, batch.within.upper
        return self.proof.lower(batch, z)

    def curve(self, memory: int) -> None:
        """From now on proofs of domains look for parabolas too, where that is cheap enough: over a single box.

        memory: what they may take for it, in bytes.
        """
        self.proof.curve(memory)
        if self.curved:
            self.worth = torch.where(torch.isin(self.columns, self.proof.curved_columns), _CURVED, 1.0)

    @property
    def curved(self) -> bool:
        """Whether proofs look for parabolas."""
        return self.proof.curves is not None

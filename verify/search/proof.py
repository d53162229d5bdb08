"""Proofs of domains: lower bounds with all error terms, from whatever variables an ascent hands over.

A decision ``z_j >= kink`` (``<= kink``) allows to subtract ``m (z_j - kink)`` (to add it) for any multiplier
``m >= 0``: on the domain the objective only falls (beta-CROWN, Wang et al. 2021, arXiv:2103.06624). Of a conjunction of
atoms the largest has to be above zero, and the largest is at least any weighted mean of them; the weights are
variables as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Affine
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.curved import NEURONS, concluded
from leaktight.verify.bounds.first_layer import FirstLayer, carried
from leaktight.verify.bounds.interval import Interval, outputs
from leaktight.verify.bounds.rows import Rows, rows_on_outputs
from leaktight.verify.rounding import down, gamma, trusted_lower, underflow, up
from leaktight.verify.search.activations import Activations
from leaktight.verify.search.batch import Batch
from leaktight.verify.search.lines import Lines
from leaktight.verify.search.questions import Questions

_CHEAP = 1 << 14  # inputs times bending neurons of the first layer: beyond, lines and more domains are quicker


class Proof:
    """What proves domains of some questions.

    known: intervals of all nodes over the regions. lines and places ``(width,)``: of the neurons that a batch's
    variables are about, and which of all neurons they are. backward: the passes that prove.
    """

    def __init__(
        self,
        network: Network,
        known: Mapping[str, Interval],
        questions: Questions,
        activations: Activations,
        lines: Lines,
        places: Tensor,
        backward: Backward,
    ) -> None:
        self.network, self.known, self.questions, self.activations = network, known, questions, activations
        self.lines, self.places, self.backward = lines, places, backward
        self.curves: FirstLayer | None = None
        self.curves_memory = 0
        self.curved_columns = torch.zeros(0, dtype=torch.long)  # its neurons among all
        for node in network:
            if isinstance(node.op, Affine):
                self.backward.slack(node)

    @cached_property
    def reach(self) -> Tensor:
        """The largest absolute value of each output, for each question."""
        return outputs(self.network, self.known).magnitude[self.questions.region]

    def lower(self, batch: Batch, z: Interval) -> Tensor:
        """Lower bounds ``(batch,)``, float64, of the questions' margins on domains whose neurons' inputs lie in `z`."""
        at = self.questions.region[batch.owner]
        known = _Narrowed(self.known, at, self.activations.parted(z))
        mix = batch.mix.double()
        mix = mix / mix.sum(1, keepdim=True)
        rows = mix.unsqueeze(1) @ self.questions.weights[batch.owner]
        pull = self._whole(batch.pull.double())
        starts = [*rows_on_outputs(self.network, rows), *self._constraints(batch, pull)]
        backward = self.backward.narrowed(at, known, self._tilts(batch))
        found = backward.lower(*starts).squeeze(1)
        if self.curves is not None:
            found = torch.maximum(found, self._curved(self.curves, z, backward, starts))
        shift = pull * self.activations.kink
        level = mix * self.questions.bounds[batch.owner]
        # both are sums of products; so are the rows, where there are several atoms
        lost = gamma(shift.shape[1], shift.dtype) * shift.abs().sum(1) + gamma(4, shift.dtype) * found.abs()
        size = level.abs()
        if mix.shape[1] > 1:
            size = size + mix * (self.questions.weights.abs() @ self.reach.unsqueeze(-1)).squeeze(-1)[batch.owner]
        lost = lost + 2 * gamma(2 * mix.shape[1] + 4, shift.dtype) * size.sum(1)
        return trusted_lower(down(found - shift.sum(1) - level.sum(1) - lost - 4 * underflow(shift.dtype)))

    def curve(self, memory: int) -> None:
        """From now on proofs of domains look for parabolas too, where that is cheap enough: over a single box.

        memory: what they may take for it, in bytes.
        """
        layer = FirstLayer.of(self.backward)
        if layer is not None and layer.slopes.numel() <= _CHEAP:
            self.curves, self.curves_memory = layer, memory // torch.get_num_threads()  # as many parts at once
            parts = self.activations.parts
            self.curved_columns = torch.cat([parts[name].start + at for name, at in layer.bending.items()])

    def _curved(self, layer: FirstLayer, z: Interval, backward: Backward, starts: list[Rows]) -> Tensor:
        """Lower bounds ``(batch,)`` of the rows of domains, by parabolas over the first layer."""
        columns = self.curved_columns
        kink = self.activations.kink[columns]
        layer = layer.within(down(z.lower[:, columns] - kink), up(z.upper[:, columns] - kink))
        return concluded(layer, carried(backward, layer, *starts), NEURONS, self.curves_memory)

    def _tilts(self, batch: Batch) -> dict[str, Tensor]:
        """Where to turn the free lines of each activation, ``(batch, 1, *shape)`` in [0, 1]."""
        lines = self.lines
        gap = torch.where(lines.gap == 0, 1.0, lines.gap)
        tilt = self._whole(((batch.ray - lines.left) / gap).double().clamp(0, 1))
        parts = self.activations.parts
        return {node.name: tilt[:, parts[node.name]].reshape(-1, 1, *node.shape) for node in self.activations.nodes}

    def _whole(self, kept: Tensor) -> Tensor:
        """Numbers of the neurons that quick passes keep among those of all neurons, zero elsewhere."""
        if kept.shape[1] == self.activations.width:
            return kept
        return kept.new_zeros(len(kept), self.activations.width).index_copy_(1, self.places, kept)

    def _constraints(self, batch: Batch, pull: Tensor) -> list[Rows]:
        """What the multipliers add to the objective, as rows on the inputs of activations that have decisions."""
        used = self.places[batch.column[batch.sign != 0]]
        return [
            Rows(node.inputs[0], pull[:, part].reshape(-1, 1, *node.shape))
            for node, part in ((node, self.activations.parts[node.name]) for node in self.activations.nodes)
            if bool(((used >= part.start) & (used < part.stop)).any())
        ]


class _Narrowed(Mapping[str, Interval]):
    """The regions' intervals for the domains that lie in them, narrower where decisions say so."""

    def __init__(self, known: Mapping[str, Interval], at: Tensor, narrower: Mapping[str, Interval]) -> None:
        self.known, self.at, self.picked = known, at, dict(narrower)

    def __getitem__(self, name: str) -> Interval:
        if name not in self.picked:
            self.picked[name] = self.known[name].select(self.at)
        return self.picked[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)

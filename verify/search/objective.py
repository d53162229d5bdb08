"""What an attack lowers: the margin of the network's outputs, and losses for single disjuncts of the unsafe set."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Affine
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.clock import tick


@dataclass(frozen=True, eq=False)
class Objective:
    """A network together with the unsafe sets of a batch of regions.

    Points come as ``(rows, batch, n)`` in the network's dtype, the second axis numbering the regions. `chunk` is the
    number of inputs that are evaluated at once without gradients.
    """

    network: Network
    unsafe: Unsafe
    chunk: int

    def atoms(self, points: Tensor) -> Tensor:
        """``c . y - d`` of every atom, float64 ``(rows, batch, atoms)``; no gradients."""
        with torch.no_grad():
            flat = points.reshape(-1, points.shape[-1])
            outputs = torch.cat([self._outputs(part) for part in torch.split(flat, self.chunk)])
        return self._atoms(outputs.reshape(*points.shape[:2], -1))

    def _outputs(self, points: Tensor) -> Tensor:
        tick()
        return self.network.flat(points)

    def _atoms(self, outputs: Tensor) -> Tensor:
        weights, bounds, y = self.unsafe.weights, self.unsafe.bounds, outputs.double()
        if len(weights) == 1:
            return y @ weights[0].mT - bounds[0]
        return (weights @ y.unsqueeze(-1)).squeeze(-1) - bounds

    def losses(self, atoms: Tensor) -> Tensor:
        """The margin of each disjunct alone, ``(rows, batch, disjuncts)``; not a number counts as infinite."""
        worst = atoms.new_full((*atoms.shape[:-1], self.unsafe.disjuncts), -torch.inf)
        worst = worst.scatter_reduce(-1, self.unsafe.disjunct.expand(atoms.shape), atoms, "amax")
        return worst.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)

    def margins(self, points: Tensor) -> Tensor:
        """The margins ``(rows, batch)``; no gradients."""
        return self.losses(self.atoms(points)).amin(-1)

    def gradient(self, points: Tensor, target: Tensor, summed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of each row's `target` disjunct ``(rows, batch)``, the margin, and the loss's gradient.

        A conjunction's loss is its largest atom; where `summed`, all violated atoms are added, so that each step works
        on all of them at once. Gradients that are not finite come back as zero.
        """
        x = points.detach().requires_grad_()
        atoms = self._atoms(self._outputs(x.flatten(0, 1)).reshape(*x.shape[:2], -1))
        targeted = atoms.where(self.unsafe.disjunct == target.unsqueeze(-1), -torch.inf)
        loss = targeted.amax(-1) + torch.where(summed, targeted.clamp(min=0).sum(-1), 0.0)
        (gradient,) = torch.autograd.grad(loss.nan_to_num(0.0, 0.0, 0.0).sum(), x)
        margin = self.losses(atoms.detach()).amin(-1)
        return loss.detach().nan_to_num(nan=torch.inf), margin, gradient.nan_to_num(0.0, 0.0, 0.0)

    def select(self, index: Tensor) -> Objective:
        """The objective of the regions at `index`."""
        return replace(self, unsafe=self.unsafe.select(index))


def products(network: Network) -> int:
    """About how many multiplications one evaluation takes: what decides how many points an attack can afford."""
    return sum(node.size * (node.op.forward_terms if isinstance(node.op, Affine) else 1) for node in network.nodes)


def values(network: Network) -> int:
    """How many numbers one evaluation keeps for its gradient."""
    return sum(node.size for node in network.nodes)

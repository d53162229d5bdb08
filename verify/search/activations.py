"""The neurons of a network side by side: the entries of all its activations, each with a kink and two slopes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Input, TwoSlope
from leaktight.verify.bounds.interval import Interval


@dataclass(frozen=True, eq=False)
class Activations:
    """All activations of a network, each a `TwoSlope`; their entries, the neurons, are joined to one axis.

    left, right, kink, value ``(width,)`` float64: the operators' parameters. `parts`: the places of each activation.
    """

    nodes: tuple[Node, ...]
    parts: Mapping[str, slice]
    left: Tensor
    right: Tensor
    kink: Tensor
    value: Tensor

    @classmethod
    def of(cls, network: Network) -> Activations:
        """Raises MissingRule: a nonlinear operator is no `TwoSlope`, or there is none at all."""
        for node in network:
            if not isinstance(node.op, (Affine, TwoSlope, Input)):
                raise MissingRule(f"neurons are not split beside {type(node.op).__name__} (node {node.name!r})")
        found = [(node, _entries(node.op, node.shape)) for node in network if isinstance(node.op, TwoSlope)]
        if not found:
            raise MissingRule("the network has no neurons to split")
        parts, start = {}, 0
        for node, _ in found:
            parts[node.name] = slice(start, start + node.size)
            start += node.size
        columns = zip(*(entries for _, entries in found), strict=True)
        return cls(tuple(node for node, _ in found), parts, *(torch.cat(column) for column in columns))

    @property
    def width(self) -> int:
        return len(self.kink)

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.left, self.right, self.kink, self.value

    def joined(self, known: Mapping[str, Interval]) -> Interval:
        """The intervals of all activations' inputs side by side, ``(batch, width)``."""
        found = [known[node.inputs[0]] for node in self.nodes]
        return Interval(
            torch.cat([z.lower.flatten(1) for z in found], 1), torch.cat([z.upper.flatten(1) for z in found], 1)
        )

    def parted(self, z: Interval) -> dict[str, Interval]:
        """The reverse: intervals by the names of the activations' inputs."""
        known: dict[str, Interval] = {}
        for node in self.nodes:
            part, name = self.parts[node.name], node.inputs[0]
            own = Interval(*(end[:, part].reshape(-1, *node.shape) for end in (z.lower, z.upper)))
            known[name] = known[name].meet(own) if name in known else own
        return known


def splittable(network: Network) -> bool:
    """Whether all that bends in the network are neurons that can be split, and there are some."""
    fitting = all(isinstance(node.op, (Affine, TwoSlope, Input)) for node in network)
    return fitting and any(isinstance(node.op, TwoSlope) for node in network)


def _entries(op: TwoSlope, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """The operator's parameters, entry by entry of a value of this shape."""
    return tuple(p.double().expand(*shape).reshape(-1) for p in (op.left, op.right, op.kink, op.value))

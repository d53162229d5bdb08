"""What a backward pass carries: linear functions of node values, and where they start."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from leaktight.models.network import Network


@dataclass(frozen=True)
class Rows:
    """Linear functions of one node's value: ``coefficients`` ``(batch, rows, *shape)``."""

    node: str
    coefficients: Tensor


def is_whole(regions: Tensor | slice, batch: int) -> bool:
    """Whether these are all the regions of a batch, in its order."""
    return isinstance(regions, slice) and regions.indices(batch) == (0, batch, 1)


def rows_on_outputs(network: Network, objectives: Tensor) -> list[Rows]:
    """Linear functions of all outputs together, ``(batch, rows, output_size)``, as rows on the output nodes."""
    return [Rows(name, part) for name, part in network.parted(objectives, network.outputs)]


@dataclass(frozen=True)
class Units:
    """The rows ``sign_i z_j`` for the entries ``j = index_i`` of one node's flat value; both ``(batch, k)``.

    An affine node answers them from its weights, without a product. `span`: the same, where all regions have the same
    consecutive entries.
    """

    node: str
    index: Tensor
    sign: Tensor
    span: slice | None = field(default=None, kw_only=True)

    def of(self, table: Tensor) -> Tensor:
        """What a table ``(entries, ...)`` holds for each: ``(batch, k, ...)``, or ``(k, ...)`` for a `span`."""
        if self.span is not None:
            return table[self.span]
        picked = table.index_select(0, self.index.flatten())  # a fifth of an index's time
        return picked.reshape(*self.index.shape, *table.shape[1:])

    def signed(self, both: Tensor) -> Tensor:
        """The rows themselves, ``(batch, k, n)``, of a matrix and its negative below each other."""
        below = self.sign.sign().mul_(-0.5).add_(0.5).mul_(len(both) // 2)  # a comparison takes longer
        picked = both.index_select(0, below.to(self.index.dtype).add_(self.index).flatten())
        return picked.reshape(*self.index.shape, both.shape[1])


def dot(rows: Tensor, vectors: Tensor) -> Tensor:
    """``(batch, rows)`` inner products with vectors ``(batch, 1 or rows, *shape)``."""
    if vectors.shape[1] == 1:
        return dots(rows, vectors).squeeze(-1)
    return (rows * vectors).flatten(2).sum(-1)


def dots(rows: Tensor, vectors: Tensor) -> Tensor:
    """``(batch, rows, k)`` inner products of each row with each of its region's vectors ``(batch, k, *shape)``.

    The few vectors go to the left, as the other way round takes twice as long; not where gradients will be wanted,
    which would lie in memory with their columns first.
    """
    rows, vectors = rows.flatten(2), vectors.flatten(2)
    return rows @ vectors.mT if rows.requires_grad else (vectors @ rows.mT).mT

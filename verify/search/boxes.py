"""Boxes: the domains of a search on the input, kept compactly, and a queue of them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.specs.unsafe import Unsafe


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes within the regions of a case, and what is proven on each.

    owner ``(batch,)``: the region. lower, upper ``(batch, n)``. atoms ``(batch, atoms)``: proven lower bounds of
    ``c . y - d``, minus infinity where nothing is known. worst ``(batch, disjuncts)``: the same of the largest atom of
    each disjunct, where more than the atoms' own bounds is known. signs ``(batch, values)`` int8: 1 where an entry of
    the network's values is known to be at least zero on the box, -1 where at most zero, 0 where neither.
    """

    owner: Tensor
    lower: Tensor
    upper: Tensor
    atoms: Tensor
    worst: Tensor
    signs: Tensor

    @classmethod
    def whole(cls, case: Case, signs: int) -> Boxes:
        """The regions of the case themselves, with nothing known."""
        region = case.region
        count, atoms = region.batch, case.unsafe.weights.shape[1]
        return cls(
            torch.arange(count),
            region.lower,
            region.upper,
            torch.full((count, atoms), -torch.inf, dtype=torch.float64),
            torch.full((count, case.unsafe.disjuncts), -torch.inf, dtype=torch.float64),
            torch.zeros(count, signs, dtype=torch.int8),
        )

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def bytes_each(self) -> int:
        parts = (getattr(self, f.name) for f in fields(self))
        return sum(x[:1].numel() * x.element_size() for x in parts)

    def select(self, index: Tensor | slice) -> Boxes:
        return Boxes(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def joined(parts: list[Boxes]) -> Boxes:
        if len(parts) == 1:
            return parts[0]
        return Boxes(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Boxes)))

    def case(self, whole: Case) -> Case:
        """The same question about these boxes."""
        return Case(Box(self.lower, self.upper), whole.unsafe.select(self.owner))

    def largest(self, unsafe: Unsafe) -> Tensor:
        """Proven lower bounds of the largest atom of each disjunct ``(batch, disjuncts)``."""
        return self.worst.scatter_reduce(1, unsafe.disjunct.expand(self.atoms.shape), self.atoms, "amax")

    def margins(self, unsafe: Unsafe) -> Tensor:
        """The proven lower bound of the margin on each box ``(batch,)``."""
        return self.largest(unsafe).amin(1) if unsafe.disjuncts else unsafe.combine(self.atoms)

    def halves(self, side: Tensor) -> tuple[Boxes, Boxes]:
        """The boxes below and above the middle of the input that `side` ``(batch,)`` names."""
        middle = self.lower / 2 + self.upper / 2
        cut = torch.nn.functional.one_hot(side, self.lower.shape[1]).bool()
        return (
            replace(self, upper=torch.where(cut, middle, self.upper)),
            replace(self, lower=torch.where(cut, middle, self.lower)),
        )


class Queue:
    """Boxes that wait, in blocks: the block that holds the least proven box comes first.

    Blocks are never taken apart and copied as a whole, so a million boxes cost no more a round than a thousand. Where
    more than `most` wait, the block that is nearest to a proof comes first, which keeps their number down.
    """

    def __init__(self, unsafe: Unsafe, most: int) -> None:
        self.unsafe, self.most = unsafe, most
        self.count, self._pushed = 0, 0
        self._blocks: dict[int, Boxes] = {}
        self._taken: list[Boxes] = []
        self._least: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Boxes]:
        return iter([*self._blocks.values(), *self._taken])

    @property
    def lower(self) -> float:
        """The proven lower bound of the margin on everything that waits; infinite where nothing does."""
        while self._least and self._least[0][1] not in self._blocks:
            heapq.heappop(self._least)
        return self._least[0][0] if self._least else torch.inf

    def push(self, boxes: Boxes, block: int) -> None:
        """Adds boxes, in blocks of so many, alike ones together."""
        margins = boxes.margins(self.unsafe)
        order = margins.argsort(stable=True)
        for first in range(0, len(boxes), block):
            part = order[first : first + block]
            self._blocks[self._pushed] = boxes.select(part)
            heapq.heappush(self._least, (float(margins[part[0]]), self._pushed))
            self._pushed += 1
        self.count += len(boxes)

    def pop(self, wanted: int, *, easiest: bool = False) -> Boxes:
        """About `wanted` boxes, at most: whole blocks, the least proven first (`easiest`: last).

        Iteration still meets them until `finish`, so that nothing is lost where what is done to them is broken off.
        """
        count = 0
        while self._blocks and (not count or count + len(self._blocks[self._first(easiest)]) <= wanted):
            place = self._first(easiest)
            count += len(self._blocks[place])
            self._taken.append(self._blocks[place])
            del self._blocks[place]
        self.count -= count
        return Boxes.joined(self._taken)

    def finish(self) -> None:
        """What was taken is done."""
        self._taken = []

    def _first(self, easiest: bool) -> int:
        if easiest:
            return max((least, place) for least, place in self._least if place in self._blocks)[1]
        if self.count > self.most:
            return next(reversed(self._blocks))  # pushed last: the deepest
        _ = self.lower
        return self._least[0][1]

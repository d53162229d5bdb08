"""Bounds of small boxes: backward passes that inherit what is proven on the box that they were cut from.

Which values have a known sign on a box holds on every part of it, so their lines need no pass; atoms of disjuncts that
are ruled out need none either. Beside the bounds come the linear functions that they are minima of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Elementwise
from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.verify.bounds import interval
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.memory import batch_chunks, keep_freed_memory, passes
from leaktight.verify.bounds.optimise import other_turn
from leaktight.verify.bounds.rows import Rows, rows_on_outputs
from leaktight.verify.rounding import down
from leaktight.verify.search.boxes import Boxes
from leaktight.verify.search.clip import LinearRows


@dataclass(frozen=True, eq=False)
class BoxBounds:
    """What is proven on a batch of boxes: `atoms` and `signs` as in `Boxes`, the rows behind the atoms' bounds, of up
    to two passes each, and the intervals of all nodes (none where the boxes have been cut since)."""

    atoms: Tensor
    signs: Tensor
    rows: tuple[LinearRows, ...]
    known: Mapping[str, Interval]

    def select(self, index: Tensor) -> BoxBounds:
        rows = tuple(rows.select(index) for rows in self.rows)
        known = {name: z.select(index) for name, z in self.known.items()}
        return BoxBounds(self.atoms[index], self.signs[index], rows, known)

    @staticmethod
    def joined(parts: list[BoxBounds]) -> BoxBounds:
        if len(parts) == 1:
            return parts[0]
        rows = zip(*(part.rows for part in parts), strict=True)
        return BoxBounds(
            torch.cat([part.atoms for part in parts]),
            torch.cat([part.signs for part in parts]),
            tuple(
                LinearRows(torch.cat([r.slopes for r in each]), torch.cat([r.floors for r in each])) for each in rows
            ),
            {name: _joined([part.known[name] for part in parts]) for name in parts[0].known},
        )


Known = Mapping[str, Interval]


class Passes(Protocol):
    """How boxes are bounded: `opened` says what is known of all nodes on each, as far as backward passes need it;
    `rows` are the linear functions of a box's coordinates that bound some `starts`, and their proven minima on it.
    """

    def opened(self, boxes: Boxes, floor: Known, deadline: float | None) -> Backward: ...

    def rows(self, backward: Backward, starts: list[Rows]) -> tuple[Tensor, Tensor]: ...


class InputPasses:
    """The coordinates of a box are the network's inputs."""

    def __init__(self, network: Network, memory: int) -> None:
        self.network, self.memory = network, memory

    def opened(self, boxes: Boxes, floor: Known, deadline: float | None) -> Backward:
        region = Box(boxes.lower, boxes.upper)
        known = intermediate_bounds(self.network, region, self.memory, floor=floor, deadline=deadline)
        return Backward(self.network, region, known)

    def rows(self, backward: Backward, starts: list[Rows]) -> tuple[Tensor, Tensor]:
        walk = backward.walk(*starts)
        flat = walk.on_inputs() if walk.pending else torch.zeros(1, 1, backward.region.size, dtype=backward.dtype)
        found = walk.conclude()
        return flat.expand(*found.shape, -1), found


class Bounder:
    """Bounds the atoms of a case on boxes within its regions."""

    def __init__(self, network: Network, case: Case, memory: int, through: Passes | None = None) -> None:
        self.network, self.case, self.memory = network, case, memory
        self.through: Passes = through or InputPasses(network, memory)
        names = {node.inputs[0] for node in network if isinstance(node.op, Elementwise)}
        self.signed = [node for node in network if node.name in names]  # whose sign is worth keeping

    @property
    def signs(self) -> int:
        return sum(node.size for node in self.signed)

    def __call__(self, boxes: Boxes, wanted: Tensor, deadline: float | None) -> BoxBounds:
        """Bounds of the `wanted` disjuncts' atoms ``(batch, disjuncts)`` on every box; after `deadline` coarse ones."""
        keep_freed_memory()
        found = []
        with torch.no_grad():
            for part in batch_chunks(self.network, len(boxes), torch.float64, self.memory):
                found.append(self._bounded(boxes.select(part), wanted[part], deadline))
        return BoxBounds.joined(found)

    def _bounded(self, boxes: Boxes, wanted: Tensor, deadline: float | None) -> BoxBounds:
        plain = self.through.opened(boxes, self._floor(boxes.signs), deadline)
        unsafe = self.case.unsafe.select(boxes.owner)
        index, real = _open_atoms(wanted, unsafe.disjunct)
        weights = unsafe.weights.expand(len(boxes), -1, -1)
        objectives = weights.gather(1, index.unsqueeze(-1).expand(-1, -1, weights.shape[-1]))
        ends = unsafe.bounds.expand(len(boxes), -1).gather(1, index)
        least = down(interval.lower_of_outputs(self.network, plain.known, objectives) - ends)
        rows = []
        tilts, differs = other_turn(plain)
        for backward, some in ((plain, torch.ones_like(differs)), (plain.turned(tilts), differs)):
            if bool(some.any()):
                slopes, floors = self._pass(backward, objectives)
                floors = down(floors - ends).masked_fill(~some.unsqueeze(1), -torch.inf)
                least = torch.maximum(least, floors)
                rows.append(_scattered(slopes, floors, index, real, weights.shape[1]))
            else:
                rows.append(LinearRows(rows[0].slopes, torch.full_like(rows[0].floors, -torch.inf)))
        atoms = torch.full(weights.shape[:2], -torch.inf, dtype=torch.float64)
        atoms = atoms.scatter_reduce(1, index, least.masked_fill(~real, -torch.inf), "amax")
        return BoxBounds(atoms, self._signs(plain.known), tuple(rows), plain.known)

    def _pass(self, backward: Backward, objectives: Tensor) -> tuple[Tensor, Tensor]:
        """The rows on the coordinates ``(batch, rows, n)``, and their proven minima."""
        backward.prepare(self.network.nodes[-1])
        slopes, floors = [], []
        for regions, some in passes(self.network, [objectives.shape[1]] * len(objectives), self.memory):
            starts = rows_on_outputs(self.network, objectives[regions, some])
            flat, found = self.through.rows(backward.select(regions), starts)
            slopes.append(flat)
            floors.append(found)
        count = objectives.shape[1]
        return (
            torch.cat([x.flatten(0, 1) for x in slopes]).reshape(-1, count, slopes[0].shape[-1]),
            torch.cat([x.flatten() for x in floors]).reshape(-1, count),
        )

    def _floor(self, signs: Tensor) -> dict[str, Interval]:
        found, start = {}, 0
        for node in self.signed:
            sign = signs[:, start : start + node.size].reshape(-1, *node.shape)
            lower = torch.where(sign > 0, 0.0, -torch.inf).double()
            upper = torch.where(sign < 0, 0.0, torch.inf).double()
            found[node.name] = Interval(lower, upper)
            start += node.size
        return found

    def _signs(self, known: Mapping[str, Interval]) -> Tensor:
        parts = []
        for node in self.signed:
            z = known[node.name]
            sign = (z.lower >= 0).to(torch.int8) - (z.upper <= 0).to(torch.int8)
            parts.append(sign.flatten(1))
        return torch.cat(parts, 1) if parts else torch.zeros(len(next(iter(known.values())).lower), 0, dtype=torch.int8)


def _joined(parts: list[Interval]) -> Interval:
    return Interval(torch.cat([z.lower for z in parts]), torch.cat([z.upper for z in parts]))


def _open_atoms(wanted: Tensor, disjunct: Tensor) -> tuple[Tensor, Tensor]:
    """The atoms of the wanted disjuncts, box by box, ``(batch, k)``; where a box has fewer than k, `real` is False."""
    atoms = wanted[:, disjunct]
    count = max(1, int(atoms.sum(1).amax()))
    found = atoms.to(torch.uint8).topk(count, dim=1)
    return found.indices, found.values.bool()


def _scattered(slopes: Tensor, floors: Tensor, index: Tensor, real: Tensor, atoms: int) -> LinearRows:
    """Rows at their atoms' places; nothing is known of the atoms that were not asked for."""
    least = torch.full((len(floors), atoms), -torch.inf, dtype=torch.float64)
    least = least.scatter_reduce(1, index, floors.masked_fill(~real, -torch.inf), "amax")
    place = index.unsqueeze(-1).expand_as(slopes)
    return LinearRows(slopes.new_zeros(len(floors), atoms, slopes.shape[-1]).scatter(1, place, slopes), least)

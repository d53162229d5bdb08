"""Domains of a search over neurons, kept compactly: which neurons lie on which side of their kinks.

A domain is a region cut down by decisions ``z_j >= kink`` or ``z_j <= kink``. It carries what its parent learnt: where
the free lines of the neurons were turned, and the multipliers of its decisions. Turns are kept in one byte each (any
turn gives a proof), multipliers in four, so that a million domains fit in a few gigabytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

_FIRST = 1024
_TURNS = 255


@dataclass(frozen=True, eq=False)
class Domains:
    """A batch of domains. A neuron is named by its place among those that may be split.

    owner ``(batch,)`` int32: which question it belongs to. bound ``(batch,)`` float64: a proven lower bound of its
    margin. neuron ``(batch, depth)`` int32, -1 behind the last decision; above ``(batch, depth)``: the side;
    multiplier ``(batch, depth)`` float32 >= 0. turn ``(batch, neurons)`` uint8. mix ``(batch, atoms)`` float32: the
    weights of a conjunction's atoms.
    """

    owner: Tensor
    bound: Tensor
    neuron: Tensor
    above: Tensor
    multiplier: Tensor
    turn: Tensor
    mix: Tensor

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def depth(self) -> int:
        return self.neuron.shape[1]

    @property
    def sign(self) -> Tensor:
        """1 for a decision above the kink, -1 below, 0 where there is none; float32 ``(batch, depth)``."""
        return (self.above.float() * 2 - 1).masked_fill_(self.neuron < 0, 0.0)

    def select(self, index: Tensor | slice) -> Domains:
        return Domains(*(getattr(self, f.name)[index] for f in fields(self)))

    def deepened(self, neuron: Tensor, above: Tensor) -> Domains:
        """The domains with one decision more each, its multiplier zero."""
        free = self.neuron < 0
        at = free.to(torch.uint8).argmax(1) if self.depth else torch.zeros(len(self), dtype=torch.long)
        full = ~free.any(1) if self.depth else torch.ones(len(self), dtype=torch.bool)
        wider = self.widened(self.depth + 1) if bool(full.any()) else self
        at = torch.where(full, wider.depth - 1, at).unsqueeze(1)
        return Domains(
            wider.owner,
            wider.bound,
            wider.neuron.scatter(1, at, neuron.to(torch.int32).unsqueeze(1)),
            wider.above.scatter(1, at, above.unsqueeze(1)),
            wider.multiplier,
            wider.turn,
            wider.mix,
        )

    def widened(self, depth: int) -> Domains:
        """The same with room for `depth` decisions."""
        more = depth - self.depth
        if more <= 0:
            return self
        pad = torch.nn.functional.pad
        return Domains(
            self.owner,
            self.bound,
            pad(self.neuron, (0, more), value=-1),
            pad(self.above, (0, more)),
            pad(self.multiplier, (0, more)),
            self.turn,
            self.mix,
        )


def joined(parts: list[Domains]) -> Domains:
    """Batches of domains as one."""
    depth = max(part.depth for part in parts)
    wide = [part.widened(depth) for part in parts]
    return Domains(*(torch.cat([getattr(part, f.name) for part in wide]) for f in fields(Domains)))


def packed(tilt: Tensor) -> Tensor:
    """Turns in [0, 1] as bytes."""
    return (tilt * _TURNS).round().clamp(0, _TURNS).to(torch.uint8)


def unpacked(turn: Tensor) -> Tensor:
    """Bytes as turns in [0, 1], float32.

    A product, not a quotient: GPUs divide by a number as they multiply by its reciprocal, and a turn that differs in
    its last place leads a search to another bound.
    """
    return turn.float() * (1 / _TURNS)


class Pool:
    """Domains that wait, side by side; what is taken out leaves no gap."""

    def __init__(self, first: Domains) -> None:
        self.size = 0
        self._kept = first.select(slice(0, 0))
        self.add(first)

    def __len__(self) -> int:
        return self.size

    @property
    def bytes(self) -> int:
        """What the domains take, in bytes."""
        return sum(getattr(self._kept, f.name).nbytes for f in fields(self._kept))

    @property
    def least(self) -> float:
        """The lowest bound of all that wait; infinity where none does."""
        return float(self._kept.bound[: self.size].amin()) if self.size else torch.inf

    def add(self, more: Domains) -> None:
        """Puts domains in."""
        depth = max(self._kept.depth, more.depth)
        self._kept, more = self._kept.widened(depth), more.widened(depth)
        end = self.size + len(more)
        if end > len(self._kept):
            self._grow(max(end, _FIRST, len(self._kept) * 3 // 2))
        for f in fields(more):
            getattr(self._kept, f.name)[self.size : end] = getattr(more, f.name)
        self.size = end

    def _grow(self, capacity: int) -> None:
        grown = []
        for f in fields(self._kept):
            old = getattr(self._kept, f.name)
            new = old.new_empty((capacity, *old.shape[1:]))
            new[: self.size] = old[: self.size]
            grown.append(new)
        self._kept = Domains(*grown)

    def worst(self, count: int, *, easiest: bool = False) -> Tensor:
        """The places of the domains with the lowest bounds (`easiest`: the highest ones)."""
        bounds = self._kept.bound[: self.size]
        return bounds.topk(min(count, self.size), largest=easiest).indices

    def read(self, places: Tensor) -> Domains:
        """The domains at these places, which stay."""
        found = self._kept.select(places)
        used = int((found.neuron >= 0).sum(1).amax()) if found.depth and len(found) else 0
        return Domains(
            found.owner,
            found.bound,
            found.neuron[:, :used],
            found.above[:, :used],
            found.multiplier[:, :used],
            found.turn,
            found.mix,
        )

    def remove(self, places: Tensor) -> None:
        """Takes domains out; the last ones move to where they lay."""
        gone = torch.zeros(self.size, dtype=torch.bool)
        gone[places] = True
        left = self.size - len(places)
        holes = gone[:left].nonzero().flatten()
        movers = (~gone[left:]).nonzero().flatten() + left
        for f in fields(self._kept):
            values = getattr(self._kept, f.name)
            values[holes] = values[movers]
        self.size = left

"""Unsafe sets of outputs, in disjunctive normal form with linear atoms, and their margins (see specs.property)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from leaktight.errors import PropertyError


@dataclass(frozen=True, eq=False)
class Unsafe:
    """An unsafe set of outputs in disjunctive normal form.

    weights ``(batch or 1, atoms, outputs)`` and bounds ``(batch or 1, atoms)`` in float64: atom ``j`` says
    ``weights[j] . y <= bounds[j]``. `disjunct` ``(atoms,)`` numbers the conjunction that each atom belongs to: 0, 1,
    and so on. `strict` ``(atoms,)`` marks atoms that say ``<``. Bounds that float64 cannot hold are rounded up, so
    that the unsafe set is enclosed; `inner_bounds` (by default the same) are rounded down, for whoever claims that a
    point is unsafe.
    """

    weights: Tensor
    bounds: Tensor
    disjunct: Tensor
    strict: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    inner_bounds: Tensor | None = None

    def __post_init__(self) -> None:
        atoms = self.weights.shape[1:2]
        if self.weights.dim() != 3 or self.bounds.shape != self.weights.shape[:2] or self.disjunct.shape != atoms:
            raise ValueError(f"weights {tuple(self.weights.shape)} and bounds {tuple(self.bounds.shape)} do not fit")
        if not (torch.isfinite(self.weights).all() and torch.isfinite(self.bounds).all()):
            raise PropertyError("an output condition holds NaN or infinite numbers")
        if not self.strict.numel():
            object.__setattr__(self, "strict", torch.zeros(atoms, dtype=torch.bool))

    @property
    def disjuncts(self) -> int:
        return int(self.disjunct.max()) + 1 if self.disjunct.numel() else 0

    def combine(self, atoms: Tensor) -> Tensor:
        """``min_i max_j`` over the last axis: from ``(..., atoms)`` values of ``c . y - d`` to ``(...)`` margins.

        Given lower bounds of the atoms over a region it gives a lower bound of the margin over that region.
        An unsafe set without any disjunct is empty: its margin is infinite.
        """
        return self.largest(atoms).amin(-1) if self.disjuncts else atoms.new_full(atoms.shape[:-1], torch.inf)

    def largest(self, atoms: Tensor) -> Tensor:
        """The largest atom of each disjunct, ``(..., disjuncts)``; of lower bounds, a lower bound of it."""
        least = atoms.new_full((*atoms.shape[:-1], self.disjuncts), -torch.inf)
        return least.scatter_reduce(-1, self.disjunct.expand(atoms.shape), atoms, "amax")

    def ruled_out(self, atoms: Tensor) -> Tensor:
        """Which disjuncts ``(..., disjuncts)`` no point of a region satisfies, as lower bounds of the atoms show.

        One atom above zero does that, and a strict one that is at least zero.
        """
        out = torch.where(self.strict, atoms >= 0, atoms > 0)
        return self.largest(out.double()) > 0

    def proved(self, atoms: Tensor) -> Tensor:
        """Whether lower bounds ``(..., atoms)`` of ``c . y - d`` rule the whole unsafe set out."""
        return self.ruled_out(atoms).all(-1)

    def atoms(self, y: Tensor) -> Tensor:
        """``c . y - d`` of every atom, ``(batch, atoms)`` for ``(batch, outputs)``, in the dtype of `y`."""
        weights, bounds = self.weights.to(y.dtype), self.bounds.to(y.dtype)
        return (weights @ y.unsqueeze(-1)).squeeze(-1) - bounds

    def margin(self, y: Tensor) -> Tensor:
        """``m(y)`` of ``(batch, outputs)``, as ``(batch,)``."""
        return self.combine(self.atoms(y))

    def holds(self, y: Tensor) -> Tensor:
        """Whether each of ``(batch, outputs)`` lies in the unsafe set, strict atoms taken strictly.

        Computed in float64 with `inner_bounds`: no rounding changes the sign of an atom about one entry, or about the
        difference of two. NaN is in no unsafe set.
        """
        bounds = self.bounds if self.inner_bounds is None else self.inner_bounds
        atoms = (self.weights @ y.double().unsqueeze(-1)).squeeze(-1) - bounds
        inside = torch.where(self.strict, atoms < 0, atoms <= 0)
        every = inside.new_ones((*inside.shape[:-1], self.disjuncts), dtype=torch.int8)
        every = every.scatter_reduce(-1, self.disjunct.expand(inside.shape), inside.to(torch.int8), "amin")
        return every.bool().any(-1)

    def alone(self, disjunct: int) -> Unsafe:
        """One disjunct by itself."""
        kept = self.disjunct == disjunct
        inner = None if self.inner_bounds is None else self.inner_bounds[:, kept]
        return Unsafe(
            self.weights[:, kept], self.bounds[:, kept], torch.zeros(int(kept.sum())).long(), self.strict[kept], inner
        )

    def select(self, index: Tensor | slice) -> Unsafe:
        """The conditions of the inputs at `index` of the batch."""
        if len(self.weights) == 1:
            return self
        inner = None if self.inner_bounds is None else self.inner_bounds[index]
        return Unsafe(self.weights[index], self.bounds[index], self.disjunct, self.strict, inner)


def misclassified(labels: Tensor, classes: int) -> Unsafe:
    """The unsafe sets "some other class scores at least as high as the label", for ``(batch,)`` labels.

    Raises PropertyError: a label is not one of ``0 .. classes - 1``, or there is only one class.
    """
    if classes < 2:
        raise PropertyError(f"robustness of a label needs a network with at least 2 outputs; this one has {classes}")
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise PropertyError(
            f"label {int(labels[at])} (input {at}) is out of range; the network has the classes 0 to "
            f"{classes - 1}; correct the label or take another network"
        )
    eye = torch.eye(classes, dtype=torch.float64)
    others = torch.stack([torch.cat([torch.arange(k), torch.arange(k + 1, classes)]) for k in labels.tolist()])
    weights = eye[labels].unsqueeze(1) - eye[others]
    bounds = torch.zeros(len(labels), classes - 1, dtype=torch.float64)
    return Unsafe(weights, bounds, torch.arange(classes - 1))

"""Properties: for every input in the region, the output stays out of an unsafe set.

The unsafe set is in disjunctive normal form with linear atoms, ``OR_i AND_j (c_ij . y <= d_ij)``, and the margin

    m(y) = min_i max_j (c_ij . y - d_ij)

is positive exactly when ``y`` is safe (strict atoms, ``c . y < d``, make ``m(y) = 0`` safe as well).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from leaktight.errors import PropertyError
from leaktight.specs.region import Norm, Region, ball


@dataclass(frozen=True, eq=False)
class Unsafe:
    """An unsafe set of outputs in disjunctive normal form.

    weights ``(batch or 1, atoms, outputs)`` and bounds ``(batch or 1, atoms)`` in float64: atom ``j`` says
    ``weights[j] . y <= bounds[j]``. `disjunct` ``(atoms,)`` numbers the conjunction that each atom belongs to, 0, 1, ...
    `strict` ``(atoms,)`` marks atoms that say ``<``.
    """

    weights: Tensor
    bounds: Tensor
    disjunct: Tensor
    strict: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    def __post_init__(self) -> None:
        if self.weights.dim() != 3 or self.bounds.shape != self.weights.shape[:2]:
            raise ValueError(f"weights {tuple(self.weights.shape)} and bounds {tuple(self.bounds.shape)} do not fit")
        if not (torch.isfinite(self.weights).all() and torch.isfinite(self.bounds).all()):
            raise PropertyError("an output condition holds NaN or infinite numbers")
        if not self.strict.numel():
            object.__setattr__(self, "strict", torch.zeros(self.weights.shape[1], dtype=torch.bool))

    @property
    def disjuncts(self) -> int:
        return int(self.disjunct.max()) + 1 if self.disjunct.numel() else 0

    def combine(self, atoms: Tensor) -> Tensor:
        """``min_i max_j`` over the last axis: from ``(..., atoms)`` values of ``c . y - d`` to ``(...)`` margins.

        Given lower bounds of the atoms over a region it gives a lower bound of the margin over that region.
        An unsafe set without any disjunct is empty: its margin is infinite.
        """
        worst = atoms.new_full((*atoms.shape[:-1], self.disjuncts), -torch.inf)
        worst = worst.scatter_reduce(-1, self.disjunct.expand(atoms.shape), atoms, "amax")
        return worst.amin(-1) if self.disjuncts else atoms.new_full(atoms.shape[:-1], torch.inf)

    def atoms(self, y: Tensor) -> Tensor:
        """``c . y - d`` of every atom, ``(batch, atoms)`` for ``(batch, outputs)``."""
        weights, bounds = self.weights.to(y.dtype), self.bounds.to(y.dtype)
        return (weights @ y.unsqueeze(-1)).squeeze(-1) - bounds

    def margin(self, y: Tensor) -> Tensor:
        """``m(y)`` of ``(batch, outputs)``, as ``(batch,)``."""
        return self.combine(self.atoms(y))

    def holds(self, y: Tensor) -> Tensor:
        """Whether each of ``(batch, outputs)`` lies in the unsafe set, strict atoms taken strictly."""
        atoms = self.atoms(y)
        inside = torch.where(self.strict, atoms < 0, atoms <= 0)
        every = inside.new_ones((*inside.shape[:-1], self.disjuncts), dtype=torch.int8)
        every = every.scatter_reduce(-1, self.disjunct.expand(inside.shape), inside.to(torch.int8), "amin")
        return every.bool().any(-1)

    def select(self, index: Tensor | slice) -> Unsafe:
        """The conditions of the inputs at `index` of the batch."""
        if len(self.weights) == 1:
            return self
        return Unsafe(self.weights[index], self.bounds[index], self.disjunct, self.strict)


@dataclass(frozen=True, eq=False)
class Label:
    """The unsafe sets "some other class scores at least as high", before the number of classes is known: ``(batch,)``."""

    labels: Tensor


@dataclass(frozen=True, eq=False)
class Case:
    """One region (a batch of them) and what must not happen there."""

    region: Region
    unsafe: Unsafe


@dataclass(frozen=True, eq=False)
class LabelCase:
    """One region (a batch of them) on which a label must score strictly highest."""

    region: Region
    label: Label


@dataclass(frozen=True, eq=False)
class Property:
    """Holds when every case holds. Read from a file, or made by `robust`."""

    cases: tuple[Case | LabelCase, ...]
    path: str | None = None
    sha256: str | None = None

    @property
    def region(self) -> Region:
        """The region of the only case.

        Raises PropertyError: the property is about several regions; take one of ``property.cases``.
        """
        if len(self.cases) != 1:
            raise PropertyError(f"the property is about {len(self.cases)} regions; take one of property.cases")
        return self.cases[0].region

    def fitted(self, inputs: int, outputs: int) -> tuple[Case, ...]:
        """The cases, for a network with so many input and output entries.

        Raises PropertyError: the property speaks of another number of inputs or outputs, or of a class that is not there.
        """
        return tuple(self._fit(case, inputs, outputs) for case in self.cases)

    def _fit(self, case: Case | LabelCase, inputs: int, outputs: int) -> Case:
        place = f"{self.path}: " if self.path else ""
        if case.region.size != inputs:
            raise PropertyError(f"{place}the property has {case.region.size} input variables, but the network has {inputs} inputs")
        if isinstance(case, LabelCase):
            return Case(case.region, misclassified(case.label.labels, outputs))
        found = case.unsafe.weights.shape[-1]
        if found != outputs:
            raise PropertyError(f"{place}the property has {found} output variables, but the network has {outputs} outputs")
        return case


def robust(
    x: object,
    label: int | Tensor,
    epsilon: float,
    *,
    norm: Norm | str | float = Norm.LINF,
    clip: tuple[float, float] | None = None,
) -> Property:
    """The property that `label` scores strictly highest on the whole ball around `x`.

    ``m(y) = min over j != label of y_label - y_j``. `x` is one input (array or tensor of any shape), `epsilon` the
    radius in `norm`, `clip` the range that input entries keep to.

    Raises PropertyError: epsilon is negative or not finite, the label is out of range, or `x` is not finite.
    """
    centre = torch.as_tensor(x, dtype=torch.float64).reshape(1, -1)
    region = ball(centre, epsilon, Norm.named(norm), clip)
    return Property((LabelCase(region, Label(torch.as_tensor(label).reshape(1))),))


def misclassified(labels: Tensor, classes: int) -> Unsafe:
    """The unsafe sets "some other class scores at least as high as the label", for ``(batch,)`` labels.

    Raises PropertyError: a label is not one of ``0 .. classes - 1``, or there is only one class.
    """
    if classes < 2:
        raise PropertyError(f"robustness of a label needs a network with at least 2 outputs; this one has {classes}")
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise PropertyError(f"label {int(labels[at])} (input {at}) is out of range; the network has the classes 0 to {classes - 1}")
    eye = torch.eye(classes, dtype=torch.float64)
    others = torch.stack([torch.cat([torch.arange(k), torch.arange(k + 1, classes)]) for k in labels.tolist()])
    weights = eye[labels].unsqueeze(1) - eye[others]
    bounds = torch.zeros(len(labels), classes - 1, dtype=torch.float64)
    return Unsafe(weights, bounds, torch.arange(classes - 1))

"""Properties: for every input in the region, the output stays out of an unsafe set.

The unsafe set is in disjunctive normal form with linear atoms, ``OR_i AND_j (c_ij . y <= d_ij)``, and the margin

    m(y) = min_i max_j (c_ij . y - d_ij)

is positive exactly when ``y`` is safe (strict atoms, ``c . y < d``, make ``m(y) = 0`` safe as well).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from leaktight.errors import PropertyError
from leaktight.specs.region import Norm, Region, ball


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
        worst = atoms.new_full((*atoms.shape[:-1], self.disjuncts), -torch.inf)
        worst = worst.scatter_reduce(-1, self.disjunct.expand(atoms.shape), atoms, "amax")
        return worst.amin(-1) if self.disjuncts else atoms.new_full(atoms.shape[:-1], torch.inf)

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

    def select(self, index: Tensor | slice) -> Unsafe:
        """The conditions of the inputs at `index` of the batch."""
        if len(self.weights) == 1:
            return self
        inner = None if self.inner_bounds is None else self.inner_bounds[index]
        return Unsafe(self.weights[index], self.bounds[index], self.disjunct, self.strict, inner)


@dataclass(frozen=True, eq=False)
class Label:
    """The unsafe sets "some other class scores at least as high", ``(batch,)``, for a number of classes yet unknown."""

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


class Declared(Protocol):
    """What a network says about one of its inputs or outputs (leaktight.models.network.Port)."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Variable:
    """A tensor as a property file (VNN-LIB 2.0) declares it. `name` is the network's word for it where the file says it
    (`given`), else the file's own; `dtype` is the file's word for the element type, such as ``float32`` or ``real``."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "real"
    given: bool = False


@dataclass(frozen=True, eq=False)
class Property:
    """Holds when every case holds. Read from a file, or made by `robust`.

    `inputs` and `outputs` are what the file declares, where it declares tensors; the flat spaces of regions and output
    conditions have them one after the other. See `arranged`.
    """

    cases: tuple[Case | LabelCase, ...]
    path: str | None = None
    sha256: str | None = None
    inputs: tuple[Variable, ...] = ()
    outputs: tuple[Variable, ...] = ()

    @property
    def region(self) -> Region:
        """The region of the only case.

        Raises PropertyError: the property is about several regions; take one of ``property.cases``.
        """
        if len(self.cases) != 1:
            raise PropertyError(f"the property is about {len(self.cases)} regions; take one of property.cases")
        return self.cases[0].region

    def arranged(self, inputs: Sequence[Declared], outputs: Sequence[Declared]) -> Property:
        """The property about a network with these inputs and outputs, its entries in the network's order.

        Tensors that the property declares are matched by name where the names on both sides are the same ones, and by
        position where they are not. A property without declared tensors is returned as it is.

        Raises PropertyError: the number of tensors, or the shape of one, does not fit; or the file says a network's
        name that the network does not have.
        """
        place = f"{self.path}: " if self.path else ""
        columns = _columns(self.inputs, inputs, f"{place}input")
        rows = _columns(self.outputs, outputs, f"{place}output")
        if columns is None and rows is None:
            return self
        moved = tuple(_moved(case, columns, rows) for case in self.cases)
        return replace(self, cases=moved, inputs=(), outputs=())

    def fitted(self, inputs: int, outputs: int) -> tuple[Case, ...]:
        """The cases, for a network with so many input and output entries.

        Raises PropertyError: the property speaks of another number of inputs or outputs, or of a class that is not
        there; or labels or conditions are not as many as regions.
        """
        return tuple(self._fit(case, inputs, outputs) for case in self.cases)

    def _fit(self, case: Case | LabelCase, inputs: int, outputs: int) -> Case:
        place = f"{self.path}: " if self.path else ""
        size, batch = case.region.size, case.region.batch
        if size != inputs:
            raise PropertyError(
                f"{place}the property has {size} input variables, but the network has {inputs} inputs; "
                "give the property that belongs to this network"
            )
        if isinstance(case, LabelCase):
            _check_batch(place, len(case.label.labels), batch)
            return Case(case.region, misclassified(case.label.labels, outputs))
        found = case.unsafe.weights.shape[-1]
        if found != outputs:
            raise PropertyError(
                f"{place}the property has {found} output variables, but the network has {outputs} "
                "outputs; give the property that belongs to this network"
            )
        if len(case.unsafe.weights) != 1:
            _check_batch(place, len(case.unsafe.weights), batch)
        return case


def _check_batch(place: str, conditions: int, regions: int) -> None:
    if conditions != regions:
        raise PropertyError(
            f"{place}there are {regions} regions, but labels or output conditions for {conditions}; "
            "give one for each region"
        )


def _columns(variables: Sequence[Variable], ports: Sequence[Declared], place: str) -> Tensor | None:
    """Where each entry of the network's flat space lies in the property's; None: at the same place."""
    if not variables:
        return None
    names, wanted = [v.name for v in variables], [p.name for p in ports]
    if len(names) != len(wanted):
        raise PropertyError(
            f"{place}: the property declares {len(names)} ({', '.join(names)}), but the network has "
            f"{len(wanted)} ({', '.join(wanted)}); declare each of them"
        )
    absent = [v.name for v in variables if v.given and v.name not in wanted]
    if absent:
        raise PropertyError(f"{place}: the network has none called {absent[0]!r}; it has {', '.join(wanted)}")
    order = [names.index(name) for name in wanted] if set(names) == set(wanted) else list(range(len(names)))
    sizes = [prod(v.shape) for v in variables]
    for port, variable in zip(ports, (variables[i] for i in order), strict=True):
        if not _same_layout(variable.shape, port.shape):
            raise PropertyError(
                f"{place} {variable.name!r} has the shape {list(variable.shape)} in the property, but "
                f"{port.name!r} has {list(port.shape)} in the network; declare that shape"
            )
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    if order == sorted(order):
        return None
    return torch.cat([torch.arange(starts[i], starts[i] + sizes[i]) for i in order])


def _same_layout(declared: tuple[int, ...], actual: tuple[int, ...]) -> bool:
    """Whether entries correspond one to one in order: equal up to axes of length one, or declared flat."""
    core = [tuple(n for n in shape if n != 1) for shape in (declared, actual)]
    return core[0] == core[1] or (len(core[0]) == 1 and core[0][0] == prod(actual))


def _moved(case: Case | LabelCase, columns: Tensor | None, rows: Tensor | None) -> Case | LabelCase:
    if not isinstance(case, Case):
        raise ValueError("only properties from files declare tensors")
    region, unsafe = case.region, case.unsafe
    if columns is not None:
        region = region.permuted(columns)
    if rows is not None:
        unsafe = replace(unsafe, weights=unsafe.weights[..., rows])
    return Case(region, unsafe)


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
        raise PropertyError(
            f"label {int(labels[at])} (input {at}) is out of range; the network has the classes 0 to "
            f"{classes - 1}; correct the label or take another network"
        )
    eye = torch.eye(classes, dtype=torch.float64)
    others = torch.stack([torch.cat([torch.arange(k), torch.arange(k + 1, classes)]) for k in labels.tolist()])
    weights = eye[labels].unsqueeze(1) - eye[others]
    bounds = torch.zeros(len(labels), classes - 1, dtype=torch.float64)
    return Unsafe(weights, bounds, torch.arange(classes - 1))

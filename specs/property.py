"""Properties: for every input in the region, the output stays out of an unsafe set.

The unsafe set is in disjunctive normal form with linear atoms, ``OR_i AND_j (c_ij . y <= d_ij)``, and the margin

    m(y) = min_i max_j (c_ij . y - d_ij)

is positive exactly when ``y`` is safe (strict atoms, ``c . y < d``, make ``m(y) = 0`` safe as well).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from leaktight.errors import PropertyError
from leaktight.specs.declared import Declared, Variable, entry_places
from leaktight.specs.region import Norm, Region, ball
from leaktight.specs.unsafe import Unsafe, misclassified


@dataclass(frozen=True, eq=False)
class Label:
    """The unsafe sets "some other class scores at least as high", ``(batch,)``, for a number of classes yet unknown."""

    labels: Tensor


@dataclass(frozen=True, eq=False)
class Case:
    """One region (a batch of them) and what must not happen there."""

    region: Region
    unsafe: Unsafe

    def select(self, index: Tensor | slice) -> Case:
        """The same about the regions at `index` of the batch."""
        return Case(self.region.select(index), self.unsafe.select(index))

    def question(self, region: int, disjunct: int) -> Case:
        """One region and one disjunct of the unsafe set."""
        one = self.select(slice(region, region + 1))
        return Case(one.region, one.unsafe.alone(disjunct))


@dataclass(frozen=True, eq=False)
class LabelCase:
    """One region (a batch of them) on which a label must score strictly highest."""

    region: Region
    label: Label


class Asked(Protocol):
    """What a property is about (leaktight.models.network.Network)."""

    @property
    def inputs(self) -> Sequence[Declared]: ...

    @property
    def outputs(self) -> Sequence[Declared]: ...

    @property
    def input_size(self) -> int: ...

    @property
    def output_size(self) -> int: ...


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

    @property
    def file(self) -> dict[str, str | None]:
        """The file that it is from, as results name it."""
        return {"path": self.path, "sha256": self.sha256}

    def about(self, network: Asked) -> tuple[Case, ...]:
        """The cases that this network has to pass: `arranged` in its order, and `fitted` to its size.

        Raises PropertyError: the property does not fit the network.
        """
        arranged = self.arranged(network.inputs, network.outputs)
        return arranged.fitted(network.input_size, network.output_size)

    def arranged(self, inputs: Sequence[Declared], outputs: Sequence[Declared]) -> Property:
        """The property about a network with these inputs and outputs, its entries in the network's order.

        Tensors that the property declares are matched by name where the names on both sides are the same ones, and by
        position where they are not. A property without declared tensors is returned as it is.

        Raises PropertyError: the number of tensors, or the shape of one, does not fit; or the file says a network's
        name that the network does not have.
        """
        place = f"{self.path}: " if self.path else ""
        columns = entry_places(self.inputs, inputs, f"{place}input")
        rows = entry_places(self.outputs, outputs, f"{place}output")
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
    try:
        centre, size = torch.as_tensor(x, dtype=torch.float64).reshape(1, -1), float(epsilon)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PropertyError(f"robust: x and epsilon are not all numbers ({error}); give arrays and floats") from None
    region = ball(centre, size, Norm.named(norm), clip)
    return Property((LabelCase(region, Label(torch.as_tensor(label).reshape(1))),))

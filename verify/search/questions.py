"""The questions of a search over neurons: of each region, the disjuncts that are left to rule out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.specs.property import Case


@dataclass(frozen=True, eq=False)
class Questions:
    """Conjunctions of atoms that have to be ruled out: region ``(questions,)`` says where.

    weights ``(questions, atoms, outputs)``, bounds ``(questions, atoms)`` float64: ``weights . y <= bounds``; `real`
    marks atoms that are no padding. strict ``(questions,)``: all atoms say ``<``. disjunct ``(questions,)``: which of
    the case's it is.
    """

    region: Tensor
    weights: Tensor
    bounds: Tensor
    real: Tensor
    strict: Tensor
    disjunct: Tensor


def standing_questions(case: Case, standing: Tensor) -> Questions:
    """The disjuncts of each region that `standing` ``(regions, disjuncts)`` marks."""
    unsafe = case.unsafe
    members = [(unsafe.disjunct == k).nonzero().flatten() for k in range(unsafe.disjuncts)]
    index = torch.nn.utils.rnn.pad_sequence(members, batch_first=True)
    real = torch.arange(index.shape[1]) < torch.tensor([len(m) for m in members]).unsqueeze(1)
    region, disjunct = standing.nonzero().unbind(1)
    row, atom = (region if len(unsafe.weights) > 1 else torch.zeros_like(region)).unsqueeze(1), index[disjunct]
    strict = (unsafe.strict[index] | ~real).all(1)
    some = real[disjunct]
    return Questions(
        region,
        unsafe.weights[row, atom].double() * some.unsqueeze(-1),
        unsafe.bounds[row, atom].double() * some,
        some,
        strict[disjunct],
        disjunct,
    )


def open_questions(case: Case, atoms: Tensor) -> Questions:
    """The disjuncts, region by region, that proven lower bounds ``(regions, atoms)`` do not rule out."""
    return standing_questions(case, ~case.unsafe.ruled_out(atoms))


def whole_margin(case: Case, atoms: Tensor, lower: float) -> float:
    """A proven lower bound of the margin, from bounds of all atoms and one of all `open_questions`' margins."""
    worst, closed = case.unsafe.largest(atoms), case.unsafe.ruled_out(atoms)
    return float(torch.where(closed, worst, worst.clamp(min=lower)).amin())

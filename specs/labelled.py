"""Labelled inputs that were made in Python, as the engines take them."""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.errors import DataError


def labelled(inputs: Tensor, labels: Tensor, entries: int) -> tuple[Tensor, Tensor]:
    """Inputs ``(batch, ...)`` of so many entries each as float64 ``(batch, entries)``; labels ``(batch,)`` as int64.

    Raises DataError: they are of other shapes, of different lengths, none at all, or the labels are no whole numbers.
    """
    x, y = torch.as_tensor(inputs), torch.as_tensor(labels)
    if x.dim() < 2 or y.dim() != 1 or len(x) != len(y) or not len(x):
        raise DataError(
            f"inputs have the shape {list(x.shape)} and labels {list(y.shape)}; give inputs (batch, ...), at least one,"
            " and as many labels (batch,)"
        )
    if x[0].numel() != entries:
        raise DataError(
            f"each input has {x[0].numel()} entries, and the network {entries} inputs; give inputs that fit"
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise DataError(f"labels are {y.dtype}; give whole numbers")
    return x.double().flatten(1), y.long()

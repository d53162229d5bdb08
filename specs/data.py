"""Labelled data: inputs and the class that each belongs to, from npz, csv and idx files.

Values are taken as the file has them: pixels 0..255 stay 0..255. What a network wants done to them (mean and standard
deviation) becomes part of the network (leaktight.models.normalise), never a change to the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from leaktight.errors import DataError
from leaktight.specs.arrays import Array, check_counts, is_idx, is_npz, labels_beside, opened, read_idx, read_npz
from leaktight.specs.table import read_table


@dataclass(frozen=True, eq=False)
class LabelledData:
    """inputs ``(N, *shape)`` in float64, all finite; labels ``(N,)`` in int64, all ``>= 0``."""

    inputs: Tensor
    labels: Tensor
    path: str
    sha256: str

    def __len__(self) -> int:
        return len(self.labels)


class Input(Protocol):
    """What a network says about one of its inputs (leaktight.models.network.Port)."""

    @property
    def shape(self) -> tuple[int, ...]: ...


class Sized(Protocol):
    """What is asked of a network here (leaktight.models.network.Network)."""

    @property
    def input_size(self) -> int: ...

    @property
    def output_size(self) -> int: ...

    @property
    def inputs(self) -> Sequence[Input]: ...


def read_data(
    path: str | PathLike[str],
    *,
    labels: str | PathLike[str] | int | None = None,
    limit: int | None = None,
    shape: Sequence[int] | None = None,
) -> LabelledData:
    """The first `limit` (or all) labelled inputs in a file; the format is recognised by content.

    * npz: two arrays, called x and y (or X and y; inputs, images, data or features; labels, label, target or targets);
    `labels` is not for these.
    * csv: one input a row, separated by comma, semicolon, tab or blanks; a first line of titles is skipped. `labels`
    is the column of the label (0, the first, by default; negative numbers count from the back).
    * idx, plain or gzip (the MNIST format): `labels` is the file of labels; by default the one beside it whose name
    says labels-idx1 where this one's says images-idx3.

    `shape` gives the inputs that shape (row-major). `sha256` is that of the file's bytes (of the inputs, for idx).

    Raises DataError: the file is missing, damaged, too large or of another format; labels are missing, not integers or
    negative; a value is NaN or infinite; shapes do not fit; `limit` is not positive.
    """
    place = Path(path)
    if limit is not None and limit < 1:
        raise DataError(f"{place}: limit {limit} takes no input; give a limit of at least 1")
    with opened(place) as file:
        start = file.peek(4)[:4]
    if is_npz(start):
        if labels is not None:
            raise DataError(f"{place}: an npz file has its labels in itself; give none beside it")
        inputs, found = read_npz(place, limit)
    elif is_idx(start):
        if isinstance(labels, int):
            raise DataError(f"{place}: labels of idx files are in a second file; give its path, not a column")
        beside = labels_beside(place) if labels is None else Path(labels)
        (inputs, count), (found, labelled) = read_idx(place, limit), read_idx(beside, limit)
        check_counts(place, count, labelled)
    else:
        if not isinstance(labels, int | None):
            raise DataError(f"{place}: labels of a table are in one of its columns; give the column's number")
        inputs, found = read_table(place, labels or 0, limit)
    values = _values(place, inputs, shape)
    return LabelledData(
        torch.from_numpy(values), torch.from_numpy(_labels(place, found, len(values))), str(path), _digest(place)
    )


def fit(data: LabelledData, network: Sized, *, channels_last: bool = False) -> LabelledData:
    """The data as this network takes it: the entries of each input in the network's order.

    `channels_last` moves the last axis (of data shaped or meant as height, width, channels) to the front; nothing else
    reorders entries.

    Raises DataError: inputs have another number of entries than the network's, or another layout of as many; a label is
    not one of the network's outputs; channels_last, but the network has no single input of channels and two axes.
    """
    inputs = _channels_first(data, network) if channels_last else data.inputs
    entries = prod(inputs.shape[1:])
    if entries != network.input_size:
        raise DataError(
            f"{data.path}: each input has {entries} entries (shape {list(inputs.shape[1:])}), but the "
            f"network has {network.input_size} inputs; take the network's own data, or reshape it"
        )
    if len(network.inputs) == 1:
        given, wanted = _core(inputs.shape[1:]), _core(network.inputs[0].shape)
        if given != wanted and len(given) > 1 and len(wanted) > 1:
            raise DataError(
                f"{data.path}: inputs have the shape {list(given)}, but the network takes {list(wanted)}; "
                "move the axes (if channels come last: --channels-last, in Python channels_last=True), or flatten data "
                "whose order fits"
            )
    if len(data) and int(data.labels.max()) >= network.output_size:
        at = int(data.labels.argmax())
        raise DataError(
            f"{data.path}: input {at} has label {int(data.labels[at])}, but the network has the classes 0 "
            f"to {network.output_size - 1}; correct the label or take another network"
        )
    return replace(data, inputs=inputs)


def _core(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _channels_first(data: LabelledData, network: Sized) -> Tensor:
    image = network.inputs[0].shape[-3:] if len(network.inputs) == 1 else ()
    if len(image) != 3 or prod(image) != network.input_size:
        raise DataError(f"{data.path}: channels_last needs a network whose only input is (channels, height, width)")
    channels, height, width = image
    if prod(data.inputs.shape[1:]) != network.input_size or data.inputs.shape[1:] not in (
        (height, width, channels),
        (network.input_size,),
    ):
        raise DataError(
            f"{data.path}: inputs have the shape {list(data.inputs.shape[1:])}; with channels_last the "
            f"network needs {[height, width, channels]}, or {network.input_size} entries in that order"
        )
    return data.inputs.reshape(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()


def _values(place: Path, inputs: Array, shape: Sequence[int] | None) -> Array:
    if inputs.ndim < 2 or not len(inputs):
        raise DataError(
            f"{place}: the inputs have the shape {list(inputs.shape)}; expected (N, entries...) with N of at least 1"
        )
    if inputs.dtype.kind not in "fiub":
        raise DataError(f"{place}: the inputs are of type {inputs.dtype}; expected integers or floating-point numbers")
    values = inputs.astype(np.float64)
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise DataError(f"{place}: input {row} has NaN or infinite values; remove or correct it")
    if shape is None:
        return values
    if prod(shape) != prod(values.shape[1:]) or any(n < 1 for n in shape):
        raise DataError(
            f"{place}: each input has the shape {list(values.shape[1:])}, which is not {list(shape)} in "
            "another layout; give a shape with as many entries"
        )
    return values.reshape(-1, *shape)


def _labels(place: Path, found: Array, count: int) -> Array:
    flat = found.reshape(-1) if found.ndim == 2 and found.shape[1] == 1 else found
    if flat.shape != (count,):
        raise DataError(
            f"{place}: there are {count} inputs, but the labels have the shape {list(found.shape)}; give "
            "one class number for each input"
        )
    if flat.dtype.kind not in "fiu":
        raise DataError(f"{place}: the labels are of type {flat.dtype}; expected class numbers 0, 1, 2, ...")
    with np.errstate(invalid="ignore"):
        whole = flat.astype(np.int64)
    wrong = (whole != flat) | (whole < 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{place}: input {row} has label {flat[row]}; labels are class numbers 0, 1, 2, ...")
    return whole


def _digest(place: Path) -> str:
    digest = hashlib.sha256()
    with place.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

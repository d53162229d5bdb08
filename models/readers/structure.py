"""Readers of operators that only move entries: values become a `Select` or `Reshape`, constants are moved."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from leaktight.models.enclosure import exactly
from leaktight.models.ops import Concat
from leaktight.models.readers.lowering import ONE, moved, normalized_axes, scaled, select
from leaktight.models.readers.node import Known, Operand, Reading, reads


@reads("Identity")
def identity(node: Reading) -> Operand:
    return node.operand(0)


@reads("Dropout")
def dropout(node: Reading) -> Operand:
    node.attributes.number("ratio", 0.5)
    node.attributes.integer("seed", 0)
    node.has(1)
    if node.has(2) and np.any(node.known(2).array):
        raise node.refused("it is in training mode; inference is allowed; export the model in evaluation mode")
    return node.operand(0)


@reads("Flatten")
def flatten(node: Reading) -> Operand:
    x = node.operand(0)
    axis = node.attributes.integer("axis", 1)
    if not -len(x.shape) <= axis <= len(x.shape):
        raise node.wrong(f"axis {axis} does not fit a value of {len(x.shape)} axes")
    axis = axis + len(x.shape) if axis < 0 else axis
    return moved(node, x, lambda a: a.reshape(prod(x.shape[:axis]), prod(x.shape[axis:])))


@reads("Reshape")
def reshaped(node: Reading) -> Operand:
    x, target = node.operand(0), node.whole(1)
    keep_zero = node.attributes.integer("allowzero", 0)
    sizes = [x.shape[i] if n == 0 and not keep_zero and i < len(x.shape) else n for i, n in enumerate(target)]
    known = prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and known > 0:
        sizes[sizes.index(-1)] = prod(x.shape) // known
    if any(n < 0 for n in sizes) or prod(sizes) != prod(x.shape):
        raise node.wrong(
            f"the shape {list(x.shape)} cannot become {target}: the sizes differ (a free batch dimension "
            "counts as one); "
            "export the model with a batch of one"
        )
    return moved(node, x, lambda a: a.reshape(sizes))


def _axes(node: Reading) -> list[int] | None:
    """Axes as attribute (operator sets up to 12) or as second input."""
    given = node.attributes.integers("axes")
    return given if given is not None or not node.has(1) else node.whole(1)


@reads("Squeeze")
def squeeze(node: Reading) -> Operand:
    x, given = node.operand(0), _axes(node)
    axes = [i for i, n in enumerate(x.shape) if n == 1] if given is None else normalized_axes(node, given, len(x.shape))
    if any(x.shape[axis] != 1 for axis in axes):
        raise node.wrong(f"the axes {axes} of a value of shape {list(x.shape)} are not all of length one")
    return moved(node, x, lambda a: a.reshape([n for i, n in enumerate(a.shape) if i not in axes]))


@reads("Unsqueeze")
def unsqueeze(node: Reading) -> Operand:
    x, given = node.operand(0), _axes(node)
    if given is None:
        raise node.wrong("the axes are missing")
    axes = normalized_axes(node, given, len(x.shape) + len(given))
    return moved(node, x, lambda a: np.expand_dims(a, tuple(axes)))


@reads("Transpose")
def transpose(node: Reading) -> Operand:
    x = node.operand(0)
    order = node.attributes.integers("perm")
    order = list(range(len(x.shape)))[::-1] if order is None else order
    if sorted(order) != list(range(len(x.shape))):
        raise node.wrong(f"perm {order} does not order the {len(x.shape)} axes of {x.name!r}")
    return moved(node, x, lambda a: a.transpose(order))


@reads("Concat")
def concat(node: Reading) -> Operand:
    parts = [node.operand(i) for i in range(node.count)]
    (axis,) = normalized_axes(node, [node.attributes.integer("axis", 1)], len(parts[0].shape))
    if len({(len(x.shape), x.shape[:axis], x.shape[axis + 1 :]) for x in parts}) > 1:
        raise node.wrong(
            f"values of shapes {', '.join(str(list(x.shape)) for x in parts)} cannot be joined along axis {axis}"
        )
    known = [x for x in parts if isinstance(x, Known)]
    node.affordable(sum(prod(x.shape) for x in parts))
    if len(known) == len(parts):
        exact = all(x.error is None for x in known)
        error = None if exact else np.concatenate([x.enclosure.error for x in known], axis)
        return Known("", np.concatenate([x.array for x in known], axis), error)
    values = [node.lifted(x) for x in parts if prod(x.shape)]
    if len(values) == 1:
        return values[0]
    shape = list(values[0].shape)
    shape[axis] = sum(x.shape[axis] for x in values)
    return node.emit(Concat(axis - len(shape)), values, shape)


@reads("Split")
def split(node: Reading) -> Sequence[Operand]:
    x = node.operand(0)
    (axis,) = normalized_axes(node, [node.attributes.integer("axis", 0)], len(x.shape))
    extent = x.shape[axis]
    sizes = node.whole(1) if node.has(1) else node.attributes.integers("split")
    pieces = node.attributes.integer("num_outputs", len(node.outputs))
    if sizes is None:
        piece = -(-extent // pieces)
        sizes = [max(0, min(piece, extent - i * piece)) for i in range(pieces)]
    if sum(sizes) != extent or any(n < 0 for n in sizes) or len(sizes) != len(node.outputs):
        raise node.wrong(f"axis {axis} of length {extent} cannot be split into {len(node.outputs)} pieces {sizes}")
    ends = np.cumsum(sizes)
    return [_cut(node, x, axis, slice(int(end) - n, int(end))) for n, end in zip(sizes, ends, strict=True)]


def _cut(node: Reading, x: Operand, axis: int, part: slice) -> Operand:
    return moved(node, x, lambda a: a[(*[slice(None)] * axis, part)])


@reads("Slice")
def sliced(node: Reading) -> Operand:
    x = node.operand(0)
    if node.opset < 10:
        starts, ends = node.attributes.integers("starts"), node.attributes.integers("ends")
        axes, steps = node.attributes.integers("axes"), None
    else:
        starts, ends = node.whole(1), node.whole(2)
        axes, steps = node.whole(3) if node.has(3) else None, node.whole(4) if node.has(4) else None
    if starts is None or ends is None:
        raise node.wrong("starts or ends are missing")
    axes = normalized_axes(node, list(range(len(starts))) if axes is None else axes, len(x.shape))
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.wrong(f"starts {starts}, ends {ends}, axes {axes} and steps {steps} do not fit together")
    cut = [slice(None)] * len(x.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        cut[axis] = slice(start, end, step)
    return moved(node, x, lambda a: a[tuple(cut)])


def _indices(node: Reading, extent: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    found = node.known(1).array
    if found.dtype.kind not in "iu":
        raise node.wrong(f"the indices have element type {found.dtype}; an integer type is needed")
    index = found.astype(np.int64)
    if ((index < -extent) | (index >= extent)).any():
        raise node.wrong(f"an index lies outside [{-extent}, {extent - 1}]")
    return np.where(index < 0, index + extent, index)


@reads("Gather")
def gather(node: Reading) -> Operand:
    x = node.operand(0)
    (axis,) = normalized_axes(node, [node.attributes.integer("axis", 0)], len(x.shape))
    index = _indices(node, x.shape[axis])
    node.affordable(index.size * prod(x.shape) // max(1, x.shape[axis]))
    return moved(node, x, lambda a: np.take(a, index, axis))


@reads("GatherElements")
def gather_elements(node: Reading) -> Operand:
    x = node.operand(0)
    (axis,) = normalized_axes(node, [node.attributes.integer("axis", 0)], len(x.shape))
    index = _indices(node, x.shape[axis])
    if index.ndim != len(x.shape) or any(index.shape[i] > n for i, n in enumerate(x.shape) if i != axis):
        raise node.wrong(f"indices of shape {list(index.shape)} do not fit a value of shape {list(x.shape)}")
    trimmed = tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(index.shape))
    return moved(node, x, lambda a: np.take_along_axis(a[trimmed], index, axis))


@reads("Expand")
def expand(node: Reading) -> Operand:
    x, target = node.operand(0), node.whole(1)
    try:
        shape = np.broadcast_shapes(x.shape, tuple(target))
    except ValueError:
        raise node.wrong(f"the shape {list(x.shape)} cannot be expanded to {target}") from None
    node.affordable(prod(shape))
    return moved(node, x, lambda a: np.broadcast_to(a, shape))


@reads("Tile")
def tile(node: Reading) -> Operand:
    x, repeats = node.operand(0), node.whole(1)
    if len(repeats) != len(x.shape) or any(n < 0 for n in repeats):
        raise node.wrong(f"repeats {repeats} do not fit a value of shape {list(x.shape)}")
    node.affordable(prod(x.shape) * prod(repeats))
    return moved(node, x, lambda a: np.tile(a, repeats))


@reads("DepthToSpace")
def depth_to_space(node: Reading) -> Operand:
    x, block = node.operand(0), node.attributes.integer("blocksize", 0)
    mode = node.attributes.text("mode", "DCR")
    if len(x.shape) != 4 or block < 1 or x.shape[1] % block**2 or mode not in ("DCR", "CRD"):
        raise node.wrong(f"block size {block} and mode {mode} do not fit a value of shape {list(x.shape)}")
    n, c, h, w = x.shape
    depth = c // block**2
    inner = (block, block, depth) if mode == "DCR" else (depth, block, block)
    order = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    return moved(node, x, lambda a: a.reshape(n, *inner, h, w).transpose(order).reshape(n, depth, h * block, w * block))


@reads("SpaceToDepth")
def space_to_depth(node: Reading) -> Operand:
    x, block = node.operand(0), node.attributes.integer("blocksize", 0)
    if len(x.shape) != 4 or block < 1 or x.shape[2] % block or x.shape[3] % block:
        raise node.wrong(f"block size {block} does not fit a value of shape {list(x.shape)}")
    n, c, h, w = x.shape
    inner = (n, c, h // block, block, w // block, block)
    return moved(
        node, x, lambda a: a.reshape(inner).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)
    )


@reads("Pad")
def pad(node: Reading) -> Operand:
    x, mode = node.operand(0), node.attributes.text("mode", "constant")
    pads = node.whole(1) if node.opset >= 11 else node.attributes.integers("pads")
    rank = len(x.shape)
    axes = normalized_axes(node, node.whole(3), rank) if node.has(3) else list(range(rank))
    if pads is None or len(pads) != 2 * len(axes) or mode not in ("constant", "reflect", "edge", "wrap"):
        raise node.wrong(f"mode {mode!r} and pads {pads} do not fit a value of {rank} axes")
    fill = _fill(node)
    grow, cut = [(0, 0)] * rank, [slice(None)] * rank
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        grow[axis] = (max(begin, 0), max(end, 0))
        cut[axis] = slice(max(-begin, 0), max(x.shape[axis] + min(end, 0), 0))
        if (mode == "reflect" and max(begin, end) >= x.shape[axis]) or (mode != "constant" and min(begin, end) < 0):
            raise node.refused(
                f"pads {pads} in mode {mode}: at most the length of the axis less one, and none negative, is allowed"
            )
    node.affordable(prod(n + a + b for n, (a, b) in zip(x.shape, grow, strict=True)))
    if mode != "constant":
        return moved(node, x, lambda a: np.pad(a, grow, mode))  # type: ignore[call-overload]
    if isinstance(x, Known):
        return Known(
            "",
            np.pad(x.array[tuple(cut)], grow, constant_values=fill),
            None if x.error is None else np.pad(x.error[tuple(cut)], grow),
        )
    index = np.pad(np.arange(x.size).reshape(x.shape)[tuple(cut)], grow, constant_values=-1)
    padded = node.lifted(select(node, x, index, part="pad"))
    return padded if fill == 0 else scaled(node, padded, ONE, exactly(np.where(index < 0, fill, 0.0)))


def _fill(node: Reading) -> float:
    """The constant that Pad writes."""
    if node.opset < 11:
        return node.attributes.number("value", 0.0)
    if not node.has(2):
        return 0.0
    fill = node.known(2)
    if fill.array.size != 1:
        raise node.wrong(f"the constant to pad with has {fill.array.size} entries; one is allowed")
    return float(node.finite(fill).value.item()) if fill.floating else float(fill.array.item())

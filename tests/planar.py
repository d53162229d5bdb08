"""The exact smallest margin of a network of two inputs: the box is cut along every kink, and vertices are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Affine, TwoSlope

Number = TypeVar("Number", float, Fraction)
Point = tuple[float, float]
Plane = tuple[float, float, float]  # p x + q y + r


def value(plane: Plane, point: Point) -> float:
    return plane[0] * point[0] + plane[1] * point[1] + plane[2]


def combined(weights: list[float], planes: list[Plane], bias: float) -> Plane:
    p, q, r = (sum(w * plane[k] for w, plane in zip(weights, planes, strict=True)) for k in range(3))
    return p, q, r + bias


def cut(polygon: Sequence[tuple[Number, Number]], values: Sequence[Number]) -> list[tuple[Number, Number]]:
    """The part of a convex polygon on which an affine function, with these values at its corners, is not negative."""
    kept = []
    for k, (here, a) in enumerate(zip(polygon, values, strict=True)):
        there, b = polygon[(k + 1) % len(polygon)], values[(k + 1) % len(polygon)]
        if a >= 0:
            kept.append(here)
        if a * b < 0:
            t = a / (a - b)
            kept.append((here[0] + t * (there[0] - here[0]), here[1] + t * (there[1] - here[1])))
    return kept


def half(polygon: list[Point], plane: Plane, sign: int) -> list[Point]:
    """The part of a convex polygon on which ``sign * plane >= 0``."""
    return cut(polygon, [sign * value(plane, point) for point in polygon])


def smallest_margin(network: Network, box: tuple[Point, Point], atoms: list[tuple[list[float], float, int]]) -> float:
    """The minimum over the box ``(lower, upper)`` of ``min_i max_j`` of atoms ``(c, d, i)``: ``c . y - d``.

    For a chain of affine nodes and Leaky ReLUs. Linear on every cell of activation patterns; a conjunction is cut along
    the lines on which two of its atoms are equal.
    """
    (left, low), (right, high) = box
    cells: list[tuple[list[Point], list[Plane]]] = [
        ([(left, low), (right, low), (right, high), (left, high)], [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)])
    ]
    for node in network:
        if isinstance(node.op, Affine):
            matrix, bias = _affine(node.op, network.by_name[node.inputs[0]].shape)
            cells = [(c, [combined(row, p, b) for row, b in zip(matrix, bias, strict=True)]) for c, p in cells]
        elif isinstance(node.op, TwoSlope):
            slopes = node.op.left.double().expand(node.shape).flatten().tolist()
            for k, slope in enumerate(slopes):
                cells = [
                    (part, [*planes[:k], tuple(x * scale for x in planes[k]), *planes[k + 1 :]])  # type: ignore[list-item]
                    for cell, planes in cells
                    for sign, scale in ((1, 1.0), (-1, slope))
                    if len(part := half(cell, planes[k], sign)) > 2
                ]
    return min(_least(cell, planes, atoms) for cell, planes in cells)


def _affine(op: Affine, shape: tuple[int, ...]) -> tuple[list[list[float]], list[float]]:
    size = int(torch.tensor(shape).prod())
    unit: Tensor = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    bias = op(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
    matrix = (op(unit).reshape(size, -1) - bias).T
    return matrix.tolist(), bias.tolist()


def _least(cell: list[Point], planes: list[Plane], atoms: list[tuple[list[float], float, int]]) -> float:
    values = list[float]()
    for i in {atom[2] for atom in atoms}:
        own = [combined(c, planes, -d) for c, d, k in atoms if k == i]
        parts = [cell]
        for a in range(len(own)):
            for b in range(a):
                gap: Plane = combined([1.0, -1.0], [own[a], own[b]], 0.0)
                parts = [part for old in parts for sign in (1, -1) if (part := half(old, gap, sign))]
        values += [max(value(plane, point) for plane in own) for part in parts for point in part]
    return min(values)

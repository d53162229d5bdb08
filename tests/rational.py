"""The exact smallest margin of a network of which two inputs vary, in rational arithmetic: all linear pieces.

An oracle that shares nothing with ``leaktight.verify``: the box is cut along every kink into convex polygons, on each
of which the network is affine; on each polygon the margin is cut once more where two atoms are equal, and is least at
a vertex. Every number is a fraction, so nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from networks import _fractions, _matrix
from planar import cut

from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Clip, Maximum, TwoSlope
from leaktight.specs.property import Case

Point = tuple[Fraction, Fraction]
Plane = tuple[Fraction, Fraction, Fraction]  # p x + q y + r
Polygon = list[Point]
Known = Mapping[str, list[Plane]]
ZERO, ONE = Fraction(0), Fraction(1)


def at(plane: Plane, point: Point) -> Fraction:
    return plane[0] * point[0] + plane[1] * point[1] + plane[2]


def combined(weights: Sequence[Fraction], planes: Sequence[Plane], constant: Fraction = ZERO) -> Plane:
    terms = [(w, plane) for w, plane in zip(weights, planes, strict=True) if w]
    p, q, r = (sum((w * plane[k] for w, plane in terms), ZERO) for k in range(3))
    return p, q, r + constant


def part(polygon: Polygon, plane: Plane, sign: int) -> Polygon:
    """The convex polygon's part where ``sign * plane >= 0``; empty, a point or a segment are parts as well."""
    values = [sign * at(plane, point) for point in polygon]
    if min(values) >= 0:
        return polygon
    return cut(polygon, values)


def pieces(network: Network, axes: list[Plane], corners: Polygon) -> Iterator[tuple[Polygon, Known]]:
    """Polygons that cover the given one, each with every node's value on it as affine functions. `axes`: the inputs."""
    first: dict[str, list[Plane]] = {}
    for port in network.inputs:
        first[port.name], axes = axes[: port.size], axes[port.size :]
    cells: list[tuple[Polygon, dict[str, list[Plane]]]] = [(corners, first)]
    for node in network:
        if node.name not in first:
            cells = [
                (polygon, {**known, node.name: planes})
                for cell, known in cells
                for polygon, planes in _through(network, node, cell, known)
            ]
    yield from cells


def _through(network: Network, node: Node, cell: Polygon, known: Known) -> Iterator[tuple[Polygon, list[Plane]]]:
    inputs = [known[name] for name in node.inputs]
    if isinstance(node.op, Affine):
        yield cell, _affine(network, node, node.op, inputs)
        return
    if isinstance(node.op, TwoSlope):
        op = node.op
        columns = zip(*(_fractions(p, node.shape) for p in (op.left, op.right, op.kink, op.value)), strict=True)
        options = [
            [(1, _shift(z, -k), _line(z, r, k, v)), (-1, _shift(z, -k), _line(z, s, k, v))]
            for z, (s, r, k, v) in zip(inputs[0], columns, strict=True)
        ]
        conditions = [[[(sign, gap)] for sign, gap, _ in o] for o in options]
        values = [[value for *_, value in o] for o in options]
    elif isinstance(node.op, Clip):
        low, high = Fraction(node.op.lower), Fraction(node.op.upper)
        conditions = [
            [[(-1, _shift(z, -low))], [(1, _shift(z, -low)), (-1, _shift(z, -high))], [(1, _shift(z, -high))]]
            for z in inputs[0]
        ]
        values = [[(ZERO, ZERO, low), z, (ZERO, ZERO, high)] for z in inputs[0]]
    elif isinstance(node.op, Maximum):
        width = len(inputs[0]) // node.size
        groups = [inputs[0][i * width : (i + 1) * width] for i in range(node.size)]
        conditions = [
            [[(1, combined([ONE, -ONE], [z, other])) for other in group if other is not z] for z in group]
            for group in groups
        ]
        values = [list(group) for group in groups]
    else:
        raise TypeError(f"{type(node.op).__name__} is not piecewise linear")
    yield from _choices(cell, conditions, values)


def _choices(
    cell: Polygon, conditions: list[list[list[tuple[int, Plane]]]], values: list[list[Plane]]
) -> Iterator[tuple[Polygon, list[Plane]]]:
    """Every way to choose one option for each entry that leaves something of the cell."""
    if not conditions:
        yield cell, []
        return
    for wanted, value in zip(conditions[0], values[0], strict=True):
        polygon = cell
        for sign, plane in wanted:
            polygon = part(polygon, plane, sign) if polygon else polygon
        if polygon:
            for rest, planes in _choices(polygon, conditions[1:], values[1:]):
                yield rest, [value, *planes]


def _shift(plane: Plane, by: Fraction) -> Plane:
    return plane[0], plane[1], plane[2] + by


def _line(z: Plane, slope: Fraction, kink: Fraction, value: Fraction) -> Plane:
    return combined([slope], [z], value - slope * kink)


def _affine(network: Network, node: Node, op: Affine, inputs: list[list[Plane]]) -> list[Plane]:
    total: list[Plane] = [(ZERO, ZERO, b) for b in _fractions(op.bias_value, node.shape)]
    for i, planes in enumerate(inputs):
        rows = _matrix(network, node, i)
        more = [combined([Fraction(w) for w in row], planes) for row in rows]
        total = [(a[0] + b[0], a[1] + b[1], a[2] + b[2]) for a, b in zip(total, more, strict=True)]
    return total


def smallest_margin(network: Network, case: Case) -> Fraction:
    """The minimum of the margin over the case's box, in which at most two inputs vary; for parameters as stored."""
    walls = [[Fraction(x) for x in wall[0].tolist()] for wall in (case.region.lower, case.region.upper)]
    moving = [i for i, (low, high) in enumerate(zip(*walls, strict=True)) if low < high]
    (left, low), (right, high) = ([wall[i] for i in moving] for wall in walls)
    axes: list[Plane] = [(ZERO, ZERO, value) for value in walls[0]]
    axes[moving[0]], axes[moving[1]] = (ONE, ZERO, ZERO), (ZERO, ONE, ZERO)
    corners = [(left, low), (right, low), (right, high), (left, high)]
    return min(_least(network, case, *piece) for piece in pieces(network, axes, corners))


def _least(network: Network, case: Case, polygon: Polygon, known: Known) -> Fraction:
    outputs = [plane for port in network.outputs for plane in known[port.name]]
    unsafe, best = case.unsafe, []
    for disjunct in range(unsafe.disjuncts):
        atoms = (unsafe.disjunct == disjunct).nonzero().flatten().tolist()
        own = [
            combined(
                [Fraction(w) for w in unsafe.weights[0, j].tolist()], outputs, -Fraction(float(unsafe.bounds[0, j]))
            )
            for j in atoms
        ]
        for k, plane in enumerate(own):  # where this atom is the largest
            cell = polygon
            for other in own[:k] + own[k + 1 :]:
                cell = part(cell, combined([ONE, -ONE], [plane, other]), 1) if cell else cell
            best += [at(plane, point) for point in cell]
    return min(best)

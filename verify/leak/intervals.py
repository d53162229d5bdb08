"""Interval facts over a region and a range of slopes at once: values, and what moving the slope adds to them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.ops import TwoSlope
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify.bounds.interval import Interval, input_intervals, step
from leaktight.verify.rounding import down, trusted_lower, trusted_upper, underflow, unit, up

Known = Mapping[str, Interval]


def over_range(slopes: Slopes, region: Region, lo: Tensor, hi: Tensor) -> dict[str, Interval]:
    """Bounds of every node's value for all inputs of the region and all slopes in ``[lo, hi]``, both ``(batch,)``.

    For a fixed input of the activation its value is affine in the slope, so the values at the two ends enclose it.
    """
    first, last = slopes.at(lo), slopes.at(hi)
    known = input_intervals(first, region)
    for node in first:
        if node.name in known:
            continue
        given = [known[name] for name in node.inputs]
        found = step(node, given, region.batch)
        if node.name in slopes.nodes:
            found = hull(found, step(last.by_name[node.name], given, region.batch))
        known[node.name] = found
    return known


def departures(slopes: Slopes, known: Known) -> dict[str, Interval]:
    """By how much each chosen activation's value moves per unit of slope, its input held still; ``(batch, *shape)``.

    It is the rate of the leaky side times how far the input reaches into it: ``min(z, 0)`` for a plain Leaky ReLU.
    """
    return {name: departure(slopes, name, known) for name in slopes.nodes}


def departure(slopes: Slopes, name: str, known: Known) -> Interval:
    """That of one of them."""
    node = slopes.network.by_name[name]
    op = node.op
    if not isinstance(op, TwoSlope):
        raise InternalError(f"node {name!r} is no Leaky ReLU, and its slope was to move")
    z = known[node.inputs[0]]
    reach = beyond(op, z)
    precision, found = slopes.rate_precision(name), list[Interval]()
    for rate, ends in zip(slopes.rate(name), ({"max": 0.0}, {"min": 0.0}), strict=True):
        if bool(rate.any()):
            found.append(
                product(around(rate, precision), Interval(reach.lower.clamp(**ends), reach.upper.clamp(**ends)))
            )
    if not found:
        return Interval(torch.zeros_like(z.lower), torch.zeros_like(z.lower))
    if len(found) == 1:
        return found[0]
    # one of the two rates is zero in each entry, and so is its product: nothing is rounded here
    return Interval(found[0].lower + found[1].lower, found[0].upper + found[1].upper)


def beyond(op: TwoSlope, z: Interval) -> Interval:
    """Bounds of ``z - kink``."""
    kink = around(op.kink, op.precision)
    if not bool(kink.lower.any() or kink.upper.any()):
        return z
    return Interval(down(z.lower - kink.upper), up(z.upper - kink.lower))


def around(parameter: Tensor, precision: float) -> Interval:
    """A parameter known up to a relative precision."""
    if precision == 0:
        return Interval(parameter, parameter)
    error = up(parameter.abs() * precision)
    still = parameter == 0  # a relative error of zero is zero
    return Interval(
        torch.where(still, parameter, down(parameter - error)), torch.where(still, parameter, up(parameter + error))
    )


def hull(a: Interval, b: Interval) -> Interval:
    """The smallest interval that holds both."""
    return Interval(torch.minimum(a.lower, b.lower), torch.maximum(a.upper, b.upper))


def product(a: Interval, b: Interval) -> Interval:
    """Bounds of ``x y`` for ``x`` and ``y`` in the intervals, entry by entry; exactly zero where a factor is.

    The factors are finite numbers even where nothing bounds them, so zero times an unbounded one is zero.
    """
    sides = (a.lower,) if a.lower is a.upper else (a.lower, a.upper)
    ends = [x * y for x in sides for y in (b.lower, b.upper)]
    ends = [end.masked_fill(end.isnan(), 0.0) for end in ends]
    low, high = torch.minimum(*ends[:2]), torch.maximum(*ends[:2])
    if len(ends) > 2:
        low, high = torch.minimum(low, torch.minimum(*ends[2:])), torch.maximum(high, torch.maximum(*ends[2:]))
    tiny = underflow(low.dtype) * ((a.magnitude > 0) & (b.magnitude > 0))
    eps = 2 * unit(low.dtype)
    low, high = low - (low.abs() * eps + tiny), high + (high.abs() * eps + tiny)
    return Interval(trusted_lower(low), trusted_upper(high))

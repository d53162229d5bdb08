"""The product of norms: the oldest Lipschitz bound, in any norm."""

from __future__ import annotations

from leaktight.models.enclosure import exactly
from leaktight.specs.region import Norm
from leaktight.verify.clock import left
from leaktight.verify.lipschitz.layers import Layers, Stage
from leaktight.verify.lipschitz.norms import operator_norm, plus, times

_SPEED = 1e7  # entries of enclosures that are multiplied in a second


def product(network: Layers, norm: Norm) -> float:
    """At least the Lipschitz constant in `norm`: for a chain the product of its layers' norms.

    A stage multiplies a difference's length by at most ``|keep| + |feed| |d weight|``, with ``d`` the steepest slope of
    each neuron: the triangle inequality. For a chain of layers without skip connections ``keep`` is zero.
    """
    bound = operator_norm(network.first, norm)
    for stage in network.stages:
        bound = times(bound, _growth(stage, norm))
    return times(bound, operator_norm(network.last, norm))


def _growth(stage: Stage, norm: Norm) -> float:
    steepest = stage.sector.steepest
    if stage.weight is None:
        inner = float(steepest.max(initial=0.0))
    elif left() < stage.weight.value.size / _SPEED:
        inner = times(float(steepest.max(initial=0.0)), operator_norm(stage.weight, norm))
    else:
        inner = operator_norm(exactly(steepest[:, None]) * stage.weight, norm)
    growth = times(operator_norm(stage.feed, norm), inner)
    return growth if stage.keep is None else plus(growth, operator_norm(stage.keep, norm))

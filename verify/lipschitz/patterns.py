"""How small a bound from sectors can be: the largest norm of a Jacobian over all patterns of slopes.

Every method that knows only sectors bounds ``max |last ... d_k weight_k ... first|`` over all slopes ``d`` in them, so
it cannot go below any one of these norms. They are not attained constants: a pattern need not belong to any input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from leaktight.models.enclosure import Array, Enclosure
from leaktight.models.network import Network
from leaktight.specs.region import Norm
from leaktight.verify.clock import tick
from leaktight.verify.lipschitz.layers import Layers
from leaktight.verify.rounding import gamma

_ROUNDS = 50


@np.errstate(over="ignore", invalid="ignore")  # such a number proves nothing, and is dropped
def steepest_pattern(
    layers: Layers, norm: Norm, *, network: Network | None = None, starts: int = 8, seed: int = 0
) -> float:
    """A number that no bound from these sectors is below in `norm`, up to the weights' own errors.

    With a direction ``x`` and a functional ``y`` for which ``y^T J x`` is the norm of ``J``, the derivative by a slope
    is what ``y`` makes of its neuron's output times what ``x`` makes of its input. Stage by stage every slope goes to
    the end of its sector where that is larger: ``J`` is affine in the slopes of one stage and the norm convex, so the
    norm never falls. Where the `network` is given, half of the ascents start from slopes that it has at random inputs.
    """
    ascent, generator = _Ascent(layers, norm), np.random.default_rng(seed)
    best = 0.0
    for start in range(starts):
        slopes = [stage.sector.high.copy() for stage in layers.stages]
        if start % 2 and network is not None:
            slopes = _slopes_at(network, layers, torch.from_numpy(generator.standard_normal((1, network.input_size))))
        elif start:
            for stage, own in zip(layers.stages, slopes, strict=True):
                low = generator.random(len(own)) < 0.5
                own[low] = stage.sector.low[low]
        best = max(best, ascent.climbed(slopes))
    return best


class _Ascent:
    def __init__(self, layers: Layers, norm: Norm) -> None:
        self.layers, self.norm = layers, norm
        size = layers.sizes[0]
        self.first = np.eye(size) if layers.first is None else layers.first.value
        self.last = np.eye(layers.sizes[-1]) if layers.last is None else layers.last.value
        wide = norm is Norm.L2 and self.first.shape[1] > size
        self.begun: Array = np.linalg.qr(self.first.T)[1].T if wide else self.first
        """The same up to a rotation of the inputs: no norm is another, and no derivative by a slope."""

    def climbed(self, slopes: list[Array]) -> float:
        """The norm's proven value at the end of an ascent from `slopes`, which change."""
        value = 0.0
        for _ in range(_ROUNDS):
            self._improve(slopes)
            new = _least(self.jacobian(slopes), self.norm, self._off(slopes))
            if new <= value * (1 + 1e-9):
                break
            value = new
        return max(value, _least(self.jacobian(slopes), self.norm, self._off(slopes)))

    def jacobian(self, slopes: Sequence[Array], size: bool = False) -> Array:
        """``J``; with `size` the same of absolute values, which bounds what rounding and errors do to it."""
        part = _sized if size else _plain
        state = np.abs(self.first) if size else self.first
        for stage, own in zip(self.layers.stages, slopes, strict=True):
            state = _step(state, stage.weight, stage.feed, stage.keep, np.abs(own) if size else own, part)
        found: Array = (np.abs(self.last) if size else self.last) @ state
        return found

    def _improve(self, slopes: list[Array]) -> None:
        """Stage by stage slopes to the ends of their sectors, along the derivative of the norm."""
        ahead, backs = self.begun, self._backs(slopes)
        for k, (stage, back) in enumerate(zip(self.layers.stages, backs, strict=False)):
            moved = _step(ahead, stage.weight, stage.feed, stage.keep, slopes[k], _plain)
            left, right = _top(back @ moved, self.norm)
            enters = ahead @ right if stage.weight is None else stage.weight.value @ (ahead @ right)
            leaves = left @ back if stage.feed is None else (left @ back) @ stage.feed.value
            gain, sector = leaves * enters, stage.sector
            slopes[k] = np.where(gain > 0, sector.high, np.where(gain < 0, sector.low, slopes[k]))
            ahead = _step(ahead, stage.weight, stage.feed, stage.keep, slopes[k], _plain)

    def _backs(self, slopes: Sequence[Array]) -> list[Array]:
        """For every stage the map from the state behind it to the output."""
        found = [self.last]
        for stage, own in zip(reversed(self.layers.stages[1:]), reversed(slopes[1:]), strict=True):
            found.append(_back(found[-1], stage.weight, stage.feed, stage.keep, own))
        return found[::-1]

    def _off(self, slopes: Sequence[Array]) -> Array:
        terms = sum(self.layers.sizes) + self.layers.neurons + len(self.first.T) + 4 * len(slopes) + 8
        found: Array = self.jacobian(slopes, size=True) * gamma(2 * terms, torch.float64)
        return found


def _slopes_at(network: Network, layers: Layers, x: Tensor) -> list[Array]:
    """The slope of every neuron at an input, stage by stage, inside its sector."""
    values = network.values(*x.split([port.size for port in network.inputs], -1))
    found = []
    for stage in layers.stages:
        node = network.by_name[stage.name]
        before = values[node.inputs[0]].detach().requires_grad_()
        (slope,) = torch.autograd.grad(node.op(before).sum(), before)
        found.append(np.clip(slope.reshape(-1).numpy(), stage.sector.low, stage.sector.high))
    return found


def _plain(matrix: Enclosure) -> Array:
    return matrix.value


def _sized(matrix: Enclosure) -> Array:
    return np.abs(matrix.value)


def _step(
    state: Array,
    weight: Enclosure | None,
    feed: Enclosure | None,
    keep: Enclosure | None,
    slopes: Array,
    take: Callable[[Enclosure], Array],
) -> Array:
    tick()
    moved = slopes[:, None] * (state if weight is None else take(weight) @ state)
    moved = moved if feed is None else take(feed) @ moved
    found: Array = moved if keep is None else moved + take(keep) @ state
    return found


def _back(
    rows: Array, weight: Enclosure | None, feed: Enclosure | None, keep: Enclosure | None, slopes: Array
) -> Array:
    moved = (rows if feed is None else rows @ feed.value) * slopes
    moved = moved if weight is None else moved @ weight.value
    found: Array = moved if keep is None else moved + rows @ keep.value
    return found


def _top(jacobian: Array, norm: Norm) -> tuple[Array, Array]:
    """``y`` and ``x`` with ``y^T J x = |J|``, of length one in the dual norm and in the norm; any two if `J` is not."""
    if norm is Norm.L2 and not np.isfinite(jacobian).all():
        return np.eye(len(jacobian))[0], np.eye(jacobian.shape[1])[0]
    if norm is Norm.L2:
        left, _, right = np.linalg.svd(jacobian, full_matrices=False)
        return left[:, 0], right[0]
    if norm is Norm.LINF:
        row = int(np.abs(jacobian).sum(1).argmax())
        return np.eye(len(jacobian))[row], np.where(jacobian[row] >= 0, 1.0, -1.0)
    column = int(np.abs(jacobian).sum(0).argmax())
    return np.where(jacobian[:, column] >= 0, 1.0, -1.0), np.eye(jacobian.shape[1])[column]


def _least(jacobian: Array, norm: Norm, off: Array) -> float:
    """At most the norm of every matrix within `off` of the computed one."""
    left, right = _top(jacobian, norm)
    value = float(left @ jacobian @ right)
    size = float(np.abs(left) @ off @ np.abs(right))
    rounded = gamma(2 * sum(jacobian.shape), torch.float64) * float(np.abs(left) @ np.abs(jacobian) @ np.abs(right))
    lengths = 1.0 if norm is not Norm.L2 else float(np.linalg.norm(left) * np.linalg.norm(right))
    slack = 1 + gamma(2 * sum(jacobian.shape) + 8, torch.float64)
    return max(0.0, (value - (size + rounded) * slack) / (lengths * slack) * (1 - 1e-15))

"""Looks for parabolas: the least value of a sum of bends over unit vectors, and the weights that it hands over.

The relaxation whose dual `leaktight.verify.bounds.parabolas` proves bounds with puts a unit vector in place of each
input ``y_k``, and one, ``v_0``, in place of 1: a neuron's input becomes ``Z = middle v_0 + slopes V``, its mean
``Z . v_0`` and its mean square ``|Z|^2``. A bend that is liked costs what it costs at the mean. One that is not costs
the most that a distribution on the neuron's interval with these two moments can take: what the best parabola says. The
vectors are moved downhill (Burer and Monteiro 2003: few dimensions suffice); at the end a few steps of the mixing
method (Wang, Chang and Kolter 2017, arXiv:1706.00476) settle them for the parabolas then found. Nothing here proves
anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.verify.bounds.concave import Weights
from leaktight.verify.bounds.first_layer import FirstLayer, Sums
from leaktight.verify.bounds.parabolas import Parabolas
from leaktight.verify.clock import tick

_DTYPE = torch.float32
_RANK = 6
_SETTLING = 4
_SOFT = 0.02  # of a neuron's interval, on either side of its kink: where the slope of a liked bend is between both
_START = 3.0  # how much the first vectors point to where the linear part is least


@dataclass(frozen=True)
class Descent:
    """How many steps, the first one's size, and by what each is smaller than the one before."""

    steps: int = 50
    rate: float = 0.1
    decay: float = 0.97


@dataclass(frozen=True, eq=False)
class _Problem:
    """A sum of bends in quick arithmetic: ``line . y`` and for each neuron ``bend`` times what is above its kink."""

    layer: FirstLayer
    line: Tensor
    bend: Tensor
    left: Tensor  # bends times the left slopes, `bend` being what turns at the kink
    slopes: Tensor
    middle: Tensor
    lower: Tensor
    upper: Tensor

    @classmethod
    def of(cls, layer: FirstLayer, sums: Sums) -> _Problem:
        left = sums.bends * layer.left
        line = left @ layer.slopes + sums.ends * layer.radius
        found = (line, sums.bends * (layer.right - layer.left), left, layer.slopes, layer.middle)
        return cls(layer, *(x.to(_DTYPE) for x in (*found, layer.lower, layer.upper)))


def found(layer: FirstLayer, sums: Sums, descent: Descent) -> tuple[Parabolas, Weights]:
    """Good parabolas and weights for each row."""
    problem = _Problem.of(layer, sums)
    vectors = _descended(problem, descent)
    quadratic, linear = _parabolas(problem, _inputs(problem, vectors))
    parabolas = Parabolas(quadratic.double(), sums.bends * layer.left + linear.double())
    return parabolas, _settled(layer, sums, parabolas, vectors.double())


def _descended(problem: _Problem, descent: Descent) -> Tensor:
    """Unit vectors ``(n, rows, rank)``, by Adam on the sphere."""
    inputs, rows = problem.slopes.shape[1], len(problem.line)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(inputs, 1, _RANK, generator=generator, device=generator.device)  # the same on every device
    vectors = vectors.to(problem.slopes.device).expand(-1, rows, -1).clone()
    vectors[..., 0] -= _START * problem.line.sign().mT
    first, second = torch.zeros_like(vectors), torch.zeros_like(vectors)
    for step in range(descent.steps):
        tick()
        vectors = _unit(vectors)
        slope = _gradient(problem, vectors)
        slope -= vectors * (slope * vectors).sum(-1, keepdim=True)
        first.lerp_(slope, 0.1)
        second.mul_(0.99).addcmul_(slope, slope, value=0.01)
        size = descent.rate * descent.decay**step * (1 - 0.99 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
        vectors = vectors - size * first / (second.sqrt() + 1e-12)
    return _unit(vectors)


def _unit(vectors: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-12)
    return vectors / size


def _inputs(problem: _Problem, vectors: Tensor) -> Tensor:
    """What stands for the neurons' inputs, ``(k, rows, rank)``."""
    z = (problem.slopes @ vectors.flatten(1)).reshape(-1, *vectors.shape[1:])
    z[..., 0] += problem.middle.unsqueeze(1)
    return z


def _gradient(problem: _Problem, vectors: Tensor) -> Tensor:
    z = _inputs(problem, vectors)
    quadratic, linear = _parabolas(problem, z)
    pull = z * (-2 * quadratic.mT.unsqueeze(-1))
    pull[..., 0] += linear.mT
    slope = (problem.slopes.mT @ pull.flatten(1)).reshape(vectors.shape)
    slope[..., 0] += problem.line.mT
    return slope


def _parabolas(problem: _Problem, z: Tensor) -> tuple[Tensor, Tensor]:
    """The best parabolas for these vectors: quadratic and linear ``(rows, k)``, without the neurons' left slopes.

    A distribution on [lower, upper] with mean ``m`` and mean square ``s`` puts most above the kink when it sits at two
    points, ``-+ sqrt s``, or at one end and a point beyond the kink. The parabola touches there.
    """
    mean, square = z[..., 0].mT, (z * z).sum(-1).mT.clamp(min=1e-12)
    lower, upper, bend = problem.lower, problem.upper, problem.bend
    root = square.sqrt()
    mean = torch.maximum(torch.minimum(mean, upper), lower)
    left = root > -lower  # no room on the left for -sqrt s, or none on the right for sqrt s
    right = ~left & (root > upper)
    far = ((square - mean * lower) / (mean - lower).clamp(min=1e-9)).clamp(min=1e-9)
    near = ((mean * upper - square) / (upper - mean).clamp(min=1e-9)).clamp(max=-1e-9)
    chord = (left & (far >= upper)) | (right & (near <= lower))
    at_left = -lower / (far - lower) ** 2
    at_right = upper / (upper - near) ** 2
    curve = torch.where(left, at_left, torch.where(right, at_right, 0.25 / root))
    slope = torch.where(left, 1 - 2 * at_left * far, torch.where(right, -2 * at_right * near, 0.5))
    curve = torch.where(chord, 0.0, curve)
    slope = torch.where(chord, upper / (upper - lower).clamp(min=1e-30), slope)
    curve, slope = (
        torch.where((lower >= 0) | (upper <= 0), x, y) for x, y in ((0.0, curve), ((lower >= 0).to(_DTYPE), slope))
    )
    ray = (z[..., 0].mT / (2 * _SOFT * (upper - lower).clamp(min=1e-30)) + 0.5).clamp(0, 1)
    ray = torch.where(lower >= 0, 1.0, torch.where(upper <= 0, 0.0, ray))
    liked = bend > 0
    return torch.where(liked, 0.0, -bend * curve), bend * torch.where(liked, ray, slope)


def _settled(layer: FirstLayer, sums: Sums, parabolas: Parabolas, vectors: Tensor) -> Weights:
    """The weights that the vectors hand over, after a few steps with the parabolas as they are."""
    q, slopes = parabolas.quadratic, layer.slopes
    tilt = parabolas.linear - 2 * q * layer.middle
    gradient = (tilt @ slopes + sums.ends * layer.radius).mT
    for _ in range(_SETTLING):
        z = (slopes @ vectors.flatten(1)).reshape(-1, *vectors.shape[1:])
        pulled = (slopes.mT @ (q.mT.unsqueeze(-1) * z).flatten(1)).reshape(vectors.shape)
        pulled[..., 0] -= gradient / 2
        size = torch.linalg.vector_norm(pulled, dim=-1)
        vectors = pulled / size.unsqueeze(-1).clamp(min=1e-300)
    first = -(gradient * vectors[..., 0]).sum(0) / 2
    return Weights(first.clamp(min=0), size.mT)

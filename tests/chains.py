"""Chains of matrices and slopes for the tests of Lipschitz constants, and their exact worst case by enumeration."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import torch
from numpy.typing import NDArray

from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Input, Linear, Op, Sum, leaky_relu

Array = NDArray[np.float64]
Slope = float | Sequence[float]


def chain(weights: Sequence[Array], slope: Slope | Sequence[Slope] = 0.0) -> Network:
    """Linear layers with a Leaky ReLU between each two; one slope for all, or one or several for each layer."""
    slopes = [slope] * (len(weights) - 1) if isinstance(slope, float) else list(slope)
    size = weights[0].shape[1]
    nodes, at = [Node("x", Input(), (), (1, size))], "x"

    def add(name: str, op: Op, width: int) -> str:
        nodes.append(Node(name, op, (at,), (1, width)))
        return name

    for i, weight in enumerate(weights):
        at = add(f"linear_{i}", Linear(torch.from_numpy(np.ascontiguousarray(weight, np.float64))), len(weight))
        if i < len(weights) - 1:
            at = add(f"leaky_{i}", leaky_relu(torch.as_tensor(slopes[i], dtype=torch.float64)), len(weight))
    return Network(tuple(nodes), (Port("x", (1, size), "float64"),), (Port(at, (1, len(weights[-1])), "float64"),))


def residual(outer: Array, blocks: Sequence[tuple[Array, Array]], first: Array, slope: float) -> Network:
    """``outer z_K``, ``z_k = z_(k-1) + W2 phi(W1 z_(k-1))``, ``z_0 = phi(first x)``."""
    size = first.shape[1]
    nodes = [Node("x", Input(), (), (1, size))]

    def linear(name: str, weight: Array, at: str) -> str:
        nodes.append(Node(name, Linear(torch.from_numpy(weight.astype(np.float64))), (at,), (1, len(weight))))
        return name

    def leaky(name: str, at: str, width: int) -> str:
        nodes.append(Node(name, leaky_relu(slope), (at,), (1, width)))
        return name

    at = leaky("leaky", linear("first", first, "x"), len(first))
    for k, (inner, back) in enumerate(blocks):
        hidden = leaky(f"leaky_{k}", linear(f"inner_{k}", inner, at), len(inner))
        nodes.append(Node(f"sum_{k}", Sum((1, 1)), (at, linear(f"back_{k}", back, hidden)), (1, len(back))))
        at = f"sum_{k}"
    at = linear("outer", outer, at)
    return Network(tuple(nodes), (Port("x", (1, size), "float64"),), (Port(at, (1, len(outer)), "float64"),))


def worst(weights: Sequence[Array], slope: Slope | Sequence[Slope], order: float) -> float:
    """The largest norm of ``W_L D ... D W_1`` over all diagonal ``D`` with entries that a neuron's slope takes.

    The norm is convex in each entry, so this is the largest for all slopes in between too.
    """
    slopes = [slope] * (len(weights) - 1) if isinstance(slope, float) else list(slope)
    sides = [
        (s, 1.0)
        for own, weight in zip(slopes, weights, strict=False)
        for s in np.broadcast_to(np.asarray(own, np.float64), len(weight))
    ]
    best = 0.0
    for pattern in product(*sides):
        matrix, rest = weights[0], list(pattern)
        for weight in weights[1:]:
            d, rest = np.array(rest[: len(matrix)]), rest[len(matrix) :]
            matrix = weight @ (d[:, None] * matrix)
        best = max(best, float(np.linalg.norm(matrix, order)))
    return best


def random_weights(sizes: Sequence[int], seed: int) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal((m, n)) / n**0.5 for n, m in pairwise(sizes)]

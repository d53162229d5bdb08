"""Seeded random networks of every shape that a bounding engine meets, built straight from operators.

`KINDS` names a builder for each; `build(kind, seed)` makes one. All are small: what is tested on them is soundness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import prod

import torch
from torch import Tensor

from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import (
    Affine,
    Clip,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Input,
    Linear,
    Maximum,
    Op,
    Reshape,
    Scale,
    Select,
    Sigmoid,
    Sum,
    Tanh,
    TwoSlope,
    leaky_relu,
)  # fmt: skip

Shape = tuple[int, ...]
SLOPES = (-2.0, -1.0, -0.3, 0.0, 1e-9, 0.01, 0.1, 0.5, 1.0, 1.7, 3.0)


class Draft:
    """A network that grows node by node; `add` finds each shape by running the operator once."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.nodes: list[Node] = []
        self.ports: list[Port] = []

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def choose(self, values: tuple[float, ...], *shape: int) -> Tensor:
        at = torch.randint(len(values), shape, generator=self.generator)
        return torch.tensor(values, dtype=torch.float64)[at]

    def input(self, *shape: int) -> str:
        name = f"x{len(self.ports)}"
        self.nodes.append(Node(name, Input(), (), shape))
        self.ports.append(Port(name, shape, "float64"))
        return name

    def shape(self, name: str) -> Shape:
        return next(node.shape for node in self.nodes if node.name == name)

    def add(self, op: Op, *inputs: str) -> str:
        value = op(*(torch.zeros(1, *self.shape(name), dtype=torch.float64) for name in inputs))
        shape = tuple(value.shape if isinstance(op, Constant) else value.shape[1:])
        name = f"{type(op).__name__}_{len(self.nodes)}"
        self.nodes.append(Node(name, op, inputs, shape))
        return name

    def linear(self, source: str, out: int, scale: float = 1.0) -> str:
        width = self.shape(source)[-1]
        return self.add(Linear(self.normal(out, width, scale=scale / width**0.5), self.normal(out, scale=0.3)), source)

    def conv(
        self,
        source: str,
        out: int,
        kernel: int,
        *,
        groups: int = 1,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
    ) -> str:
        channels = self.shape(source)[1]
        axes = len(self.shape(source)) - 2
        weight = self.normal(out, channels // groups, *[kernel] * axes)
        weight = weight / prod(weight.shape[1:]) ** 0.5
        return self.add(
            Conv(
                weight,
                self.normal(out, scale=0.3) if bias else None,
                stride=(stride,) * axes,
                padding=(padding,) * axes,
                dilation=(dilation,) * axes,
                groups=groups,
            ),
            source,
        )

    def leaky(self, source: str, slope: float | Tensor | None = None) -> str:
        return self.add(leaky_relu(float(self.choose(SLOPES, 1)) if slope is None else slope), source)

    def flatten(self, source: str) -> str:
        shape = self.shape(source)
        return self.add(Reshape(shape, (1, prod(shape))), source)

    def network(self, *outputs: str) -> Network:
        ports = tuple(Port(name, self.shape(name), "float64") for name in outputs)
        return Network(tuple(self.nodes), tuple(self.ports), ports)


def fully_connected(seed: int, sizes: tuple[int, ...] = (4, 8, 7, 3), slope: float | Tensor | None = None) -> Network:
    """Affine layers with a Leaky ReLU (by default of a random slope) after each but the last."""
    draft = Draft(seed)
    at = draft.input(1, sizes[0])
    for size in sizes[1:-1]:
        at = draft.leaky(draft.linear(at, size, 1.5), slope)
    return draft.network(draft.linear(at, sizes[-1], 1.5))


def relu_only(seed: int) -> Network:
    return fully_connected(seed, (3, 8, 8, 2), 0.0)


def per_channel(seed: int) -> Network:
    """One slope per channel, anywhere in [-2, 3]."""
    draft = Draft(seed)
    at = draft.conv(draft.input(1, 2, 3, 3), 4, 2)
    at = draft.leaky(at, draft.uniform(-2, 3, 4, 1, 1))
    at = draft.linear(draft.flatten(at), 6)
    return draft.network(draft.linear(draft.leaky(at, draft.uniform(-2, 3, 6)), 3))


def convolutional(seed: int) -> Network:
    """Padding, stride, groups, dilation; in one dimension and in two."""
    draft = Draft(seed)
    at = draft.leaky(draft.conv(draft.input(1, 2, 4, 4), 4, 3, stride=2, padding=1, groups=2))
    at = draft.leaky(draft.conv(at, 3, 2, padding=1, dilation=2))
    line = draft.add(Reshape(draft.shape(at), (1, 3, prod(draft.shape(at)) // 3)), at)
    line = draft.leaky(draft.conv(line, 2, 2, bias=False), 0.1)
    return draft.network(draft.linear(draft.flatten(line), 3))


def transposed(seed: int) -> Network:
    """Transposed convolutions whose stride leaves rows that nothing reaches, with groups and output padding."""
    draft = Draft(seed)
    at = draft.leaky(draft.linear(draft.input(1, 3), 8))
    at = draft.add(Reshape((1, 8), (1, 2, 2, 2)), at)
    first = ConvTranspose(
        draft.normal(2, 1, 2, 2),
        draft.normal(2),
        stride=(3, 2),
        padding=(0, 1),
        output_padding=(1, 0),
        dilation=(1, 1),
        groups=2,
    )
    at = draft.leaky(draft.add(first, at), 0.2)
    second = ConvTranspose(
        draft.normal(2, 1, 2, 1), None, stride=(2, 1), padding=(1, 0), output_padding=(0, 0), dilation=(2, 1)
    )
    return draft.network(draft.linear(draft.flatten(draft.leaky(draft.add(second, at), -0.5)), 3, 0.5))


def residual(seed: int) -> Network:
    """Skip connections, an activation and an affine node that share their input, and a difference."""
    draft = Draft(seed)
    at = draft.linear(draft.input(1, 4), 6)
    for signs in ((1, 1), (-1, 1), (1, 1, -1)):
        inner = draft.linear(draft.leaky(at), 6)
        parts = (at, inner, draft.linear(at, 6, 0.5))[: len(signs)]
        at = draft.add(Sum(signs), *parts)
    return draft.network(draft.linear(draft.leaky(at), 3))


def branches(seed: int) -> Network:
    """Branches that meet in a Concat together with a constant and with the input itself."""
    draft = Draft(seed)
    x = draft.input(1, 3)
    left = draft.leaky(draft.linear(x, 4))
    right = draft.add(Tanh(), draft.linear(left, 3))
    other = draft.leaky(draft.linear(x, 5), -1.0)
    constant = draft.add(Constant(draft.normal(1, 2)))
    joined = draft.add(Concat(-1), left, constant, other, x, right, other)
    return draft.network(draft.linear(draft.leaky(draft.linear(joined, 6)), 3))


def several_inputs(seed: int) -> Network:
    """Two inputs that meet late, and one that the outputs do not depend on."""
    draft = Draft(seed)
    x, _, z = draft.input(1, 2), draft.input(1, 1), draft.input(1, 1, 2)
    a = draft.leaky(draft.linear(x, 5))
    b = draft.leaky(draft.add(Reshape((1, 1, 5), (1, 5)), draft.linear(z, 5)), 0.3)
    return draft.network(draft.linear(draft.leaky(draft.add(Sum((1, -1)), a, b)), 3))


def several_outputs(seed: int) -> Network:
    """Outputs at several depths: after an activation, after an affine node, an input, a constant."""
    draft = Draft(seed)
    x = draft.input(1, 3)
    z = draft.linear(x, 4)
    a = draft.leaky(z)
    y = draft.linear(draft.leaky(draft.linear(a, 4), 0.5), 2)
    return draft.network(y, a, z, x, draft.add(Constant(draft.normal(1, 2))))


def scaled(seed: int) -> Network:
    """What folding batch normalisation leaves: scales of both signs with uncertain parameters, around activations."""
    draft = Draft(seed)
    at = draft.conv(draft.input(1, 2, 3, 3), 3, 2)
    for _ in range(2):
        weight, bias = draft.normal(3, 1, 1), draft.normal(3, 1, 1)
        scale = Scale(weight, bias, weight_error=weight.abs() * 2.0**-50, bias_error=bias.abs() * 2.0**-50)
        at = draft.leaky(draft.add(scale, at))
    return draft.network(draft.linear(draft.flatten(at), 3))


def two_slopes(seed: int) -> Network:
    """Activations with kink and value anywhere and parameters known up to a precision."""
    draft = Draft(seed)
    at = draft.linear(draft.input(1, 3), 6)
    for precision in (0.0, 2.0**-49):
        left, right, kink, value = draft.uniform(-2, 3, 6), draft.uniform(-2, 3, 6), draft.normal(6), draft.normal(6)
        at = draft.linear(draft.add(TwoSlope(left, right, kink / 2, value, precision), at), 6)
    return draft.network(at)


def clipped(seed: int) -> Network:
    draft = Draft(seed)
    at = draft.linear(draft.input(1, 3), 6, 2.0)
    for floor, ceiling in ((-0.5, 0.7), (0.0, 6.0), (-0.2, -0.2)):
        at = draft.linear(draft.add(Clip(floor, ceiling), at), 6, 3.0)
    return draft.network(at)


def smooth(seed: int) -> Network:
    draft = Draft(seed)
    at = draft.add(Sigmoid(), draft.linear(draft.input(1, 3), 5, 4.0))
    at = draft.add(Tanh(), draft.linear(at, 5, 4.0))
    return draft.network(draft.linear(draft.leaky(draft.add(Sigmoid(), at), 0.1), 3, 3.0))


def max_pool(seed: int) -> Network:
    """Overlapping windows, padded with entries of their own, and the maximum of two branches."""
    draft = Draft(seed)
    z = draft.leaky(draft.conv(draft.input(1, 1, 3, 3), 2, 2, padding=1), 0.1)
    places = torch.arange(32).reshape(1, 2, 4, 4).unfold(2, 2, 1).unfold(3, 2, 1).reshape(1, 2, 3, 3, 4)
    pooled = draft.add(Maximum(), draft.add(Select(places, (1, 2, 4, 4)), z))
    flat = draft.flatten(pooled)
    a, b = draft.linear(flat, 4), draft.linear(flat, 4)
    pairs = torch.stack([torch.arange(4), torch.arange(4) + 4], -1).reshape(1, 4, 2)
    both = draft.add(Maximum(), draft.add(Select(pairs, (1, 8)), draft.add(Concat(-1), a, b)))
    return draft.network(draft.linear(both, 3))


def average_pool(seed: int) -> Network:
    """Averages over three, whose weight 1/3 no float holds, as a convolution that knows its error."""
    draft = Draft(seed)
    z = draft.leaky(draft.conv(draft.input(1, 2, 6), 2, 2))
    third = torch.full((2, 1, 3), 1 / 3, dtype=torch.float64)
    op = Conv(third, None, stride=(1,), padding=(1,), dilation=(1,), groups=2, weight_error=third * 2.0**-53)
    return draft.network(draft.linear(draft.flatten(draft.leaky(draft.add(op, z), 0.3)), 3))


def rearranged(seed: int) -> Network:
    """Selects that repeat, drop, permute and pad entries, in front of and behind activations."""
    draft = Draft(seed)
    x = draft.input(1, 4)
    wild = draft.add(Select(torch.tensor([[0, 0, -1, 3, 2, 0, 3]]), (1, 4)), x)
    a = draft.leaky(draft.linear(wild, 6))
    again = draft.add(Select(torch.tensor([[5, 5, 5, -1, 1, 0, 2]]), (1, 6)), a)
    return draft.network(draft.leaky(draft.linear(draft.leaky(again, 0.2), 3), 2.5))


def affine_only(seed: int) -> Network:
    draft = Draft(seed)
    x = draft.input(1, 4)
    y = draft.add(Sum((1, -1)), draft.linear(draft.linear(x, 5), 3), draft.linear(x, 3))
    return draft.network(draft.leaky(y, 1.0))


KINDS: Mapping[str, Callable[[int], Network]] = {
    make.__name__: make
    for make in (
        fully_connected,
        relu_only,
        per_channel,
        convolutional,
        transposed,
        residual,
        branches,
        several_inputs,
        several_outputs,
        scaled,
        two_slopes,
        clipped,
        smooth,
        max_pool,
        average_pool,
        rearranged,
        affine_only,
    )
}


def build(kind: str, seed: int = 0) -> Network:
    return KINDS[kind](seed)


# ---- what a network computes, without any rounding ----


def exact_outputs(network: Network, point: Sequence[Fraction]) -> list[Fraction]:
    """All output entries at an input, in rational arithmetic, for the parameters as they are stored.

    Raises TypeError: the network has an operator that leads out of the rational numbers.
    """
    known: dict[str, list[Fraction]] = {}
    entries = list(point)
    for port in network.inputs:
        known[port.name], entries = entries[: port.size], entries[port.size :]
    for node in network:
        if node.name not in known:
            known[node.name] = _exact(network, node, [known[name] for name in node.inputs])
    return [y for port in network.outputs for y in known[port.name]]


def _exact(network: Network, node: Node, inputs: list[list[Fraction]]) -> list[Fraction]:
    op = node.op
    if isinstance(op, Affine):
        total = _fractions(op.bias_value, node.shape)
        for i, entries in enumerate(inputs):
            matrix = _matrix(network, node, i)
            total = [
                y + sum((Fraction(w) * x for w, x in zip(row, entries, strict=True) if w), Fraction(0))
                for y, row in zip(total, matrix, strict=True)
            ]
        return total
    (entries,) = inputs
    if isinstance(op, TwoSlope):
        columns = zip(*(_fractions(p, node.shape) for p in (op.left, op.right, op.kink, op.value)), strict=True)
        return [v + (r if x >= k else s) * (x - k) for x, (s, r, k, v) in zip(entries, columns, strict=True)]
    if isinstance(op, Clip):
        return [min(max(x, Fraction(op.lower)), Fraction(op.upper)) for x in entries]
    if isinstance(op, Maximum):
        width = len(entries) // node.size
        return [max(entries[i * width : (i + 1) * width]) for i in range(node.size)]
    raise TypeError(f"{type(op).__name__} is not rational")


def _fractions(value: Tensor | None, shape: Shape) -> list[Fraction]:
    zero = torch.zeros(shape, dtype=torch.float64)
    entries: list[float] = (zero if value is None else zero + value.double()).flatten().tolist()
    return [Fraction(x) for x in entries]


def _matrix(network: Network, node: Node, at: int) -> list[list[float]]:
    """The weights on one input, read off unit vectors: every entry is a product with one, and exact."""
    assert isinstance(node.op, Affine)
    shapes = [network.by_name[name].shape for name in node.inputs]
    size = prod(shapes[at])
    units = [torch.zeros(size, *shape, dtype=torch.float64) for shape in shapes]
    units[at] = torch.eye(size, dtype=torch.float64).reshape(size, *shapes[at])
    rows: list[list[float]] = node.op.linear(*units).reshape(size, -1).double().T.tolist()
    return rows

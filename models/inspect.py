"""Inspect: what a network is made of, without asking anything about its behaviour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor

from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Affine, Elementwise, Input, Maximum, Op, Select, TwoSlope

Ends = tuple[float, float]


@dataclass(frozen=True)
class OperatorCount:
    """How often an operator occurs, and how many numbers all its results hold together."""

    operator: str
    count: int
    entries: int


@dataclass(frozen=True)
class Activation:
    """One nonlinear node under the user's name. `left`, `right`: the smallest and largest slope on either side of the
    kink; None where the operator has no two slopes."""

    node: str
    operator: str
    entries: int
    left: Ends | None
    right: Ends | None


@dataclass(frozen=True)
class Inspection:
    """Static facts of a network; JSON schema leaktight.inspection/1.

    `operators` counts the network's own operators, after reading and simplifying. `parameters` counts the numbers in
    weights and biases (a folded batch normalisation has none of its own), `neurons` the entries of nonlinear nodes.
    """

    network: Mapping[str, str | None]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batched: bool
    operators: tuple[OperatorCount, ...]
    activations: tuple[Activation, ...]
    parameters: int
    neurons: int
    digest: str

    def to_json(self) -> dict[str, Any]:
        from leaktight.version import __version__

        document = {"schema": "leaktight.inspection/1", **asdict(self), "version": __version__}
        for port in (*document["inputs"], *document["outputs"]):
            port["shape"] = list(port["shape"])
        return document


def inspect(network: Network) -> Inspection:
    """The network's operators, slopes, shapes, number of parameters and digest."""
    nodes = [node for node in network if not isinstance(node.op, Input)]
    names = Counter(operator_name(node.op) for node in nodes)
    entries: Counter[str] = Counter()
    for node in nodes:
        entries[operator_name(node.op)] += node.size
    activations = tuple(_activation(network, node) for node in nodes if not isinstance(node.op, Affine))
    return Inspection(
        network=network.file,
        inputs=network.inputs,
        outputs=network.outputs,
        batched=network.batched,
        operators=tuple(OperatorCount(name, count, entries[name]) for name, count in names.most_common()),
        activations=activations,
        parameters=sum(_parameters(node.op) for node in nodes),
        neurons=sum(activation.entries for activation in activations),
        digest=network.digest,
    )


def operator_name(op: Op) -> str:
    """What people call the operator: a `TwoSlope` without offsets is a Relu, LeakyRelu, PRelu or Abs."""
    if not isinstance(op, TwoSlope) or bool((op.right != 1).any() or op.kink.any() or op.value.any()):
        return type(op).__name__
    if op.left.numel() > 1:
        return "PRelu"
    return {0.0: "Relu", -1.0: "Abs"}.get(float(op.left), "LeakyRelu")


def _activation(network: Network, node: Node) -> Activation:
    op = node.op
    slopes = (_ends(op.left), _ends(op.right)) if isinstance(op, TwoSlope) else (None, None)
    size = network.by_name[node.inputs[0]].size if isinstance(op, Maximum) else node.size
    return Activation(node.origin or node.name, operator_name(op), size, *slopes)


def _ends(slopes: Tensor) -> Ends:
    return float(slopes.min()), float(slopes.max())


def _parameters(op: Op) -> int:
    """Numbers that were, or could have been, trained: weights, biases and slopes, without error terms and constants."""
    if isinstance(op, (Affine, Elementwise)) and not isinstance(op, Select):
        named = {"weight", "bias", *(("left",) if operator_name(op) == "PRelu" else ())}
        values = [getattr(op, f.name) for f in fields(op) if f.name in named]  # type: ignore[arg-type]
        return sum(value.numel() for value in values if isinstance(value, Tensor))
    return 0

"""What is supported, found out by asking: each engine is run on the smallest network with each operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from leaktight.errors import LeaktightError, MissingRule
from leaktight.models import ops
from leaktight.models.network import Network, Node, Port
from leaktight.specs.region import Box
from leaktight.verify.bounds.engine import ENGINES, bound
from leaktight.verify.prove import SECOND_OPINION, engine_names

_KERNEL = torch.ones(1, 1, 3, dtype=torch.float64)
EXAMPLES: Mapping[str, Callable[[], ops.Op]] = {
    "Linear": lambda: ops.Linear(torch.ones(2, 4, dtype=torch.float64), torch.ones(2, dtype=torch.float64)),
    "Scale": lambda: ops.Scale(torch.full((1,), 2.0, dtype=torch.float64)),
    "Conv": lambda: ops.Conv(_KERNEL),
    "ConvTranspose": lambda: ops.ConvTranspose(_KERNEL),
    "Constant": lambda: ops.Constant(torch.ones(1, 4, dtype=torch.float64)),
    "Sum": lambda: ops.Sum((1, -1)),
    "Select": lambda: ops.Select(torch.tensor([[3, 0]]), (1, 4)),
    "Reshape": lambda: ops.Reshape((1, 4), (2, 2)),
    "Concat": lambda: ops.Concat(-1),
    "TwoSlope": lambda: ops.leaky_relu(0.1),
    "Clip": lambda: ops.Clip(-0.5, 0.5),
    "Sigmoid": ops.Sigmoid,
    "Tanh": ops.Tanh,
    "Maximum": ops.Maximum,
}
"""The smallest use of every operator on values of shape (1, 4); a test says that none is missing."""

_TAKING_TWO = (ops.Sum, ops.Concat)


def smallest_network(op: ops.Op) -> Network:
    """A network of one operator on an input ``x`` of shape (1, 4), taken twice where the operator joins values."""
    inputs = () if isinstance(op, ops.Constant) else ("x", "x") if isinstance(op, _TAKING_TWO) else ("x",)
    x = torch.zeros(1, 1, 4, dtype=torch.float64)
    shape = tuple(op(*(x for _ in inputs)).shape)
    shape = shape if isinstance(op, ops.Constant) else shape[1:]
    nodes = Node("x", ops.Input(), (), (1, 4)), Node("y", op, inputs, shape)
    return Network(nodes, (Port("x", (1, 4), "float64"),), (Port("y", shape, "float64"),), batched=False)


def can(engine: str, operator: str) -> str:
    """What the engine does with the operator: ``exact``, ``bounded`` or ``-`` (there is no rule)."""
    op = EXAMPLES[operator]()
    try:
        _bounded(engine, smallest_network(op))
    except (MissingRule, LeaktightError):
        return "-"
    return "exact" if isinstance(op, ops.Affine) else "bounded"


def _bounded(engine: str, network: Network) -> None:
    ones = torch.ones(1, network.input_size, dtype=torch.float64)
    region = Box(-ones, ones)
    if engine != SECOND_OPINION:
        bound(network, region, engine=engine)
        return
    from leaktight.verify.bounds import auto_lirpa

    auto_lirpa.lower_bounds(network, region, torch.eye(network.output_size, dtype=torch.float64).unsqueeze(0))


def operators() -> dict[str, Any]:
    """ONNX operators that can be read, and each engine's ability by operator (schema leaktight.operators/1)."""
    from leaktight.models.onnx import supported
    from leaktight.verify.bounds import auto_lirpa
    from leaktight.version import __version__

    engines = (*ENGINES, *((SECOND_OPINION,) if auto_lirpa.available() else ()))
    return {
        "schema": "leaktight.operators/1",
        "onnx": list(supported()),
        "engines": list(engines),
        "searches": [name for name in engine_names() if name not in (*ENGINES, SECOND_OPINION)],
        "rules": [
            {"operator": name, "engines": {engine: can(engine, name) for engine in engines}} for name in EXAMPLES
        ],
        "version": __version__,
    }

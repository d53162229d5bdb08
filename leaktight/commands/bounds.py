"""Proven bounds of every output."""

from __future__ import annotations

from leaktight import arguments, options
from leaktight.answer import Answer
from leaktight.arguments import Precision
from leaktight.commands.given import budget, read_network


def bounds(
    network: arguments.NetworkFile,
    property: arguments.PropertyFile,
    engine: arguments.Engine = "crown",
    memory: arguments.Memory = None,
    dtype: arguments.Arithmetic = Precision.FLOAT64,
    device: arguments.DeviceName = "cpu",
    architecture: arguments.Architecture = None,
    trust: arguments.Trust = False,
) -> Answer:
    """Proven bounds of every output.

    They hold on the property's whole input region.
    """
    from leaktight.specs.vnnlib import read_property
    from leaktight.verify.bounds.engine import ENGINES
    from leaktight.verify.bounds.union import bound_everywhere
    from leaktight.verify.report.words import counted

    chosen = options.choice("--engine", engine, tuple(ENGINES))
    found = bound_everywhere(
        read_network(network, architecture, trust),
        read_property(property),
        engine=chosen,
        **budget(dtype, memory, device),
    )
    count = sum(lower.numel() for lower, _ in found.outputs.values())
    return Answer(
        found.to_json(),
        f"bounds of {counted(count, 'output')} over {counted(found.regions, 'region')} by {found.engine}",
    )

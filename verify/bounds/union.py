"""Bounds over all that a property's assumptions allow: the union of its regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Property
from leaktight.verify.bounds.engine import bound
from leaktight.verify.device import CPU, Device
from leaktight.verify.verdict import Guarantee

Ends = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class UnionBounds:
    """``lower <= y <= upper`` for every output of every input in any region of a property; JSON schema
    leaktight.bounds/1. `outputs`: ``(lower, upper)`` by name, each of the output's shape without a batch axis."""

    outputs: Mapping[str, Ends]
    engine: str
    regions: int
    network: Mapping[str, str | None] = field(default_factory=dict)
    property: Mapping[str, str | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        from leaktight.version import __version__

        return {
            "schema": "leaktight.bounds/1",
            "outputs": {
                name: {"lower": low.tolist(), "upper": high.tolist()} for name, (low, high) in self.outputs.items()
            },
            "engine": self.engine,
            "guarantee": Guarantee.REAL.value,
            "regions": self.regions,
            "network": dict(self.network),
            "property": dict(self.property),
            "version": __version__,
        }


def bound_everywhere(
    network: Network,
    property: Property,
    *,
    engine: str = "crown",
    dtype: torch.dtype = torch.float64,
    memory: int | None = None,
    device: str | Device = CPU,
) -> UnionBounds:
    """Proven bounds of every output over all regions of the property together, in real arithmetic.

    Raises: PropertyError: the property does not fit the network. UsageError: no such engine or device.
    """
    there = Device.named(device)
    with CPU.at_work():
        cases = property.about(network)
    limits: dict[str, Any] = {"dtype": dtype, "memory": memory, "device": there}
    found = [bound(network, case.region, engine=engine, **limits).outputs for case in cases]
    ends = {
        port.name: (
            torch.cat([outputs[port.name][0] for outputs in found]).amin(0),
            torch.cat([outputs[port.name][1] for outputs in found]).amax(0),
        )
        for port in network.outputs
    }
    return UnionBounds(
        ends,
        engine,
        sum(case.region.batch for case in cases),
        network.file,
        property.file,
    )

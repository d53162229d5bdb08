"""What a network is made of, and what its leaks do to signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from leaktight import arguments
from leaktight.answer import Answer
from leaktight.commands.given import read_network

if TYPE_CHECKING:
    from leaktight.models.network import Network
    from leaktight.specs.region import Region


def inspect(
    network: arguments.NetworkFile,
    property: arguments.Stability = None,
    architecture: arguments.Architecture = None,
    trust: arguments.Trust = False,
) -> Answer:
    """Operators, slopes, shapes and signal factors of a network.

    With a property, also which neurons are proven stable on its input region.
    """
    from leaktight.models.inspect import inspect as look

    given = read_network(network, architecture, trust)
    found = look(given)
    summary = f"{found.parameters} parameters, {found.neurons} activations, digest {found.digest[:12]}"
    return Answer({**found.to_json(), **_signal(given, property)}, summary)


def _signal(network: Network, property: str | None) -> dict[str, Any]:
    """Signal factors and, with a property, its file."""
    if property is None:
        return {"signal": {"layers": _layers(network, ())}}
    from leaktight.specs.vnnlib import read_property

    asked = read_property(property)
    regions = [case.region for case in asked.about(network)]
    return {"signal": {"layers": _layers(network, regions)}, "property": asked.file}


def _layers(network: Network, regions: Sequence[Region]) -> list[dict[str, Any]]:
    from leaktight.verify.leak.signal import own_signal

    return [{**layer, "at": list(layer["at"])} for layer in map(asdict, own_signal(network, regions))]

"""What a network is made of, and what its leaks do to signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leaktight import arguments
from leaktight.answer import Answer
from leaktight.commands.given import read_network

if TYPE_CHECKING:
    from leaktight.models.network import Network


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
    from leaktight.specs.vnnlib import read_property
    from leaktight.verify.leak.signal import own_signal

    asked = None if property is None else read_property(property)
    regions = () if asked is None else [case.region for case in asked.about(network)]
    found = {"signal": {"layers": [layer.to_json() for layer in own_signal(network, regions)]}}
    return found if asked is None else {**found, "property": asked.file}

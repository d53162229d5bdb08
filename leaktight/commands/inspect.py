"""What a network is made of."""

from __future__ import annotations

from leaktight import arguments
from leaktight.answer import Answer
from leaktight.commands.given import read_network


def inspect(
    network: arguments.NetworkFile,
    architecture: arguments.Architecture = None,
    trust: arguments.Trust = False,
) -> Answer:
    """Operators, slopes and shapes of a network."""
    from leaktight.models.inspect import inspect as look

    found = look(read_network(network, architecture, trust))
    summary = f"{found.parameters} parameters, {found.neurons} activations, digest {found.digest[:12]}"
    return Answer(found.to_json(), summary)

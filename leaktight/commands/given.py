"""What the command line's words stand for: a network, an engine, a device, a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leaktight import options
from leaktight.arguments import Precision

if TYPE_CHECKING:
    import torch

    from leaktight.models.network import Network
    from leaktight.verify.device import Device


def read_network(path: str, architecture: str | None = None, trust: bool = False) -> Network:
    """The network in a file; --architecture and --trust as they are given."""
    from leaktight.models.load import load

    return load(path, architecture=architecture, trust=trust)


def normalised(network: Network, mean: str | None, std: str | None) -> Network:
    """The network that sees (input - mean) / std, where either is given."""
    if mean is None and std is None:
        return network
    from leaktight.models.normalise import normalised

    return normalised(network, options.numbers("--mean", mean or "0"), options.numbers("--std", std or "1"))


def engine_name(name: str) -> str:
    """Raises UsageError: there is no such engine."""
    from leaktight.verify.prove import engine_names

    return options.choice("--engine", name, engine_names())


def device_named(name: str) -> Device:
    """Raises UsageError: there is no such device, or it cannot be used."""
    from leaktight.verify.device import Device

    return Device.named(name)


def budget(dtype: Precision, memory: str | None, device: str, timeout: str | None = None) -> dict[str, Any]:
    """Arithmetic, device, memory and time, as the engines take them."""
    import torch

    found: torch.dtype = getattr(torch, dtype.value)
    return {
        "dtype": found,
        "device": device_named(device),
        "memory": None if memory is None else options.byte_count("--memory", memory),
        **({} if timeout is None else {"timeout": options.number("--timeout", timeout)}),
    }

"""PyTorch -> Network, by way of ONNX, so that a counterexample can be replayed by a runtime that is not torch.

A module is exported as it stands in evaluation mode, whatever mode the user's object is in, and for one input: an
example with several rows stands for its first one wherever the module treats rows alike.
"""

from __future__ import annotations

import copy
import io
import os
from typing import Any

import torch
from torch import Tensor, nn

from leaktight.errors import ModelError
from leaktight.models.exporting import converted, exported, quiet, reason, tensors, translated
from leaktight.models.network import Network
from leaktight.models.onnx import network_from_bytes

# What the network read back may differ from the module that was exported, relative to the largest output: many float32
# roundings, and far less than any error of meaning.
_AGREEMENT = 1e-3


def read_module(module: nn.Module, example_input: Any) -> Network:
    """The network that a module computes in evaluation mode.

    Args: example_input: a tensor, or a tuple of tensors for a module of several inputs. Code in `forward` that torch
    can trace is followed. The module itself is left as it is; weights keep their precision.
    Raises: ModelError: the module fails on the example, or cannot be exported. UnsupportedOperator: an operator in it
    has no rule here.
    """
    return _read(module, example_input, f"<module {type(module).__name__}>")


def read_archive(path: str | os.PathLike[str]) -> Network:
    """The network in a ``.pt2`` archive (torch.export.save), without running any code from the file.

    Raises: ModelError: the file is not such an archive, holds more than plain tensors and standard operators, or was
    exported in training mode. UnsupportedOperator: an operator in it has no rule here.
    """
    from leaktight.models.pt2 import plain_archive

    place = os.fspath(path)
    archive, sha256 = plain_archive(place)
    with translated(f"{place}: torch.export cannot load it"), quiet():
        program = torch.export.load(io.BytesIO(archive))
    return network_from_bytes(converted(program, place), path=place, sha256=sha256)


def read_state_dict(
    path: str | os.PathLike[str], architecture: str | None, example_input: Any = None, *, trust: bool = False
) -> Network:
    """The network of a state dict together with the code that builds its module.

    Args: architecture: ``package.module:factory``, imported (the current directory is importable) and called without
    arguments; it may be absent when a trusted file holds the module itself. example_input: as `read_module`; without
    it, ``example_input`` or ``input_shape`` (without the batch axis) is looked up on the module, the factory and the
    factory's file, and else taken from a first layer that is Linear. trust: load pickled code too.
    Raises: ModelError: the file is no checkpoint, holds pickled code, or does not fit the module. UsageError: the
    architecture cannot be called, or the input's shape is not known.
    """
    from leaktight.models.checkpoint import read_checkpoint

    place = os.fspath(path)
    found = read_checkpoint(place, architecture, trust=trust)
    return _read(found.module, found.example() if example_input is None else example_input, place, found.sha256)


def _read(module: nn.Module, example_input: Any, place: str, sha256: str | None = None) -> Network:
    arguments = tensors(example_input, place)
    with translated(f"{place}: the module cannot be copied"), quiet():
        still = copy.deepcopy(module).cpu().eval()
    arguments, expected = _one_row(still, arguments, place)
    network = network_from_bytes(exported(still, arguments, place), path=place, sha256=sha256)
    _must_agree(network, arguments, expected, place)
    return network


def _one_row(module: nn.Module, arguments: tuple[Tensor, ...], place: str) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """The example's first row and its outputs if the module treats rows alike, else the whole example and its."""
    whole = _outputs(module, arguments, place)
    rows = {x.shape[0] for x in arguments if x.dim() > 1}
    if len(rows) != 1 or any(x.dim() < 2 for x in (*arguments, *whole)) or rows == {1}:
        return arguments, whole
    first = tuple(x[:1] for x in arguments)
    try:
        alone = _outputs(module, first, place)
    except ModelError:  # the module is made for this many rows
        return arguments, whole
    alike = all(a.shape == w[:1].shape and _close(a, w[:1]) for a, w in zip(alone, whole, strict=True))
    return (first, alone) if alike else (arguments, whole)


def _outputs(module: nn.Module, arguments: tuple[Tensor, ...], place: str) -> list[Tensor]:
    shapes = ", ".join(str(tuple(x.shape)) for x in arguments)
    try:
        with torch.no_grad(), quiet():
            found = module(*arguments)
    except Exception as error:
        raise ModelError(
            f"{place}: the module fails on the example input of shape {shapes} ({reason(error)}); give an"
            " example input that it can be called with"
        ) from error
    several = list(found) if isinstance(found, (tuple, list)) else [found]
    if not several or not all(isinstance(y, Tensor) for y in several):
        raise ModelError(
            f"{place}: the module returns {type(found).__name__}; a tensor or a tuple of tensors is"
            " allowed; wrap the module"
        )
    return several


def _close(found: Tensor, expected: Tensor) -> bool:
    size = float(expected.abs().amax()) if expected.numel() else 0.0
    return bool(((found.double() - expected.double()).abs() <= _AGREEMENT * (size + 1e-6)).all())


def _must_agree(network: Network, arguments: tuple[Tensor, ...], expected: list[Tensor], place: str) -> None:
    if len(network.inputs) != len(arguments) or len(network.outputs) != len(expected):
        raise ModelError(
            f"{place}: the module has {len(arguments)} inputs and {len(expected)} outputs, but its"
            f" exported form has {len(network.inputs)} and {len(network.outputs)}; remove inputs that no"
            " output depends on"
        )
    x = torch.cat([x.double().reshape(1, -1) for x in arguments], 1)
    found, wanted = network.flat(x), torch.cat([y.double().reshape(1, -1) for y in expected], 1)
    if not _close(found, wanted):
        off = float((found - wanted).abs().amax())
        raise ModelError(
            f"{place}: the exported form differs from the module by {off:.3g} on the example input; export"
            " the network to ONNX yourself and compare it in a runtime"
        )

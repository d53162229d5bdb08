"""One door for everything that a network may come from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from leaktight.errors import ModelError, UsageError
from leaktight.models.network import Network

if TYPE_CHECKING:
    from torch import nn

_STATE_DICTS = (".pt", ".pth", ".ckpt", ".bin", ".tar")


def load(
    what: str | os.PathLike[str] | nn.Module,
    example_input: Any = None,
    *,
    architecture: str | None = None,
    trust: bool = False,
) -> Network:
    """The network in a file or module, simplified.

    Args: what: the path of an ``.onnx``, ``.onnx.gz`` or ``.pt2`` file, of a state dict (``.pt``, ``.pth``, ...), or an
    ``nn.Module``. example_input: a tensor, or a tuple of them, that a module or architecture can be called with.
    architecture: ``package.module:factory``, for a state dict. trust: allow a pickled module, which runs its own code.

    Raises: ModelError, UnsupportedOperator: `what` cannot be read, and the message says why. UsageError: the arguments
    do not go together.
    """
    from leaktight.models.simplify import simplify

    return simplify(_read(what, example_input, architecture, trust))


def _read(
    what: str | os.PathLike[str] | nn.Module, example_input: Any, architecture: str | None, trust: bool
) -> Network:
    if not isinstance(what, str | os.PathLike):
        return _read_module(what, example_input)
    path = os.fspath(what)
    suffix = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    if suffix in (".onnx", ".pt2"):
        if architecture is not None:
            raise UsageError(f"{path}: an architecture was given; it goes with a state dict only; leave it out")
        if suffix == ".onnx":
            from leaktight.models.onnx import read_onnx

            return read_onnx(path)
        from leaktight.models.pytorch import read_archive

        return read_archive(path)
    if suffix in _STATE_DICTS:
        if architecture is None and not trust:
            raise UsageError(
                f"{path}: a state dict has no operators; name the code that builds them with "
                "--architecture "
                "package.module:factory, or give an .onnx or .pt2 file (a whole module that was pickled needs --trust)"
            )
        from leaktight.models.pytorch import read_state_dict

        return read_state_dict(path, architecture, example_input, trust=trust)
    if not os.path.exists(path):
        raise ModelError(f"{path}: there is no such file; give the path of a network")
    if os.path.isdir(path):
        raise ModelError(f"{path}: this is a folder; give the path of a network")
    raise ModelError(
        f"{path}: files of type {suffix or '(none)'} are not read; allowed: .onnx, .onnx.gz, .pt2 and "
        "the state dicts "
        f"{', '.join(_STATE_DICTS)}; rename or export the network"
    )


def _read_module(what: object, example_input: Any) -> Network:
    from torch import nn

    if not isinstance(what, nn.Module):
        raise UsageError(f"load: {type(what).__name__} was given; a path or an nn.Module is allowed")
    if example_input is None:
        raise UsageError("load: a module was given without an example input; give a tensor that it can be called with")
    from leaktight.models.pytorch import read_module

    return read_module(what, example_input)

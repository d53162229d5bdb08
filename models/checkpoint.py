"""State dicts and the code that builds their modules; pickled code is loaded only where the user trusts it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import pickle
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from leaktight.errors import ModelError, UsageError
from leaktight.models.exporting import quiet, reason, tensors, translated

# Where training code usually keeps the state dict inside a larger checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Checkpoint:
    """A module with its trained weights. `described_by`: where an example input may be found, the nearest first."""

    module: nn.Module
    described_by: tuple[object, ...]
    place: str
    sha256: str

    def example(self) -> tuple[Tensor, ...]:
        """An input that the module can be called with, of the values that came with the code or of arbitrary ones.

        Raises UsageError: nothing says what shape it has.
        """
        for holder in self.described_by:
            if getattr(holder, "example_input", None) is not None:
                return tensors(holder.example_input, self.place)  # type: ignore[attr-defined]
            shape = getattr(holder, "input_shape", None)
            if shape is not None:
                return (self._arbitrary(_shape(shape, self.place)),)
        first = next((m for m in self.module.modules() if next(m.parameters(recurse=False), None) is not None), None)
        if isinstance(first, nn.Linear):
            return (self._arbitrary((first.in_features,)),)
        raise UsageError(
            f"{self.place}: the shape of the network's input is not known; give an example input, or set"
            " input_shape (without the batch axis) or example_input in the file of the architecture"
        )

    def _arbitrary(self, shape: tuple[int, ...]) -> Tensor:
        dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)
        return torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _shape(shape: Any, place: str) -> tuple[int, ...]:
    numbers = (shape,) if isinstance(shape, int) else tuple(shape)
    if not numbers or not all(isinstance(n, int) and n > 0 for n in numbers):
        raise UsageError(f"{place}: input_shape is {shape!r}; give positive whole numbers such as (3, 32, 32)")
    return numbers


def read_checkpoint(path: str, architecture: str | None, *, trust: bool = False) -> Checkpoint:
    """The module that `architecture` builds, with the weights in the file; or the trusted module in the file itself.

    Raises: ModelError: the file cannot be read, holds pickled code that is not trusted, or its weights do not fit.
    UsageError: the architecture cannot be imported or called.
    """
    data = _bytes(path)
    content, sha256 = _content(data, path, trust), hashlib.sha256(data).hexdigest()
    if isinstance(content, nn.Module) and architecture is None:
        return Checkpoint(content, (content,), path, sha256)
    weights = content.state_dict() if isinstance(content, nn.Module) else _state_dict(content, path)
    if architecture is None:
        raise UsageError(
            f"{path}: a state dict has no operators; name the code that builds them with --architecture"
            " package.module:factory"
        )
    module, described_by = _built(architecture)
    _fill(module, weights, path, architecture)
    return Checkpoint(module, described_by, path, sha256)


def _bytes(path: str) -> bytes:
    if not os.path.isfile(path):
        found = "a folder" if os.path.isdir(path) else "no such file"
        raise ModelError(f"{path}: there is {found}; give the path of a state dict")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the file cannot be read ({error.strerror}); check its permissions") from error
    if not data:
        raise ModelError(f"{path}: the file is empty; give a state dict saved with torch.save")
    return data


def _content(data: bytes, path: str, trust: bool) -> Any:
    try:
        with quiet():
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        code = isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error)
        if not code or data[:2] not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise ModelError(
                f"{path}: this is not a checkpoint that torch can load ({reason(error)}); give a state"
                " dict saved with torch.save, or export the network to ONNX"
            ) from error
        if not trust:
            raise ModelError(
                f"{path}: this file holds pickled code, which could do anything when loaded; pass --trust"
                " only if you trust its author, or save a state dict / export to ONNX"
            ) from error
    with translated(f"{path}: the pickled content cannot be loaded"), quiet():
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)


def _state_dict(content: Any, path: str) -> Mapping[str, Tensor]:
    inner = content
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            inner = content[name]
            break
    if not isinstance(inner, Mapping) or not inner:
        raise ModelError(f"{path}: the file holds {type(inner).__name__}, not a state dict; save module.state_dict()")
    for key, value in inner.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            kind = type(value).__name__
            raise ModelError(f"{path}: entry {key!r} is {kind}, not a tensor; save module.state_dict()")
    if all(key.startswith("module.") for key in inner):  # saved from DataParallel
        return {key.removeprefix("module."): value for key, value in inner.items()}
    return inner


def _built(architecture: str) -> tuple[nn.Module, tuple[object, ...]]:
    home, _, name = architecture.partition(":")
    if not home or not name or not all(part.isidentifier() for part in (*home.split("."), *name.split("."))):
        raise UsageError(f"--architecture {architecture}: package.module:factory is expected, such as nets.small:build")
    with _current_directory_importable():
        try:
            code: ModuleType = importlib.import_module(home)
        except Exception as error:
            raise UsageError(
                f"--architecture {architecture}: importing {home} fails ({reason(error)}); run leaktight"
                " in the folder that holds it, or install it"
            ) from error
        factory: Any = code
        for part in name.split("."):
            factory = getattr(factory, part, None)
        if not callable(factory):
            raise UsageError(
                f"--architecture {architecture}: {home} has no function or class {name!r}; name one that"
                " can be called without arguments"
            )
        try:
            module = factory()
        except Exception as error:
            raise UsageError(
                f"--architecture {architecture}: calling it without arguments fails ({reason(error)});"
                " name a function that needs none"
            ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"--architecture {architecture}: it returns {type(module).__name__}; an nn.Module is expected")
    return module, (module, factory, code)


@contextlib.contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


def _fill(module: nn.Module, weights: Mapping[str, Tensor], path: str, architecture: str) -> None:
    """Puts the weights into the module, in the precision that they were saved in."""
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or unexpected:
        found = (("lacks", missing), ("has unknown", unexpected))
        listed = [f"{what} {_some(names)}" for what, names in found if names]
        raise ModelError(f"{path}: the state dict {' and '.join(listed)}; it does not belong to {architecture}")
    for name, value in weights.items():
        if value.shape != own[name].shape:
            raise ModelError(
                f"{path}: {name} has shape {tuple(value.shape)}, but {architecture} needs"
                f" {tuple(own[name].shape)}; give the state dict of this architecture"
            )
    dtypes = {value.dtype for value in weights.values() if value.is_floating_point()}
    if dtypes:
        widest = max(dtypes, key=lambda dtype: torch.finfo(dtype).bits)
        module.to(widest)
    module.load_state_dict(dict(weights))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more

"""From an exported torch program to ONNX bytes, by torch's own exporter, kept quiet and translated into our errors."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from leaktight.eager import complete
from leaktight.errors import ModelError

complete()  # whoever imports this module reads or runs what was made for torch's compiler


def exported(module: nn.Module, arguments: tuple[Tensor, ...], place: str) -> bytes:
    """The ONNX model of ``module(*arguments)``, for inputs of exactly these shapes.

    Raises ModelError: torch cannot export the module; names it and gives the reason.
    """
    with translated(f"{place}: torch.export cannot trace it"), quiet():
        program = torch.export.export(module, arguments)
    return converted(program, place)


def converted(program: torch.export.ExportedProgram, place: str) -> bytes:
    """The ONNX model of an exported program.

    Sequences and casts to a like type are resolved. Nothing is computed in floating point: folding a normalisation into
    its neighbours, say, is for our own rewrites to do, which keep account of the rounding.

    Raises ModelError: the program is in training mode, or has an operator without an ONNX form; onnxscript is missing.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise ModelError(f"{place}: torch needs onnxscript to export it; run pip install leaktight[pytorch]")
    _must_be_in_evaluation_mode(program, place)
    with translated(f"{place}: torch.onnx cannot export it"), quiet():
        model = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
        if model is None:
            raise ModelError(f"{place}: torch.onnx returned nothing; export the network to a file yourself")
        _resolve(model.model)
        data: bytes = model.model_proto.SerializeToString()
    return data


def _resolve(model: Any) -> None:
    from onnxscript import optimizer

    def fold(node: Any) -> bool | None:
        exact = all(value is None or (value.dtype is not None and value.dtype.is_integer()) for value in node.inputs)
        return None if exact else False

    optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=fold)
    optimizer.remove_unused_nodes(model)


def _must_be_in_evaluation_mode(program: torch.export.ExportedProgram, place: str) -> None:
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for i, argument in enumerate(schema.arguments if schema is not None else ()):
            given = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            if argument.name in ("train", "training") and given is True:
                raise ModelError(
                    f"{place}: operator {node.name!r} is in training mode; inference is allowed; call"
                    " eval() on the module before exporting it"
                )


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns whatever torch raises into a ModelError that starts with `what` and gives the first cause's first line."""
    try:
        yield
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(f"{what} ({reason(error)}); export the network to ONNX yourself and give that file") from error


def reason(error: BaseException) -> str:
    """The kind and first line of the error that started a chain of them."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return f"{type(error).__name__}: {said[:300]}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps torch's progress reports, warnings and log lines (not its errors) from the user's streams."""
    before = logging.root.manager.disable
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True):
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)


def tensors(values: Any, place: str) -> tuple[Tensor, ...]:
    """An example input as a tuple of tensors.

    Raises ModelError: it is neither a tensor (or array) nor a tuple of them.
    """
    several = tuple(values) if isinstance(values, (tuple, list)) else (values,)
    try:
        found = tuple(torch.as_tensor(value).detach().cpu() for value in several)
    except (TypeError, ValueError, RuntimeError) as error:
        kinds = ", ".join(type(value).__name__ for value in several)
        raise ModelError(f"{place}: the example input is {kinds}; give a tensor or a tuple of tensors") from error
    if not found:
        raise ModelError(f"{place}: the example input is empty; give a tensor or a tuple of tensors")
    return found

"""Bounds by auto_LiRPA (Xu et al. 2020, arXiv:2002.12920): a second opinion beside our own engines, never a proof.

Its numbers carry no error terms for floating point, and parameters that a rewrite has rounded are taken at face value.

Version 0.3 from PyPI asks for an old torch; it runs on a new one after the few patches below, each applied only where
something is missing. Two of its rules for the Leaky ReLU are unsound and are never used: forward bounds (for any slope)
and every bound for slopes outside [0, 1]. Where one number in [0, 1] is not what the slope is, it gets
``s z + (1 - s) relu(z)`` instead, which its rules for the ReLU bound correctly.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leaktight.eager import complete
from leaktight.errors import UnsupportedOperator, UsageError
from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope
from leaktight.specs.region import Ball, Norm, Region
from leaktight.verify.bounds.traceable import Traceable
from leaktight.verify.rounding import trusted_lower

METHODS = ("ibp", "crown", "alpha-crown")
# In 0.3 patches of convolutions know no Leaky ReLU, and sparse slopes fail where a neuron becomes stable on the way.
_OPTIONS = {"conv_mode": "matrix", "sparse_features_alpha": False, "sparse_spec_alpha": False}
# What its code raises on graphs that it has no rule for.
_ITS_ERRORS = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_INSTALL = (
    "run pip install --no-deps auto_LiRPA==0.3 and pip install appdirs tqdm setuptools"
    " (without --no-deps an old torch comes with it)"
)


def available() -> str | None:
    """The installed version of auto_LiRPA; None where there is none."""
    if importlib.util.find_spec("auto_LiRPA") is None:
        return None
    for name in ("auto_LiRPA", "auto-LiRPA"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "unknown"


def lower_bounds(
    network: Network,
    region: Region,
    objectives: Tensor,
    *,
    method: str = "crown",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """What auto_LiRPA says are lower bounds of ``objectives @ y`` over the region, up to rounding.

    Args: objectives: ``(batch or 1, rows, output_size)``. method: ``ibp``, ``crown`` or ``alpha-crown``.
    Returns: ``(batch, rows)`` in float64; minus infinity where it says nothing. Balls cut with a box are bounded whole.
    Raises: UsageError: auto_LiRPA is not installed, or the method is not one of its sound ones. UnsupportedOperator: it
    cannot bound this network.
    """
    return Opponent(network, relus=method == "alpha-crown", dtype=dtype).lower_bounds(region, objectives, method=method)


class Opponent:
    """A network inside auto_LiRPA, ready for many questions.

    `relus` writes every Leaky ReLU with a ReLU, whose slopes version 0.3 can optimise; its Leaky ReLU has fixed lines.
    """

    def __init__(self, network: Network, *, relus: bool = False, dtype: torch.dtype = torch.float64) -> None:
        if available() is None:
            raise UsageError(f"engine auto-lirpa: auto_LiRPA is not installed; {_INSTALL}")
        self.dtype, self.network = dtype, network
        self.module = Traceable(network, relus=relus).to(dtype).eval()
        inputs = torch.zeros(1, network.input_size, dtype=dtype)
        with _package() as package, _translated(network), _default_dtype(dtype):
            self.bounded = package.BoundedModule(self.module, self.module.arrange(inputs), bound_opts=_OPTIONS)

    def lower_bounds(self, region: Region, objectives: Tensor, *, method: str = "crown") -> Tensor:
        """As the function of this name."""
        _check_method(self.network, method)
        if isinstance(region, Ball) and bool((region.radius != region.radius[0]).any()):
            # it takes one radius at a time
            parts = [slice(i, i + 1) for i in range(region.batch)]
            asked = objectives.expand(region.batch, -1, -1)
            return torch.cat([self.lower_bounds(region.select(part), asked[part], method=method) for part in parts])
        with _package() as package, _translated(self.network), _default_dtype(self.dtype):
            x = self._perturbed(package, region.to(self.dtype), method)
            asked = objectives.expand(region.batch, -1, -1).to(self.dtype)
            with torch.enable_grad() if method == "alpha-crown" else torch.no_grad():
                found = self.bounded.compute_bounds(x=(x,), C=asked, method=method, bound_upper=method == "ibp")[0]
        return trusted_lower(found.detach().double().reshape(asked.shape[:2]))

    def _perturbed(self, package: Any, region: Region, method: str) -> Any:
        if isinstance(region, Ball) and method != "ibp":  # the box around a ball is as good for intervals
            centre, norm = region.centre, 2 if region.norm is Norm.L2 else 1
            about = package.PerturbationLpNorm(norm=norm, eps=float(region.radius.amax()))
        else:
            lower, upper = self.module.arrange(region.lower), self.module.arrange(region.upper)
            centre = region.lower / 2 + region.upper / 2
            about = package.PerturbationLpNorm(norm=np.inf, x_L=lower, x_U=upper)
        return package.BoundedTensor(self.module.arrange(centre), about)


def _check_method(network: Network, method: str) -> None:
    if method in METHODS:
        return
    leaky = next((node for node in network if isinstance(node.op, TwoSlope)), None)
    if "forward" in method.lower() and leaky is not None:
        place = f"node {leaky.origin or leaky.name!r}"
        raise UnsupportedOperator(
            f"{place}: auto_LiRPA's forward bounds are unsound on a Leaky ReLU; use one of {', '.join(METHODS)}"
        )
    raise UsageError(f"auto_LiRPA method {method!r} is not offered; allowed: {', '.join(METHODS)}")


@contextlib.contextmanager
def _translated(network: Network) -> Iterator[None]:
    """Turns what auto_LiRPA raises on a graph that it cannot bound into an UnsupportedOperator."""
    try:
        yield
    except UnsupportedOperator:
        raise
    except _ITS_ERRORS as error:
        kinds = ", ".join(sorted({type(node.op).__name__ for node in network}))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedOperator(
            f"auto_LiRPA {available()} cannot bound this network (operators {kinds}): {reason};"
            " use one of leaktight's own engines"
        ) from error


# ---- making an old version run, and keeping it quiet -----------------------------------------------------------------


@contextlib.contextmanager
def _package() -> Iterator[Any]:
    """The package, patched where it has to be, with its prints, warnings and logging kept from the user's streams."""
    complete()
    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet, warnings.catch_warnings(record=True), _process_kept(), _old_torch(), _old_numpy():
        import auto_LiRPA

        _accept_remove_duplicate(auto_LiRPA.BoundedModule)
        yield auto_LiRPA


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """Importing 0.3 sends the whole program's log to stdout, and lets recursion overflow the stack; undoes that."""
    root, depth = logging.getLogger(), sys.getrecursionlimit()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level
        sys.setrecursionlimit(depth)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Its optimisation and its tables for smooth functions are made in torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _old_numpy() -> Iterator[None]:
    """``numpy.lib.arraysetops.isin``, which NumPy 2 moved away."""
    name = "numpy.lib.arraysetops"
    with contextlib.ExitStack() as undo:
        if "auto_LiRPA" not in sys.modules and not hasattr(np.lib, "arraysetops"):
            stand_in = types.ModuleType(name)
            stand_in.isin = np.isin  # type: ignore[attr-defined]
            sys.modules[name] = stand_in
            undo.callback(sys.modules.pop, name, None)
        yield


@contextlib.contextmanager
def _old_torch() -> Iterator[None]:
    """What tracing in 0.3 asks of torch: the opset setter, and attributes of graph nodes by subscript."""
    symbolic_helper: Any = importlib.import_module("torch.onnx.symbolic_helper")
    with contextlib.ExitStack() as undo:
        if not hasattr(symbolic_helper, "_set_opset_version"):
            from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

            before = GLOBALS.export_onnx_opset_version
            symbolic_helper._set_opset_version = lambda version: setattr(GLOBALS, "export_onnx_opset_version", version)
            undo.callback(delattr, symbolic_helper, "_set_opset_version")
            undo.callback(setattr, GLOBALS, "export_onnx_opset_version", before)
        node: Any = torch._C.Node
        if not hasattr(node, "__getitem__"):
            node.__getitem__ = lambda self, key: getattr(self, self.kindOf(key))(key)
            undo.callback(delattr, node, "__getitem__")
        yield


def _accept_remove_duplicate(module: Any) -> None:
    """Lets `_named_members` of 0.3 take the argument that newer torch passes."""
    original = module._named_members
    if "remove_duplicate" in original.__code__.co_varnames:
        return

    def named_members(
        self: Any, members: Any, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Any:
        del remove_duplicate  # its own version always removes them
        return original(self, members, prefix, recurse)

    module._named_members = named_members

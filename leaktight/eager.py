"""Torch in a process of ours that only computes: without what its compiler, its exporter and training read.

Importing torch runs 750 modules, and registers how each of some thousand operators acts on tensors without data. More
than half of the time it takes goes into what nothing that is computed here reads, and a call of the command line is
often over in twice that time. So these modules are there, but empty, until something in one of them is asked for:
torch.export, torch.onnx, code of the user's own. Then all of them run, in the order in which torch runs them. Only in
versions of torch with which all our tests passed so; others are imported whole.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

_TESTED = ("2.13",)
_TABLES = "torch._meta_registrations"
_DECOMPOSITIONS = ("torch._decomp", "torch._prims", "torch._refs")
# In the order in which importing torch comes to them: they import one another, and another order ends in a circle.
_LATE = (
    *("torch.utils.data", "torchgen.model", "torch.distributions", "torch.optim", "torch.profiler"),
    *("torch.ao", "torch.nn.intrinsic", "torch.nn.qat", "torch.nn.quantizable", "torch.nn.quantized"),
    *("torch.quantization", "torch.masked", "torch.export", "torch.fx.passes", "torch._dispatch", "torch._subclasses"),
    *("torch._higher_order_ops", "torch.func"),
    *("torch.distributed._meta_registrations", _TABLES, *_DECOMPOSITIONS, "torch.compiler"),
)
# Functions of late modules that torch has under its own name too.
_FUNCTIONS = {"torch._higher_order_ops": ("cond", "while_loop"), "torch.func": ("vmap",)}
_lock = RLock()


class _Late(ModuleType):
    """A module that has not run yet."""

    def __getattr__(self, name: str) -> Any:
        with _lock:
            _run(self) if _finder.completing else complete()
        return getattr(self, name)


class _Delayed(Loader):
    """Makes the module, and leaves running it to `loader` and to later."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Late
        for name in _FUNCTIONS.get(module.__name__, ()):
            setattr(module, name, _postponed(module.__name__, name))
        if module.__name__ == _TABLES:
            _beside_the_tables()


class _There(Loader):
    """For a module that was imported while its parent ran."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


class _Finder(MetaPathFinder):
    """Finds the late modules, and lets them run before what they contain is imported."""

    completing = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent = sys.modules.get(fullname.rpartition(".")[0])
        if isinstance(parent, _Late):
            _run(parent) if self.completing else complete()
            if fullname in sys.modules:
                return ModuleSpec(fullname, _There(sys.modules[fullname]))
        spec = PathFinder.find_spec(fullname, path) if fullname in _LATE and not self.completing else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Delayed(spec.loader)
        return spec


_finder = _Finder()


def _postponed(home: str, name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        complete()
        return getattr(sys.modules[home], name)(*arguments, **named)

    return call


def _beside_the_tables() -> None:
    """What importing the tables does besides: random generators get the metaclass that they wait for.

    And some functions of torch look into the modules that are imported on the way.
    """
    opaque = importlib.import_module("torch._opaque_base")
    sys.modules["torch"]._C._set_generator_metaclass(opaque.OpaqueBaseMeta)
    for name in _DECOMPOSITIONS:
        importlib.import_module(name)


def _run(module: ModuleType) -> None:
    """Lets the module run, if it has not run yet."""
    spec = module.__spec__
    if not isinstance(module, _Late) or spec is None or not isinstance(spec.loader, _Delayed):
        return
    module.__class__ = ModuleType  # type: ignore[assignment]
    spec.loader = module.__loader__ = spec.loader.loader
    for name in _FUNCTIONS.get(module.__name__, ()):
        delattr(module, name)
    spec.loader.exec_module(module)


def eager_only() -> None:
    """From now on torch is imported without its late modules; nothing changes where it is imported already."""
    if "torch" not in sys.modules and _finder not in sys.meta_path and _tested():
        sys.meta_path.insert(0, _finder)


def _tested() -> bool:
    """Reads the version from torch's own file: to ask the installed package for it takes longer than all the rest."""
    torch = PathFinder.find_spec("torch")
    if torch is None or not torch.submodule_search_locations:
        return False
    spec = PathFinder.find_spec("torch.version", torch.submodule_search_locations)
    if spec is None or spec.loader is None:
        return False
    version = ModuleType("torch.version")
    spec.loader.exec_module(version)
    return ".".join(str(version.__version__).split(".")[:2]) in _TESTED


def complete() -> None:
    """Lets all modules run that were left out."""
    with _lock:
        if _finder not in sys.meta_path or _finder.completing:
            return
        if "torch" in sys.modules:
            _finder.completing = True
            for name in _LATE:
                _run(importlib.import_module(name))
            for home, names in _FUNCTIONS.items():
                for name in names:
                    setattr(sys.modules["torch"], name, getattr(sys.modules[home], name))
        sys.meta_path.remove(_finder)

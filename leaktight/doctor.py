"""Doctor: is this installation sound? Versions, the runtime, and a small proof whose verdict is known."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from leaktight.verify.report.words import counted

PACKAGES = (
    *("numpy", "torch", "onnx", "onnxruntime", "typer", "rich", "vnnlib", "psutil", "jinja2", "matplotlib", "highspy"),
    *("cvxpy", "sqlalchemy", "pydantic", "junitparser"),
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `ok` is False where leaktight cannot be trusted, or cannot run, as installed."""

    name: str
    ok: bool
    found: str


def doctor() -> dict[str, Any]:
    """All checks (schema leaktight.doctor/1). ``sound`` says that none failed."""
    from leaktight.version import __version__

    probes: tuple[tuple[str, Callable[[], str]], ...] = (
        ("replay in onnxruntime", _replay),
        ("proof of a known bound", _proof),
        ("demo verdicts", _demo),
        ("rounding of doubles", _rounding),
    )
    checks = [
        Check("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(_installed(name) for name in PACKAGES),
        *(_probed(name, probe) for name, probe in probes),
        _second_opinion(),
        _gpus(),
        _resources(),
    ]
    return {
        "schema": "leaktight.doctor/1",
        "sound": all(check.ok for check in checks),
        "checks": [asdict(check) for check in checks],
        "version": __version__,
    }


def _installed(name: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, f"not installed; run: pip install {name}")


def _probed(name: str, probe: Callable[[], str]) -> Check:
    try:
        return Check(name, True, probe())
    except Exception as error:  # whatever goes wrong is the finding
        return Check(name, False, f"{type(error).__name__}: {error}")


def _replay() -> str:
    """onnxruntime computes what the network means."""
    import torch

    from leaktight.demo import NETWORK
    from leaktight.models.load import load
    from leaktight.verify.search.replay import Replay

    network = load(NETWORK)
    x = torch.linspace(0, 1, network.input_size, dtype=torch.float64)
    (theirs,) = Replay(network).run(x).values()
    off = float((torch.as_tensor(theirs).double().flatten() - network.flat(x.unsqueeze(0)).flatten()).abs().max())
    if not off < 1e-4:
        raise ArithmeticError(f"onnxruntime and leaktight differ by {off:.3g} on the demo network; reinstall both")
    return f"agrees within {off:.1g}"


def _proof() -> str:
    """``|x|`` on [-1, 2] lies in [0, 2], computed by hand; every engine must enclose it, and interval must find it."""
    import torch

    from leaktight.capabilities import smallest_network
    from leaktight.models.ops import leaky_relu
    from leaktight.specs.region import Box
    from leaktight.verify.bounds.engine import ENGINES, bound

    network = smallest_network(leaky_relu(-1.0))
    ones = torch.ones(1, network.input_size, dtype=torch.float64)
    for engine in ENGINES:
        found = bound(network, Box(-ones, 2 * ones), engine=engine)
        if bool((found.lower > 0).any() or (found.upper < 2).any()):
            raise ArithmeticError(f"engine {engine} excludes attained values of |x|; do not use this installation")
    found = bound(network, Box(-ones, 2 * ones), engine="interval")
    if float(found.lower.min()) < -1e-9 or float(found.upper.max()) > 2 + 1e-9:
        raise ArithmeticError("engine interval does not find the range of |x|; do not use this installation")
    return f"engines {', '.join(ENGINES)} enclose the range of |x|"


def _demo() -> str:
    from leaktight.demo import demo

    result = demo()
    verdicts = " and ".join(step["verdict"]["status"] for step in result["steps"])
    if not result["as_expected"]:
        raise ArithmeticError(f"the bundled properties came out as {verdicts}; expected: proved and refuted")
    return verdicts


def _rounding() -> str:
    """The error terms assume round-to-nearest and subnormal numbers; a library that flushes them breaks the proof."""
    import torch

    tiny = torch.tensor(5e-324, dtype=torch.float64)
    if float(tiny * 1) == 0 or float(torch.tensor(1.0, dtype=torch.float64) + 2.0**-53) != 1.0:
        raise ArithmeticError("this process flushes subnormal numbers or does not round to nearest: no proof holds")
    return "to nearest, with subnormal numbers"


def _second_opinion() -> Check:
    from leaktight.verify.bounds import auto_lirpa

    version = auto_lirpa.available()
    hint = "not installed (only --cross-check and --engine auto-lirpa need it): pip install --no-deps auto_LiRPA==0.3"
    return Check("auto_LiRPA (optional)", True, version or hint)


def _gpus() -> Check:
    """Whether `--device cuda` can be used; without it everything runs on the processor."""
    import torch

    from leaktight.errors import InputError
    from leaktight.verify.device import Device

    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        try:
            Device.named(f"cuda:{number}")
            found.append(f"cuda:{number} {torch.cuda.get_device_name(number)}: computes as the error terms assume")
        except InputError as error:
            found.append(str(error))
    return Check("GPU (optional)", True, "; ".join(found) or "none that torch can use")


def _resources() -> Check:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    free, whole = memory.available / 2**30, memory.total / 2**30
    threads = counted(torch.get_num_threads(), "thread")
    return Check("resources", True, f"{threads}, {free:.1f} of {whole:.1f} GiB of memory free")

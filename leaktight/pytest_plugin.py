"""Certificates as assertions in pytest: ``pytest_plugins = ["leaktight.pytest_plugin"]`` in a conftest.py gives the
fixture ``certify``; without it, ``from leaktight.pytest_plugin import certify`` is the same function.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import nn

    from leaktight.models.network import Network
    from leaktight.verify.certification import InputResult

_SHOWN = 5


def certify(
    network: Network | nn.Module | str | os.PathLike[str],
    x: Any,
    label: int,
    epsilon: float,
    *,
    norm: str | float = "inf",
    clip: tuple[float, float] | None = None,
    engine: str = "auto",
    timeout: float | None = 60.0,
) -> InputResult:
    """Asserts that `label` provably scores highest on the whole ball of radius `epsilon` around the input `x`.

    network: a loaded one, a file's path, or a module in evaluation mode. x: one input, of the network's shape. The rest
    as for `leaktight.certify`. Returns what was proven.

    Raises AssertionError: it was refuted, and the message has the input that does it; or not proved, which it says.
    InputError: the arguments are not allowed.
    """
    __tracebackhide__ = True
    import torch

    from leaktight.verify.certify import certify as prove

    point = torch.as_tensor(x).detach().double()
    asked = _network(network, point)
    flat, labels = point.reshape(1, -1), torch.tensor([label])
    found = prove(asked, flat, labels, epsilon, norm=norm, clip=clip, engine=engine, timeout=timeout)
    (result,) = found.inputs
    if result.status.value != "proved":
        raise AssertionError(_told(result, flat[0].tolist(), label, epsilon, found.norm.value))
    return result


def _network(network: Any, point: Any) -> Network:
    from leaktight.models.load import load
    from leaktight.models.network import Network

    if isinstance(network, Network):
        return network
    if isinstance(network, str | os.PathLike):
        return load(network)
    return load(network, point.float().unsqueeze(0))


def _told(result: InputResult, x: list[float], label: int, epsilon: float, norm: str) -> str:
    """Why there is no certificate, in the words of someone who has to do something about it."""
    from leaktight.verify.digits import rounded_down, rounded_up

    claim = f"label {label} within {epsilon:g} (norm {norm})"
    if result.counterexample is None:
        lower, upper = (math.nan if end is None else end for end in (result.margin.lower, result.margin.upper))
        return (
            f"{claim} is neither proved nor refuted ({result.status.value}): the margin is proven to be at least"
            f" {rounded_down(lower)}, some input attains {rounded_up(upper)}; give it more time, or a smaller epsilon"
        )
    example = result.counterexample
    scores = [float(score) for output in example.outputs.values() for score in output.reshape(-1)]
    moved = sorted(((abs(b - a), i, a, b) for i, (a, b) in enumerate(zip(x, example.point.tolist(), strict=True))))[
        ::-1
    ]
    lines = [
        f"{claim} is refuted: an input in the region is classified as {scores.index(max(scores))}",
        f"  score of label {label}: {scores[label]:.6g}, largest other:"
        f" {max(score for place, score in enumerate(scores) if place != label):.6g} (onnxruntime)",
        *(f"  x[{i}]: {a:.6g} -> {b:.6g}" for size, i, a, b in moved[:_SHOWN] if size),
    ]
    changed = sum(size > 0 for size, *_ in moved)
    if changed > _SHOWN:
        lines.append(f"  and {changed - _SHOWN} more entries")
    return "\n".join([*lines, *(["  the input itself is misclassified"] if not changed else [])])


@pytest.fixture(name="certify")
def _certify() -> Callable[..., InputResult]:
    """`certify`, for tests that take it as an argument."""
    return certify

"""The benchmarks' networks: trained on scikit-learn's digits, the same for the same seed, kept as ONNX in a cache.

Plain training leaves little to prove, so each network also comes hardened: trained on points that a gradient step has
moved against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leaktight.models.exporting import exported
from leaktight.models.load import load
from leaktight.models.network import Network

CACHE = Path(__file__).parent / ".cache"
_HELD_OUT = 360
_EPOCHS, _BATCH, _RATE = 25, 64, 2e-3
_HARDENING = 0.05


@dataclass(frozen=True)
class Recipe:
    """How a network is made: hidden layers (None: two convolutions), slope, and whether it is hardened."""

    name: str
    hidden: tuple[int, ...] | None
    slope: float
    hardened: bool = True
    seed: int = 0

    @property
    def path(self) -> Path:
        kind = "hardened" if self.hardened else "plain"
        return CACHE / f"{self.name}-slope{self.slope}-{kind}-seed{self.seed}.onnx"


def recipes(hardened: bool = True) -> dict[str, Recipe]:
    """All networks by name: ``3x100-0.1`` has three hidden layers of 100 and slope 0.1."""
    shapes = {"3x100": (100,) * 3, "4x256": (256,) * 4, "5x100": (100,) * 5, "conv": None}
    made = [Recipe(name, hidden, slope, hardened) for name, hidden in shapes.items() for slope in (0.01, 0.1, 0.3)]
    return {f"{recipe.name}-{recipe.slope}": recipe for recipe in made}


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training inputs ``(1437, 64)`` in [0, 1] and labels, then the 360 held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = torch.as_tensor(data.data / 16, dtype=torch.float32)[order]
    y = torch.as_tensor(data.target, dtype=torch.int64)[order]
    return x[_HELD_OUT:], y[_HELD_OUT:], x[:_HELD_OUT], y[:_HELD_OUT]


def untrained(recipe: Recipe) -> nn.Sequential:
    """The layers of a recipe; all take ``(batch, 64)``, the convolutional one by way of ``(batch, 1, 8, 8)``."""
    torch.manual_seed(recipe.seed)
    if recipe.hidden is None:
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 8, 3, padding=1),
            nn.LeakyReLU(recipe.slope),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.LeakyReLU(recipe.slope),
            nn.Flatten(),
            nn.Linear(256, 64),
            nn.LeakyReLU(recipe.slope),
            nn.Linear(64, 10),
        )
    layers: list[nn.Module] = []
    for before, after in pairwise((64, *recipe.hidden)):
        layers += [nn.Linear(before, after), nn.LeakyReLU(recipe.slope)]
    return nn.Sequential(*layers, nn.Linear(recipe.hidden[-1], 10))


def trained(recipe: Recipe) -> nn.Sequential:
    """The network of a recipe, trained from its seed."""
    module = untrained(recipe)
    x, y, _, _ = digits()
    optimiser = torch.optim.Adam(module.parameters(), lr=_RATE)
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).split(_BATCH):
            inputs = _moved(module, x[rows], y[rows], generator) if recipe.hardened else x[rows]
            optimiser.zero_grad()
            F.cross_entropy(module(inputs), y[rows]).backward()
            optimiser.step()
    return module.eval()


def _moved(module: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """The inputs after one signed gradient step against the network, from a random start."""
    start = x + (torch.rand(x.shape, generator=generator) * 2 - 1) * _HARDENING
    start.requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(module(start), y), start)
    away = (start.detach() + 1.25 * _HARDENING * gradient.sign()).clamp(x - _HARDENING, x + _HARDENING)
    return away.clamp(0, 1)


def network(recipe: Recipe) -> Network:
    """The recipe's network, from the cache or trained now."""
    if not recipe.path.exists():
        CACHE.mkdir(exist_ok=True)
        model = exported(trained(recipe), (torch.zeros(1, 64),), recipe.path.stem)
        recipe.path.write_bytes(model)
    return load(recipe.path)


def classified(net: Network, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` held-out inputs that the network classifies rightly, with their labels."""
    _, _, x, y = digits()
    right = (net.flat(x.double()).argmax(1) == y).nonzero().flatten()[:count]
    return x.double()[right], y[right]


def accuracy(net: Network) -> float:
    """The share of held-out inputs that the network classifies rightly."""
    _, _, x, y = digits()
    return float((net.flat(x.double()).argmax(1) == y).double().mean())

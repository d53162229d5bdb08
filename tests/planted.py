"""Networks with counterexamples that were planted in training, as SoundnessBench does (Zhou et al., arXiv:2412.03154).

A network is trained on random points whose label must win in a whole box around them, while at one hidden input of each
box another class must win, by little. Adversarial training lowers what an attack finds elsewhere in the box, so that a
verifier which only fails to find the hidden input would be tempted to call the property proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Input, Linear, leaky_relu
from leaktight.specs.property import Property, robust

CLASSES, COPIES = 3, 8
GAP = 0.02  # by how much the wrong class wins at the hidden inputs


@dataclass(frozen=True, eq=False)
class Planted:
    """A network, properties that all fail, and for each of them an input at which it does."""

    network: Network
    properties: Sequence[Property]
    hidden: Tensor
    labels: Tensor


def plant(
    seed: int,
    *,
    problems: int = 10,
    size: int = 5,
    width: int = 32,
    slope: float = 0.1,
    radius: float = 0.2,
    steps: int = 1500,
) -> Planted:
    """Trains a network of two hidden layers with `problems` planted counterexamples.

    The boxes have the given radius around random centres in ``[0, 1]^size``. Only problems whose hidden input is
    unsafe in float64, after training, are kept.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    centres = torch.rand(problems, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (problems,), generator=generator)
    corner = torch.rand(problems, size, generator=generator, dtype=torch.float64) * 2 - 1
    hidden = centres + 0.98 * radius * corner / corner.abs().amax(1, keepdim=True)
    wrong = (labels + 1) % CLASSES
    model = _trained(centres, labels, hidden, wrong, width, slope, radius, steps, generator)
    network = _network(model, size, slope)
    scores = network.flat(hidden)
    fails = scores.gather(1, wrong.unsqueeze(1))[:, 0] > scores.gather(1, labels.unsqueeze(1))[:, 0] + 1e-6
    kept = fails.nonzero().flatten().tolist()
    return Planted(network, [robust(centres[i], int(labels[i]), radius) for i in kept], hidden[fails], labels[fails])


def _trained(
    centres: Tensor,
    labels: Tensor,
    hidden: Tensor,
    wrong: Tensor,
    width: int,
    slope: float,
    radius: float,
    steps: int,
    generator: torch.Generator,
) -> nn.Sequential:
    """Adam on two losses: margins at attacked points of the boxes, and the hidden inputs' wrong margins."""
    size = centres.shape[1]
    first, middle, last = nn.Linear(size, width), nn.Linear(width, width), nn.Linear(width, CLASSES)
    model = nn.Sequential(first, nn.LeakyReLU(slope), middle, nn.LeakyReLU(slope), last).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        points = _attacked(model, centres, labels, hidden, radius, generator)
        safe = nn.functional.multi_margin_loss(model(points), labels.repeat(COPIES), margin=0.5)
        scores = model(hidden)
        gap = scores.gather(1, wrong.unsqueeze(1)) - scores.gather(1, labels.unsqueeze(1))
        loss = safe + 2 * (GAP - gap).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model


def _attacked(
    model: nn.Module, centres: Tensor, labels: Tensor, hidden: Tensor, radius: float, generator: torch.Generator
) -> Tensor:
    """Points of the boxes after a few steps up the loss, none next to the hidden input of its box."""
    start = centres.repeat(COPIES, 1)
    x = start + (torch.rand(start.shape, generator=generator, dtype=torch.float64) * 2 - 1) * radius
    for _ in range(4):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), labels.repeat(COPIES)), x)
        x = torch.maximum(torch.minimum(x + radius / 4 * gradient.sign(), start + radius), start - radius)
    near = (x.detach() - hidden.repeat(COPIES, 1)).abs().amax(1, keepdim=True) < radius / 5
    return torch.where(near, start, x.detach())


def _network(model: nn.Sequential, size: int, slope: float) -> Network:
    nodes, at = [Node("x", Input(), (), (1, size))], "x"
    for i, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            weight = layer.weight.detach().float().double()  # what a file would hold
            op: Linear | object = Linear(weight, layer.bias.detach().float().double())
            shape = (1, weight.shape[0])
        else:
            op, shape = leaky_relu(slope), nodes[-1].shape
        nodes.append(Node(f"layer{i}", op, (at,), shape))  # type: ignore[arg-type]
        at = nodes[-1].name
    return Network(tuple(nodes), (Port("x", (1, size), "float32"),), (Port(at, nodes[-1].shape, "float32"),))

"""L0, the closed form: one number per row that bounds how far the slope can move it, from norms alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Clip, Maximum, Sigmoid, Tanh, TwoSlope
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Norm, Region
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.leak.intervals import Known, around, departures, over_range
from leaktight.verify.leak.norms import DUAL, affine_norms, length
from leaktight.verify.rounding import trusted_upper, up


def rates(
    slopes: Slopes, region: Region, objectives: Tensor, lo: Tensor, hi: Tensor, *, known: Known | None = None
) -> Tensor:
    """Constants ``K`` with ``|m(x; a) - m(x; b)| <= K |a - b|`` for every input of the region and slopes in [lo, hi].

    Here ``m(x; a) = objectives . f(x; a)``. The same holds for the minimum of ``m`` over the region, and with the
    largest ``K`` for minima and maxima of several rows (a margin). In real arithmetic,

        K  =  sum over chosen activations l of  Lip_l  sup |g(z_l)|,

    ``g(z) = min(z, 0)`` (for an activation that scales were folded into, the rate at which its leaky side turns times
    how far its input reaches into that side), the supremum over region and range; ``Lip_l`` a Lipschitz constant, for
    all slopes of the range, of the function that leads from the activation's value to ``m``: along every path a
    product of operator norms, with the steepest slope of each activation (``max(1, |a|)`` for a plain Leaky ReLU), and
    the sum over paths. Each term is measured in the norm, of L-infinity, L2 and L1, in which it is smallest.

    Why: a slope moved by ``a - b`` moves each activation's value by ``(a - b) g(z)`` directly, and that by at most
    ``Lip_l`` times as much in ``m``.

    Args: objectives: ``(batch or 1, rows, output_size)``. lo, hi: ``(batch,)``, any finite slopes ``lo <= hi``. known:
    bounds of every node's value over region and range, where better ones than plain intervals are at hand.
    Returns: ``(batch, rows)`` in float64; infinite where nothing can be said.
    Raises: MissingRule: an operator has no rule.
    """
    with torch.no_grad():
        objectives = objectives.double().expand(region.batch, -1, -1)
        known = over_range(slopes, region, lo, hi) if known is None else known
        found = terms((slopes.at(lo), slopes.at(hi)), objectives, departures(slopes, known))
        total = objectives.new_zeros(objectives.shape[:2])
        for term in found.values():
            total = up(total + term)
        return trusted_upper(total)


def terms(
    networks: tuple[Network, Network], objectives: Tensor, departing: Mapping[str, Interval]
) -> dict[str, Tensor]:
    """At least how much each activation's departure adds to or takes from the objectives, ``(batch, rows)`` by name.

    networks: one network at both ends of the slopes for which the tails' Lipschitz constants have to hold. departing:
    bounds of the departures by name, ``(batch, *shape)``. An activation that no objective depends on is left out.
    """
    norms = {node.name: _lipschitz(networks[0], node, networks[1].by_name[node.name]) for node in networks[0]}
    moved = {name: interval.magnitude.flatten(1) for name, interval in departing.items()}
    each = [_terms(networks[0], norms, objectives, moved, norm) for norm in Norm]
    return {name: torch.stack([found[name] for found in each]).amin(0) for name in each[0]}


def _terms(
    network: Network,
    norms: Mapping[str, list[dict[Norm, Tensor]]],
    objectives: Tensor,
    moved: Mapping[str, Tensor],
    norm: Norm,
) -> dict[str, Tensor]:
    """The terms with all lengths in one norm."""
    tails: dict[str, Tensor] = {}
    parts = torch.split(objectives, [port.size for port in network.outputs], -1)
    for port, part in zip(network.outputs, parts, strict=True):
        _add(tails, port.name, length(part, DUAL[norm]))
    found = {}
    for node in reversed(network.nodes):
        tail = tails.pop(node.name, None)
        if tail is None:
            continue
        if node.name in moved:
            found[node.name] = _times(tail, length(moved[node.name], norm))
        for name, own in zip(node.inputs, norms[node.name], strict=True):
            _add(tails, name, _times(tail, own[norm]))
    return found


def _add(tails: dict[str, Tensor], name: str, more: Tensor) -> None:
    tails[name] = up(tails[name] + more) if name in tails else more


def _times(tail: Tensor, factor: Tensor) -> Tensor:
    """``(batch, rows)`` times ``(batch or 1,)``, upwards; zero where either is, and infinity times the rest."""
    factor = factor.reshape(-1, 1)
    found = up(tail * factor)
    return torch.where((tail == 0) | (factor == 0), 0.0, found)


def _lipschitz(network: Network, node: Node, last: Node) -> list[dict[Norm, Tensor]]:
    """For each input of a node Lipschitz constants ``(batch or 1,)``, over a range of slopes."""
    if isinstance(node.op, Affine):
        found = affine_norms(network, node, node.op)
        return [{norm: torch.tensor([x], dtype=torch.float64) for norm, x in own.items()} for own in found]
    if not node.inputs:
        return []
    # of an elementwise operator its steepest slope in any norm; the maximum of some entries moves by no more than the
    # one of them that moves most
    steepest = torch.maximum(_steepest(node), _steepest(last))
    return [dict.fromkeys(Norm, steepest)]


def _steepest(node: Node) -> Tensor:
    op = node.op
    if isinstance(op, TwoSlope):
        return torch.maximum(*(_largest(around(side, op.precision).magnitude, node) for side in (op.left, op.right)))
    if isinstance(op, Clip | Tanh | Maximum):
        return torch.ones(1, dtype=torch.float64)
    if isinstance(op, Sigmoid):
        return torch.full((1,), 0.25, dtype=torch.float64)
    raise MissingRule(f"Lipschitz constants have no rule for {type(op).__name__} (node {node.origin or node.name!r})")


def _largest(parameter: Tensor, node: Node) -> Tensor:
    """The largest entry, for each row of a batch where the parameter has a batch axis."""
    if parameter.dim() <= len(node.shape):
        return parameter.amax().reshape(1)
    return parameter.flatten(1).amax(1)

"""How certificates move with the leak: the question as users ask it, for a property and for labelled data."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.labelled import labelled
from leaktight.specs.property import Property
from leaktight.specs.region import Norm
from leaktight.verify.device import CPU, Device
from leaktight.verify.kinds import check_kinds
from leaktight.verify.leak.course import Setting, answered
from leaktight.verify.leak.plan import Progress
from leaktight.verify.leak.questions import OfData, OfProperty
from leaktight.verify.leak.result import LeakResult
from leaktight.verify.leak.ways import TOLERANCE, Ways


def leak(
    network: Network,
    property: Property,
    slopes: tuple[float, float],
    *,
    tolerance: float = TOLERANCE,
    nodes: Iterable[str] | None = None,
    meaning: str = "shared",
    engine: str = "auto",
    timeout: float | None = None,
    memory: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    lipschitz: bool | None = None,
    device: str | Device = CPU,
) -> LeakResult:
    """How the property's margin moves with the slope of the network's Leaky ReLUs, proven for every slope of a range.

    Let ``M(a)`` be the smallest margin over the property's regions of the network with the slope ``a``, in exact real
    arithmetic. The result's curve bounds it from below at every ``a`` in ``[lo, hi]``, and from above by what inputs
    attain; see `Curve`.

    Args: slopes: ``(lo, hi)``, any finite numbers. tolerance: segments are halved until the two curves are this close,
    or halving no longer helps. nodes: names of the Leaky ReLU nodes to move; all by default. meaning: "shared": one
    slope for all chosen nodes; "independent": each neuron has its own, anywhere in ``[lo, a]``. engine: "crown",
    "alpha-crown" (optimised lines where the sign is open), or "auto" (also halves boxes of few inputs). timeout:
    seconds; memory: bytes. lipschitz: whether the result carries the network's Lipschitz constant over the slopes (L2);
    by default where that is cheap. device: where curves are computed, ``cpu``, ``cuda`` or ``cuda:N``.
    Raises: UsageError: an argument is not allowed, or there is no slope to move or no such device. PropertyError: the
    property does not fit the network.
    """
    check_kinds(network=network, property=property)
    ways = Ways(slopes, tolerance, nodes, meaning, engine, timeout, memory, seed, progress, lipschitz, device)

    def asked(there: Device, _: Setting) -> OfProperty:
        return OfProperty(list(there.of(property).about(network)))

    found = answered(network, ways, asked)
    return found.about({"property": property.file})


def leak_of_data(
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    slopes: tuple[float, float],
    *,
    norm: Norm | str | float = Norm.LINF,
    clip: tuple[float, float] | None = None,
    radius: bool = False,
    tolerance: float = TOLERANCE,
    nodes: Iterable[str] | None = None,
    meaning: str = "shared",
    engine: str = "auto",
    timeout: float | None = None,
    memory: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    lipschitz: bool | None = None,
    device: str | Device = CPU,
) -> LeakResult:
    """`leak` for labelled inputs: a curve for each, "the label scores highest within epsilon of the input".

    Args: inputs ``(batch, ...)``, labels ``(batch,)``, norm, clip: as for `leaktight.certify`. radius: also a proven
    radius, no larger than `epsilon`, on segments of the slopes. lipschitz: the constant is in the data's norm, and
    proves radii too where they are asked for. The rest as for `leak`; the timeout is for all inputs.
    """
    check_kinds(network=network)
    ways = Ways(slopes, tolerance, nodes, meaning, engine, timeout, memory, seed, progress, lipschitz, device)
    kind = Norm.named(norm)

    def asked(there: Device, setting: Setting) -> OfData:
        x, y = there.of(labelled(inputs, labels, network.input_size))
        return OfData(setting.moving, x, y, epsilon, kind, clip, radius)

    found = answered(network, ways, asked)
    return found.about({"epsilon": epsilon, "norm": kind.value, "data": {"path": None, "sha256": None}})

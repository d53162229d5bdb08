"""How far outputs move when inputs move."""

from __future__ import annotations

from leaktight import arguments, options
from leaktight.answer import INTERRUPTED, Answer
from leaktight.commands.given import read_network
from leaktight.errors import UsageError
from leaktight.progress import bar


def lipschitz(
    network: arguments.NetworkFile,
    norm: arguments.LipschitzNorm = "2",
    method: arguments.Method = "auto",
    solver: arguments.Solver = None,
    centre: arguments.Centre = None,
    radius: arguments.CentreRadius = None,
    slopes: arguments.CurveSlopes = None,
    timeout: arguments.Timeout = None,
    seed: arguments.Seed = 0,
    architecture: arguments.Architecture = None,
    trust: arguments.Trust = False,
) -> Answer:
    """How far outputs move when inputs move.

    A proven Lipschitz constant of the whole network, or of a ball of inputs, beside one that is attained.
    """
    from leaktight.verify.lipschitz.lipschitz import lipschitz as bound_constant

    if (centre is None) != (radius is None):
        raise UsageError("--center and --radius belong together; one of them is missing")
    if centre is not None:
        from leaktight.specs.point import read_point
    size = None if radius is None else _ball_size(radius)
    asked = read_network(network, architecture, trust)
    with bar("solving") as progress:
        found = bound_constant(
            asked,
            norm=norm,
            method=method,
            solver=solver,
            centre=None if centre is None else read_point("--center", centre, asked.input_size),
            radius=size,
            slopes=None if slopes is None else options.span("--slopes", slopes),
            timeout=None if timeout is None else options.number("--timeout", timeout),
            seed=seed,
            progress=progress,
        )
    return Answer(found.to_json(), found.summary, INTERRUPTED if found.interrupted else 0)


def _ball_size(radius: str) -> float:
    try:
        return options.at_least_zero("--radius", radius)
    except UsageError as error:
        raise UsageError(f"{error}; for all inputs leave out --center and --radius") from None

"""How certificates move with the leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leaktight import arguments, options
from leaktight.answer import INTERRUPTED, Answer
from leaktight.commands.given import device_named, normalised, read_network
from leaktight.errors import UsageError
from leaktight.progress import stages


def leak(
    network: arguments.NetworkFile,
    slopes: arguments.SlopeRange,
    property: arguments.OptionalProperty = None,
    data: arguments.LeakData = None,
    epsilon: arguments.LeakEpsilon = None,
    tolerance: arguments.Tolerance = "0.05",
    nodes: arguments.NodeNames = None,
    meaning: arguments.LeakMeaning = "shared",
    norm: arguments.NormName = "inf",
    clip: arguments.Clip = None,
    limit: arguments.Limit = None,
    mean: arguments.Mean = None,
    std: arguments.Std = None,
    labels: arguments.LabelsFile = None,
    channels_last: arguments.ChannelsLast = False,
    radius: arguments.Radius = False,
    lipschitz: arguments.LeakConstant = None,
    engine: arguments.LeakEngine = "auto",
    timeout: arguments.Timeout = None,
    memory: arguments.Memory = None,
    device: arguments.DeviceName = "cpu",
    seed: arguments.Seed = 0,
    architecture: arguments.Architecture = None,
    trust: arguments.Trust = False,
) -> Answer:
    """How certificates move with the leak.

    Proves a curve of the margin over every slope of a range, for a property or for labelled inputs.
    """
    if (property is None) == (data is None):
        raise UsageError("give either a PROPERTY, or --data with --epsilon; got " + ("both" if data else "neither"))
    if (data is None) != (epsilon is None):
        raise UsageError("--data and --epsilon belong together; one of them is missing")
    if property is not None:
        _only_with_data(
            {
                "--norm": norm != "inf",
                "--clip": clip is not None,
                "--limit": limit is not None,
                "--labels": labels is not None,
                "--channels-last": channels_last,
                "--radius": radius,
            }
        )
    within = options.span("--slopes", slopes)
    ways: dict[str, Any] = {
        "tolerance": options.number("--tolerance", tolerance),
        "nodes": None if nodes is None else [name.strip() for name in nodes.split(",")],
        "meaning": meaning,
        "engine": engine,
        "seed": seed,
        "memory": None if memory is None else options.byte_count("--memory", memory),
        "timeout": None if timeout is None else options.number("--timeout", timeout),
        "lipschitz": lipschitz,
        "device": device_named(device),
    }
    asked = normalised(read_network(network, architecture, trust), mean, std)
    with stages() as progress:
        if property is not None:
            from leaktight.specs.vnnlib import read_property
            from leaktight.verify.leak.leak import leak as move

            found = move(asked, read_property(property), within, progress=progress, **ways)
        else:
            from leaktight.specs.data import fit, read_data
            from leaktight.verify.leak.leak import leak_of_data

            known = fit(read_data(Path(data or ""), labels=labels, limit=limit), asked, channels_last=channels_last)
            size = options.at_least_zero("--epsilon", epsilon or "")
            balls: dict[str, Any] = {"norm": norm, "clip": clip, "radius": radius}
            found = leak_of_data(
                asked, known.inputs, known.labels, size, within, progress=progress, **balls, **ways
            ).about({"data": {"path": known.path, "sha256": known.sha256}})
    return Answer(found.to_json(), found.summary, INTERRUPTED if found.interrupted else found.status.exit_code)


def _only_with_data(given: dict[str, bool]) -> None:
    """Raises UsageError: an option is given that a property has no use for."""
    needless = [option for option, there in given.items() if there]
    if needless:
        raise UsageError(f"{', '.join(needless)}: only with --data; a PROPERTY says itself which inputs it is about")

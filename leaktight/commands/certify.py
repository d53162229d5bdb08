"""Do labelled inputs keep their label?"""

from __future__ import annotations

from dataclasses import replace

from leaktight import arguments, options
from leaktight.answer import INTERRUPTED, Answer
from leaktight.arguments import Precision
from leaktight.commands.given import budget, engine_name, normalised, read_network
from leaktight.progress import bar


def certify(
    network: arguments.NetworkFile,
    data: arguments.DataFile,
    epsilon: arguments.Epsilon,
    norm: arguments.NormName = "inf",
    clip: arguments.Clip = None,
    limit: arguments.Limit = None,
    mean: arguments.Mean = None,
    std: arguments.Std = None,
    labels: arguments.LabelsFile = None,
    channels_last: arguments.ChannelsLast = False,
    radius: arguments.Radius = False,
    engine: arguments.Engine = "auto",
    timeout: arguments.EachTimeout = None,
    jobs: arguments.CertifyJobs = None,
    memory: arguments.Memory = None,
    dtype: arguments.Arithmetic = Precision.FLOAT64,
    device: arguments.DeviceName = "cpu",
    seed: arguments.Seed = 0,
    architecture: arguments.Architecture = None,
    trust: arguments.Trust = False,
) -> Answer:
    """Do labelled inputs keep their label?

    Proves or refutes it for every input within E of it, and says the certified accuracy.
    """
    from leaktight.specs.data import fit, read_data
    from leaktight.verify import certify as certification
    from leaktight.verify.report.words import percent
    from leaktight.verify.verdict import Status

    size = options.at_least_zero("--epsilon", epsilon)
    chosen = engine_name(engine)
    asked = normalised(read_network(network, architecture, trust), mean, std)
    known = fit(read_data(data, labels=labels, limit=limit), asked, channels_last=channels_last)
    with bar("certifying") as progress:
        found = certification.certify(
            asked,
            known.inputs,
            known.labels,
            size,
            norm=norm,
            clip=clip,
            engine=chosen,
            radius=radius,
            seed=seed,
            jobs=jobs,
            progress=progress,
            **budget(dtype, memory, device, timeout),
        )
    found = replace(found, data={"path": known.path, "sha256": known.sha256})
    proved = sum(record.status is Status.PROVED for record in found.inputs)
    share = {name: percent(value) for name, value in found.accuracy.items()}
    summary = (
        f"{proved} of {len(found.inputs)} inputs certified ({share['certified']});"
        f" {share['clean']} clean, {share['attacked']} not refuted ({found.seconds:.2f} s)"
    )
    unknown = sum(record.status is Status.UNKNOWN for record in found.inputs)
    if unknown and chosen == "auto" and timeout is None and not found.interrupted:
        summary += f"; {unknown} left open by bounds alone: --timeout SECONDS searches them"
    summary += "; interrupted: what is shown holds, the rest is open" if found.interrupted else ""
    return Answer(found.to_json(), summary, INTERRUPTED if found.interrupted else found.status.exit_code)

"""Does a property hold?"""

from __future__ import annotations

from functools import partial

from leaktight import arguments, options
from leaktight.answer import INTERRUPTED, Answer
from leaktight.arguments import Precision
from leaktight.commands.given import budget, engine_name, read_network
from leaktight.progress import stages
from leaktight.verify.report import file


def verify(
    network: arguments.NetworkFile,
    property: arguments.PropertyFile,
    engine: arguments.Engine = "auto",
    timeout: arguments.Timeout = None,
    counterexample: arguments.CounterexampleFile = None,
    margin: arguments.MarginTolerance = None,
    guarantee: arguments.GuaranteeName = "real",
    cross_check: arguments.CrossCheck = False,
    memory: arguments.Memory = None,
    dtype: arguments.Arithmetic = Precision.FLOAT64,
    device: arguments.DeviceName = "cpu",
    seed: arguments.Seed = 0,
    architecture: arguments.Architecture = None,
    trust: arguments.Trust = False,
) -> Answer:
    """Does the property hold?

    Answers proved, refuted (with a counterexample that onnxruntime confirms), unknown or timeout.
    """
    from leaktight.specs.vnnlib import read_property
    from leaktight.verify.prove import prove
    from leaktight.verify.tighten import least_margin

    options.choice("--guarantee", guarantee, ("real",))
    if counterexample is not None:
        file.check_writable("--counterexample", counterexample)
    answer = prove if margin is None else partial(least_margin, tolerance=options.number("--margin", margin))
    with stages() as progress:
        verdict = answer(
            read_network(network, architecture, trust),
            read_property(property),
            engine=engine_name(engine),
            seed=seed,
            cross_check=cross_check,
            progress=progress,
            **budget(dtype, memory, device, timeout),
        )
    if counterexample is not None and verdict.counterexample is not None:
        from leaktight.verify.search.counterexample_file import write_counterexample

        write_counterexample(counterexample, verdict.counterexample)
    weaker = "" if verdict.guarantee.value == "real" else f"; guarantee: {verdict.guarantee.value}"
    summary = f"{verdict.status.value}: {verdict.reason} ({verdict.seconds:.2f} s{weaker})"
    return Answer(verdict.to_json(), summary, INTERRUPTED if verdict.interrupted else verdict.status.exit_code)

"""The command line, and the only module that prints. Heavy imports happen inside the commands, after ``--help``."""

from __future__ import annotations

import contextlib
import functools
import inspect as inspection
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaktight import arguments as cli
from leaktight import options, provenance
from leaktight.arguments import Format, Precision, ReportFormat
from leaktight.errors import InputError, UsageError
from leaktight.verify.report import file
from leaktight.version import __version__

if TYPE_CHECKING:
    import torch

    from leaktight.models.network import Network
    from leaktight.verify.device import Device

BAD_INPUT, CRASHED, INTERRUPTED = 2, 70, 130
FAIL_ON = ("refuted", "unknown", "timeout", "regression")
_ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("the arguments of this run", default=())
CommandLineError: Any = typer.BadParameter.__bases__[0]  # what typer raises for a command line that makes no sense


class Undelivered(Exception):
    """There is a result, but stdout does not take it."""


app = typer.Typer(
    name="leaktight",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"leaktight {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Proves margins of (Leaky) ReLU networks, with bounds that hold in real arithmetic.

    Exit codes: 0 proved or done, 1 refuted, 2 bad input or usage, 3 unknown, 4 timeout, 70 internal error.
    """


@dataclass(frozen=True)
class Answer:
    """What a command found: its document, one line about it, and the exit code."""

    document: Mapping[str, Any]
    summary: str
    code: int = 0


def command(
    body: Callable[..., Answer],
    formats: Any = cli.AsFormat,
    usual: Format | None = Format.TEXT,
    name: str | None = None,
) -> Callable[..., None]:
    """Makes a function a command, with --format (one of `formats`, by default `usual`) and --output.

    Its answer is delivered; what it raises becomes a message and an exit code.
    """

    @functools.wraps(body)
    def run_body(style: Format | ReportFormat | None, output: Path | None, **given: Any) -> None:
        raise typer.Exit(_outcome(lambda: _deliver(lambda: body(**given), style, output)))

    own = tuple(inspection.signature(body, eval_str=True).parameters.values())
    named = inspection.Parameter.KEYWORD_ONLY
    ways = (
        inspection.Parameter("style", named, default=usual, annotation=formats),
        inspection.Parameter("output", named, default=None, annotation=cli.Output),
    )
    run_body.__signature__ = inspection.Signature((*own, *ways))  # type: ignore[attr-defined]
    run_body.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *ways)}
    return app.command(name)(run_body)


def _deliver(body: Callable[[], Answer], style: Format | ReportFormat | None, output: Path | None) -> int:
    if output is not None:
        file.check_writable("--output", output)
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library or the user's code prints, stdout is the result's
        answer = body()
    text = _rendered(
        answer.document, style or ReportFormat.of(output), to_terminal=output is None and sys.stdout.isatty()
    )
    if output is None:
        _print(text)
    else:
        file.write_whole("--output", output, text)
    _say(answer.summary)
    return answer.code


def _rendered(document: Mapping[str, Any], style: Format | ReportFormat, *, to_terminal: bool) -> str:
    if isinstance(style, Format):
        document = provenance.signed(document, _ARGUMENTS.get())
    if style is Format.JSON:
        from leaktight.verify.report import json

        return json.render(document)
    if style not in (Format.TEXT, ReportFormat.TEXT):
        from leaktight.verify.report.render import render

        return render(document, style.value)
    from shutil import get_terminal_size

    from leaktight.verify.report import text

    colour = to_terminal and not os.environ.get("NO_COLOR")
    return text.render(document, width=get_terminal_size().columns if to_terminal else 100, colour=colour)


def _print(text: str) -> None:
    """Raises Undelivered: stdout does not take it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries, and fails, once more
        raise Undelivered(f"the result could not be written to stdout ({error.strerror})") from None


def _say(line: str) -> None:
    print(f"leaktight: {line}", file=sys.stderr)


def run(arguments: list[str]) -> int:
    """Runs the command line and returns its exit code; no failure looks like an answer.

    Answers: 0 proved or done, 1 refuted, 3 unknown, 4 timeout. Failures: 2 bad input or usage, 70 internal error, 130
    interrupted.
    """

    def call() -> int:
        _ARGUMENTS.set(tuple(arguments))
        try:
            return int(typer.main.get_command(app).main(arguments, prog_name="leaktight", standalone_mode=False) or 0)
        except CommandLineError as error:
            error.show()
            return BAD_INPUT

    return _outcome(call)


def _outcome(work: Callable[[], int]) -> int:
    """`work`'s exit code, or that of what it raises."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")  # torch, of Intel's GPUs
            return work()
    except InputError as error:
        _say(f"error: {error}")
        return BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted; nothing was decided")
        return INTERRUPTED
    except Undelivered as error:
        _say(f"error: {error}")
        return CRASHED
    except (Exception, SystemExit) as error:
        return _crash(error)


def _crash(error: BaseException) -> int:
    if os.environ.get("LEAKTIGHT_DEBUG"):
        traceback.print_exception(error)
    first = next(iter(str(error).splitlines()), "")
    _say(
        f"internal error: {type(error).__name__}: {first}; nothing was decided; please report it, with what"
        " LEAKTIGHT_DEBUG=1 shows"
    )
    return CRASHED


def _show_warning(message: Warning | str, *_: Any) -> None:
    _say(f"warning: {' '.join(str(message).split())}")


@contextlib.contextmanager
def _stages() -> Iterator[Callable[[str], None] | None]:
    """A line on a terminal that says what is being done."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("loading") as status:
        yield status.update


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _network(path: str, architecture: str | None = None, trust: bool = False) -> Network:
    from leaktight.models.load import load

    return load(path, architecture=architecture, trust=trust)


def _engine(name: str) -> str:
    from leaktight.verify.prove import engine_names

    return options.choice("--engine", name, engine_names())


def _budget(dtype: Precision, memory: str | None, device: str, timeout: str | None = None) -> dict[str, Any]:
    import torch

    found: torch.dtype = getattr(torch, dtype.value)
    return {
        "dtype": found,
        "device": _device(device),
        "memory": None if memory is None else options.byte_count("--memory", memory),
        **({} if timeout is None else {"timeout": options.number("--timeout", timeout)}),
    }


def _device(name: str) -> Device:
    from leaktight.verify.device import Device

    return Device.named(name)


@command
def verify(
    network: cli.NetworkFile,
    property: cli.PropertyFile,
    engine: cli.Engine = "auto",
    timeout: cli.Timeout = None,
    counterexample: cli.CounterexampleFile = None,
    margin: cli.MarginTolerance = None,
    guarantee: cli.GuaranteeName = "real",
    cross_check: cli.CrossCheck = False,
    memory: cli.Memory = None,
    dtype: cli.Arithmetic = Precision.FLOAT64,
    device: cli.DeviceName = "cpu",
    seed: cli.Seed = 0,
    architecture: cli.Architecture = None,
    trust: cli.Trust = False,
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
    with _stages() as progress:
        verdict = answer(
            _network(network, architecture, trust),
            read_property(property),
            engine=_engine(engine),
            seed=seed,
            cross_check=cross_check,
            progress=progress,
            **_budget(dtype, memory, device, timeout),
        )
    if counterexample is not None and verdict.counterexample is not None:
        from leaktight.verify.search.counterexample_file import write_counterexample

        write_counterexample(counterexample, verdict.counterexample)
    weaker = "" if verdict.guarantee.value == "real" else f"; guarantee: {verdict.guarantee.value}"
    summary = f"{verdict.status.value}: {verdict.reason} ({verdict.seconds:.2f} s{weaker})"
    return Answer(verdict.to_json(), summary, INTERRUPTED if verdict.interrupted else verdict.status.exit_code)


@command
def certify(
    network: cli.NetworkFile,
    data: cli.DataFile,
    epsilon: cli.Epsilon,
    norm: cli.NormName = "inf",
    clip: cli.Clip = None,
    limit: cli.Limit = None,
    mean: cli.Mean = None,
    std: cli.Std = None,
    labels: cli.LabelsFile = None,
    channels_last: cli.ChannelsLast = False,
    radius: cli.Radius = False,
    engine: cli.Engine = "auto",
    timeout: cli.EachTimeout = None,
    jobs: cli.CertifyJobs = None,
    memory: cli.Memory = None,
    dtype: cli.Arithmetic = Precision.FLOAT64,
    device: cli.DeviceName = "cpu",
    seed: cli.Seed = 0,
    architecture: cli.Architecture = None,
    trust: cli.Trust = False,
) -> Answer:
    """Do labelled inputs keep their label?

    Proves or refutes it for every input within E of it, and says the certified accuracy.
    """
    from leaktight.specs.data import fit, read_data
    from leaktight.verify import certify as certification

    size = options.at_least_zero("--epsilon", epsilon)
    chosen = _engine(engine)
    asked = _normalised(_network(network, architecture, trust), mean, std)
    known = fit(read_data(data, labels=labels, limit=limit), asked, channels_last=channels_last)
    with _bar("certifying") as progress:
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
            **_budget(dtype, memory, device, timeout),
        )
    found = replace(found, data={"path": known.path, "sha256": known.sha256})
    proved = sum(record.status.value == "proved" for record in found.inputs)
    accuracy = found.accuracy
    summary = (
        f"{proved} of {len(found.inputs)} inputs certified ({accuracy['certified']:.1%});"
        f" {accuracy['clean']:.1%} clean, {accuracy['attacked']:.1%} not refuted ({found.seconds:.2f} s)"
    )
    summary += "; interrupted: what is shown holds, the rest is open" if found.interrupted else ""
    return Answer(found.to_json(), summary, INTERRUPTED if found.interrupted else found.status.exit_code)


def _normalised(network: Network, mean: str | None, std: str | None) -> Network:
    if mean is None and std is None:
        return network
    from leaktight.models.normalise import normalised

    return normalised(network, options.numbers("--mean", mean or "0"), options.numbers("--std", std or "1"))


@command
def bounds(
    network: cli.NetworkFile,
    property: cli.PropertyFile,
    engine: cli.Engine = "crown",
    memory: cli.Memory = None,
    dtype: cli.Arithmetic = Precision.FLOAT64,
    device: cli.DeviceName = "cpu",
    architecture: cli.Architecture = None,
    trust: cli.Trust = False,
) -> Answer:
    """Proven bounds of every output.

    They hold on the property's whole input region.
    """
    from leaktight.specs.vnnlib import read_property
    from leaktight.verify.bounds.engine import ENGINES
    from leaktight.verify.bounds.union import bound_everywhere

    chosen = options.choice("--engine", engine, tuple(ENGINES))
    found = bound_everywhere(
        _network(network, architecture, trust), read_property(property), engine=chosen, **_budget(dtype, memory, device)
    )
    count = sum(lower.numel() for lower, _ in found.outputs.values())
    return Answer(found.to_json(), f"bounds of {count} outputs over {found.regions} region(s) by {found.engine}")


@command
def leak(
    network: cli.NetworkFile,
    slopes: cli.SlopeRange,
    property: cli.OptionalProperty = None,
    data: cli.LeakData = None,
    epsilon: cli.LeakEpsilon = None,
    tolerance: cli.Tolerance = "0.05",
    nodes: cli.NodeNames = None,
    meaning: cli.LeakMeaning = "shared",
    norm: cli.NormName = "inf",
    clip: cli.Clip = None,
    limit: cli.Limit = None,
    mean: cli.Mean = None,
    std: cli.Std = None,
    labels: cli.LabelsFile = None,
    channels_last: cli.ChannelsLast = False,
    radius: cli.Radius = False,
    lipschitz: cli.LeakConstant = None,
    engine: cli.LeakEngine = "auto",
    timeout: cli.Timeout = None,
    memory: cli.Memory = None,
    device: cli.DeviceName = "cpu",
    seed: cli.Seed = 0,
    architecture: cli.Architecture = None,
    trust: cli.Trust = False,
) -> Answer:
    """How certificates move with the leak.

    Proves a curve of the margin over every slope of a range, for a property or for labelled inputs.
    """
    if (property is None) == (data is None):
        raise UsageError("give either a PROPERTY, or --data with --epsilon; got " + ("both" if data else "neither"))
    if (data is None) != (epsilon is None):
        raise UsageError("--data and --epsilon belong together; one of them is missing")
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
        "device": _device(device),
    }
    asked = _normalised(_network(network, architecture, trust), mean, std)
    with _stages() as progress:
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


@command
def lipschitz(
    network: cli.NetworkFile,
    norm: cli.LipschitzNorm = "2",
    method: cli.Method = "auto",
    solver: cli.Solver = None,
    centre: cli.Centre = None,
    radius: cli.CentreRadius = None,
    slopes: cli.CurveSlopes = None,
    timeout: cli.Timeout = None,
    seed: cli.Seed = 0,
    architecture: cli.Architecture = None,
    trust: cli.Trust = False,
) -> Answer:
    """How far outputs move when inputs move.

    A proven Lipschitz constant of the whole network, or of a ball of inputs, beside one that is attained.
    """
    from leaktight.verify.lipschitz.lipschitz import lipschitz as bound_constant

    if centre is not None:
        from leaktight.specs.point import read_point
    size = None if radius is None else _ball_size(radius)
    asked = _network(network, architecture, trust)
    with _bar("solving") as progress:
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


@functools.partial(command, name="run")
def run_suite(
    suite: cli.SuiteFile,
    jobs: cli.Jobs = None,
    cluster: cli.Cluster = None,
    resume: cli.Resume = False,
    ledger: cli.LedgerUrl = "sqlite:///.leaktight/ledger.sqlite",
    tag: cli.Tags = None,
    memory: cli.WorkerMemory = None,
    fail_on: cli.FailOn = None,
    baseline: cli.Baseline = None,
    tolerance: cli.RegressionTolerance = None,
    report: cli.Reports = None,
) -> Answer:
    """All jobs of a suite, with a gate.

    Every answer is recorded at once; --resume goes on where a run ended, and asks anew only what changed.
    """
    from leaktight.verify.run.pipeline import Wanted, pipeline

    wanted = Wanted(
        suite=suite,
        ledger=ledger,
        resume=resume,
        workers=jobs,
        cluster=cluster,
        memory=None if memory is None else options.byte_count("--memory", memory),
        tags=tuple(tag or ()),
        fail_on=None if fail_on is None else options.words("--fail-on", fail_on, FAIL_ON),
        baseline=baseline,
        tolerance=None if tolerance is None else options.at_least_zero("--tolerance", tolerance),
        reports=_reports(report or []),
    )
    with _bar("running") as progress:
        document, line, code = pipeline(wanted, progress)
    document = provenance.signed(document, _ARGUMENTS.get())
    for style, path in wanted.reports:
        file.write_whole("--report", path, _rendered(document, ReportFormat(style), to_terminal=False))
    _tell_github(document)
    return Answer(document, line, code)


def _reports(given: list[str]) -> tuple[tuple[str, Path], ...]:
    """``html=page.html`` and so on; refused before any work where they could not be written."""
    found = []
    for text in given:
        style, equals, path = text.partition("=")
        options.choice("--report", style, tuple(style.value for style in ReportFormat))
        if not equals or not path:
            raise UsageError(f"--report: {text!r} names no file; write it like {style}=FILE")
        file.check_writable("--report", Path(path))
        found.append((style, Path(path)))
    return tuple(found)


def _tell_github(document: Mapping[str, Any]) -> None:
    """Annotations and the step's summary, where this runs in GitHub Actions."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    from leaktight.verify.report import github

    for line in github.commands(document):
        print(line, file=sys.stderr)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with open(summary, "a", encoding="utf-8") as page:
                page.write(github.summary(document))
        except OSError as error:
            _say(f"warning: the summary of this step cannot be written ({error.strerror})")


@command
def init(folder: cli.Folder = Path("."), force: cli.Force = False) -> Answer:
    """A first suite for the networks in a folder.

    Writes leaktight.toml, with comments, for the networks, properties and data that it finds there.
    """
    from leaktight.verify.run.init import NAME, make
    from leaktight.verify.run.samples import write_samples

    if not folder.is_dir():
        raise UsageError(f"{folder}: {'this is no folder' if folder.exists() else 'there is no such folder'}")
    path = folder / NAME
    if path.exists() and not force:
        raise UsageError(f"{path}: there is a suite already; give --force to replace it")
    file.check_writable("FOLDER", path)
    with _stages() as progress:
        if progress:
            progress("looking at the files")
        made = make(folder)
    for name, (inputs, labels) in made.samples.items():
        write_samples(folder / name, inputs, labels)
    file.write_whole("FOLDER", path, made.text)
    for reason in made.left_out:
        _say(f"warning: left out: {reason}")
    document = {
        "schema": "leaktight.init/1",
        "suite": str(path),
        "networks": made.networks,
        "tables": made.jobs,
        "files": [str(folder / name) for name in made.samples],
        "left_out": list(made.left_out),
        "version": __version__,
    }
    return Answer(
        document, f"{path} asks {made.jobs} questions of {made.networks} networks; next: leaktight run {path}"
    )


@command
def history(
    ledger: cli.LedgerUrl = "sqlite:///.leaktight/ledger.sqlite",
    job: cli.HistoryJob = None,
    limit: cli.HistoryLimit = 100,
) -> Answer:
    """What the ledger holds, the newest first."""
    from leaktight.verify.run.pipeline import history as look

    found = look(ledger, job, limit)
    return Answer(found, f"{len(found['records'])} answers in {found['ledger']}")


@functools.partial(command, formats=cli.AsReport, usual=None)
def report(results: cli.ResultFiles, compare: cli.Compare = False) -> Answer:
    """Results as pages that people read.

    One page, with a section for each result; with --compare, what changed from the first to the second.
    """
    from leaktight.verify.report.render import from_files

    return Answer(*from_files(results, compare=compare))


@command
def inspect(
    network: cli.NetworkFile,
    architecture: cli.Architecture = None,
    trust: cli.Trust = False,
) -> Answer:
    """Operators, slopes and shapes of a network."""
    from leaktight.models.inspect import inspect as look

    found = look(_network(network, architecture, trust))
    summary = f"{found.parameters} parameters, {found.neurons} activations, digest {found.digest[:12]}"
    return Answer(found.to_json(), summary)


@command
def ops() -> Answer:
    """What is supported.

    The ONNX operators that can be read, and what each engine does with what they become.
    """
    from leaktight.capabilities import operators

    found = operators()
    return Answer(found, f"{len(found['onnx'])} ONNX operators; engines: auto, {', '.join(found['engines'])}")


@command
def doctor() -> Answer:
    """Is this installation sound?

    Looks at versions and the runtime, and runs proofs whose verdicts are known. Exits with 1 if anything is wrong.
    """
    from leaktight.doctor import doctor as examine

    found = examine()
    failed = [check["name"] for check in found["checks"] if not check["ok"]]
    if failed:
        return Answer(found, f"this installation is not sound: {', '.join(failed)}", 1)
    return Answer(found, "this installation is sound")


@command
def demo() -> Answer:
    """A first proof and a first refutation."""
    from leaktight.demo import demo as show

    with _stages() as progress:
        found = show(progress)
    if not found["as_expected"]:
        raise RuntimeError("the demo's properties did not come out as proved and refuted; run 'leaktight doctor'")
    return Answer(found, "the first property is proved, the second refuted; next: leaktight verify NETWORK PROPERTY")

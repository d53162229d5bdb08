"""The arguments of the command line: their names, and what ``--help`` says about each."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class Format(str, Enum):
    """How a result is written."""

    TEXT = "text"
    JSON = "json"


class ReportFormat(str, Enum):
    """How a report is written."""

    HTML = "html"
    MARKDOWN = "md"
    JSON = "json"
    TEXT = "text"
    JUNIT = "junit"
    SARIF = "sarif"

    @classmethod
    def of(cls, output: Path | None) -> ReportFormat:
        """The format that a file's name asks for, and text where it asks for none."""
        ending = "" if output is None else output.suffix.lower().removeprefix(".")
        known = {
            "html": cls.HTML,
            "htm": cls.HTML,
            "md": cls.MARKDOWN,
            "json": cls.JSON,
            "xml": cls.JUNIT,
            "sarif": cls.SARIF,
        }
        return known.get(ending, cls.TEXT)


class Precision(str, Enum):
    """The arithmetic that bounds are computed in; the guarantee is the same."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


def _argument(metavar: str, says: str) -> Any:
    return typer.Argument(metavar=metavar, help=says)


def _option(*names: str, value: str | None = None, says: str, least: int | None = None) -> Any:
    return typer.Option(*names, metavar=value, help=says, min=least)


NetworkFile = Annotated[str, _argument("NETWORK", "An .onnx, .onnx.gz or .pt2 file, or a state dict.")]
PropertyFile = Annotated[str, _argument("PROPERTY", "A VNN-LIB file (1.0 or 2.0), plain or .gz.")]
DataFile = Annotated[str, _argument("DATA", "Labelled inputs: .npz, .csv or idx.")]

OptionalProperty = Annotated[
    str | None,
    typer.Argument(metavar="PROPERTY", help="A VNN-LIB file; or give --data and --epsilon.", show_default=False),
]
ResultFiles = Annotated[list[Path], _argument("RESULT", "Files that --format json -o wrote.")]
Compare = Annotated[bool, _option("--compare", says="What changed from the first to the second of two results.")]

AsReport = Annotated[
    ReportFormat | None, _option("--format", says="How the report is written; default: by the name of -o, else text.")
]
AsFormat = Annotated[Format, _option("--format", says="How the result is written.")]
Output = Annotated[Path | None, _option("--output", "-o", value="FILE", says="Write the result here, not to stdout.")]
Architecture = Annotated[
    str | None, _option("--architecture", value="MODULE:FACTORY", says="The code that builds a state dict's network.")
]
Stability = Annotated[
    str | None,
    _option("--property", value="FILE", says="Also say which neurons are proven stable on this property's region."),
]
Trust = Annotated[bool, _option("--trust", says="Allow a pickled network, which runs code of its author's.")]
Engine = Annotated[str, _option("--engine", value="NAME", says="How bounds are computed; see 'leaktight ops'.")]
Timeout = Annotated[str | None, _option("--timeout", value="SECONDS", says="Stop after this time.")]
EachTimeout = Annotated[
    str | None,
    _option("--timeout", value="SECONDS", says="Search for so long for each input; without it auto does not search."),
]
Memory = Annotated[
    str | None, _option("--memory", value="SIZE", says="Use at most this much, like 4G; default: half of what is free.")
]
Arithmetic = Annotated[Precision, _option("--dtype", says="The arithmetic of the bounds; the guarantee is the same.")]
DeviceName = Annotated[str, _option("--device", value="NAME", says="Where bounds are computed: cpu, cuda or cuda:N.")]
Seed = Annotated[int, _option("--seed", value="N", says="Where random starts of the attack begin.", least=0)]

CounterexampleFile = Annotated[
    Path | None, _option("--counterexample", value="FILE", says="Write a counterexample: .npz, else VNN-LIB text.")
]
MarginTolerance = Annotated[
    str | None, _option("--margin", value="TOL", says="Bring the margin's bounds within this of each other.")
]
GuaranteeName = Annotated[str, _option("--guarantee", value="NAME", says="What a proof is about; there is one: real.")]
CrossCheck = Annotated[bool, _option("--cross-check", says="Also ask auto_LiRPA; exit 70 if it contradicts.")]

Epsilon = Annotated[str, _option("--epsilon", value="E", says="How far an input may move, like 0.03 or 8/255.")]
NormName = Annotated[str, _option("--norm", value="NORM", says="What E is measured in: inf, 2 or 1.")]
Clip = Annotated[tuple[float, float] | None, _option("--clip", value="LO HI", says="The range that values keep to.")]
Limit = Annotated[int | None, _option("--limit", value="N", says="Only the first N inputs.", least=1)]
Mean = Annotated[
    str | None, _option("--mean", value="M", says="The network sees (input - M) / S: one number, or one per channel.")
]
Std = Annotated[str | None, _option("--std", value="S", says="See --mean.")]
LabelsFile = Annotated[Path | None, _option("--labels", value="FILE", says="Labels of an idx file, if not beside it.")]
ChannelsLast = Annotated[
    bool, _option("--channels-last", says="The data has its channels last, and the network wants them first.")
]
Radius = Annotated[bool, _option("--radius", says="Also find a proven radius, up to E, for each input.")]

SlopeRange = Annotated[str, _option("--slopes", value="LO:HI", says="The range of slopes, like 0:0.3.")]
Tolerance = Annotated[
    str, _option("--tolerance", value="T", says="How close the proven and the attained curve should come.")
]
NodeNames = Annotated[
    str | None, _option("--nodes", value="NAMES", says="Only these Leaky ReLU nodes, with commas between them.")
]
LipschitzNorm = Annotated[str, _option("--norm", value="NORM", says="The norm of inputs and outputs: 2, inf or 1.")]
Method = Annotated[
    str,
    _option(
        "--method", value="NAME", says="auto (the best of all), product, liplt, jacobian, fast, fourier or lipsdp."
    ),
]
Solver = Annotated[
    str | None,
    _option(
        "--solver",
        value="NAME",
        says="With --method lipsdp: primal-dual, sweeps, newton, descent, or cvxpy's clarabel or scs.",
    ),
]
Centre = Annotated[
    Path | None, _option("--center", value="FILE", says="A local constant: the ball's centre, an .npy file or numbers.")
]
CentreRadius = Annotated[
    str | None, _option("--radius", value="R", says="With --center: the ball's radius in the norm.")
]
CurveSlopes = Annotated[
    str | None, _option("--slopes", value="LO:HI", says="Also a curve: a constant for every slope of the range.")
]
LeakConstant = Annotated[
    bool | None,
    typer.Option(
        "--lipschitz/--no-lipschitz", help="The network's Lipschitz constant over slopes; default: where cheap."
    ),
]
LeakMeaning = Annotated[
    str, _option("--leak", value="MEANING", says="shared: one slope for all; independent: each neuron has its own.")
]
LeakData = Annotated[Path | None, _option("--data", value="DATA", says="Labelled inputs: a curve for each.")]
LeakEpsilon = Annotated[str | None, _option("--epsilon", value="E", says="With --data: how far an input may move.")]
LeakEngine = Annotated[str, _option("--engine", value="NAME", says="auto, crown, alpha-crown or branch.")]

SuiteFile = Annotated[Path, _argument("SUITE", "A TOML suite, or an instances.csv as the VNN-COMP has it.")]
Jobs = Annotated[int | None, _option("--jobs", value="N", says="Workers at a time; default: one a core.", least=1)]
CertifyJobs = Annotated[
    int | None, _option("--jobs", value="N", says="Worker processes; default: everything in this one.", least=1)
]
Cluster = Annotated[
    str | None,
    _option("--cluster", value="ADDRESS", says="Workers on a Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT."),
]
Resume = Annotated[bool, _option("--resume", says="Take answers to the same questions from the ledger.")]
LedgerUrl = Annotated[
    str, _option("--ledger", value="URL", says="Where answers are recorded: sqlite:///FILE or postgresql://...")
]
Tags = Annotated[list[str] | None, _option("--tag", value="TAG", says="Only jobs with this tag; may be repeated.")]
WorkerMemory = Annotated[
    str | None, _option("--memory", value="SIZE", says="What a worker may use; default: its share of what is free.")
]
FailOn = Annotated[
    str | None,
    _option("--fail-on", value="WHAT", says="What fails the gate, of refuted,unknown,timeout,regression or none."),
]
Baseline = Annotated[
    Path | None, _option("--baseline", value="FILE", says="An earlier run's JSON report, to be no worse than.")
]
RegressionTolerance = Annotated[
    str | None, _option("--tolerance", value="T", says="How much worse than the baseline is none; default: 0.01.")
]
Reports = Annotated[
    list[str] | None,
    _option("--report", value="FORMAT=FILE", says="Also write a report: html, md, json, text, junit or sarif."),
]
Folder = Annotated[Path, _argument("FOLDER", "Where the networks are.")]
Force = Annotated[bool, _option("--force", says="Replace a suite that is there.")]
HistoryJob = Annotated[str | None, _option("--job", value="NAME", says="Only the job of this name.")]
HistoryLimit = Annotated[int, _option("--limit", value="N", says="Only the newest N answers.", least=1)]

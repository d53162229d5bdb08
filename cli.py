"""The command line, and the only module that prints. Heavy imports happen inside the commands, after ``--help``."""

from __future__ import annotations

import contextlib
import functools
import inspect as inspection
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from leaktight import arguments, commands, provenance
from leaktight.answer import BAD_INPUT, CRASHED, INTERRUPTED, Answer
from leaktight.arguments import Format, ReportFormat
from leaktight.errors import InputError
from leaktight.rendered import rendered
from leaktight.verify.report import file
from leaktight.version import __version__

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

    Exit codes: 0 proved or done, 1 refuted, 2 bad input or usage, 3 unknown, 4 timeout, 70 internal error, 130
    interrupted.
    """


def command(
    body: Callable[..., Answer],
    formats: Any = arguments.AsFormat,
    usual: Format | None = Format.TEXT,
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
        inspection.Parameter("output", named, default=None, annotation=arguments.Output),
    )
    run_body.__signature__ = inspection.Signature((*own, *ways))  # type: ignore[attr-defined]
    run_body.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *ways)}
    return app.command()(run_body)


def _deliver(body: Callable[[], Answer], style: Format | ReportFormat | None, output: Path | None) -> int:
    if output is not None:
        file.check_writable("--output", output)
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library or the user's code prints, stdout is the result's
        answer = body()
    for line in answer.notes:
        print(line, file=sys.stderr)
    style = style or ReportFormat.of(output)
    text = rendered(answer.document, style, to_terminal=output is None and sys.stdout.isatty())
    if output is None:
        _print(text, spelt=style in (Format.TEXT, ReportFormat.TEXT))
    else:
        file.write_whole("--output", output, text)
    _say(answer.summary)
    return answer.code


def _print(text: str, *, spelt: bool) -> None:
    """Writes to stdout. What its encoding lacks is spelt out, or the document is in UTF-8, as those of programs are.

    Raises Undelivered: stdout does not take it.
    """
    encoding = sys.stdout.encoding or "utf-8"
    if not _has(encoding, text):
        if spelt:
            text = text.replace("\N{INFINITY}", "inf").encode(encoding, "backslashreplace").decode(encoding)
        else:
            cast("io.TextIOWrapper", sys.stdout).reconfigure(encoding="utf-8")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries, and fails, once more
        raise Undelivered(f"the result could not be written to stdout ({error.strerror})") from None


def _has(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _say(line: str) -> None:
    print(f"leaktight: {line}", file=sys.stderr)


def run(words: list[str]) -> int:
    """Runs the command line and returns its exit code; no failure looks like an answer.

    Answers: 0 proved or done, 1 refuted, 3 unknown, 4 timeout. Failures: 2 bad input or usage, 70 internal error, 130
    interrupted.
    """

    def call() -> int:
        provenance.ARGUMENTS.set(tuple(words))
        try:
            return int(typer.main.get_command(app).main(words, prog_name="leaktight", standalone_mode=False) or 0)
        except CommandLineError as error:
            _misused(error)
            return BAD_INPUT

    return _outcome(call)


def _misused(error: Any) -> None:
    """How the command is used, what is wrong with the command line, and of what is missing what it is."""
    if error.ctx is not None:
        print(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.\n", file=sys.stderr)
    said = error.format_message().replace("Value error, ", "").rstrip(".")
    missing = getattr(getattr(error, "param", None), "help", None) if said.startswith("Missing") else None
    _say(f"error: {said[:1].lower()}{said[1:]}" + (f": {missing}" if missing else ""))


def _outcome(work: Callable[[], int]) -> int:
    """`work`'s exit code, or that of what it raises."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")  # torch, of Intel's GPUs
            logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it says at length that it has no cache
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


# in the order in which --help lists them
command(commands.verify)
command(commands.certify)
command(commands.bounds)
command(commands.leak)
command(commands.lipschitz)
command(commands.run)
command(commands.init)
command(commands.history)
command(commands.report, formats=arguments.AsReport, usual=None)
command(commands.inspect)
command(commands.ops)
command(commands.doctor)
command(commands.demo)

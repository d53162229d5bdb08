"""A first suite for the networks, properties and data that lie in a folder, with comments that say what to change."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from leaktight.errors import InputError, UsageError
from leaktight.models.load import load
from leaktight.models.network import Network
from leaktight.specs.data import fit, read_data
from leaktight.specs.vnnlib import read_property
from leaktight.verify.certify import certify

NAME = "leaktight.toml"
SAMPLES = "leaktight-samples-{}.npz"
_NETWORKS = (".onnx", ".onnx.gz", ".pt2")
_PROPERTIES = (".vnnlib", ".vnnlib.gz")
_DATA = (".npz", ".csv", "images-idx3-ubyte", "images-idx3-ubyte.gz")
_SKIPPED = {"node_modules", "__pycache__", "build", "dist", "venv"}
_MOST = 200  # files of each kind that are looked at
_TRIED = 10  # inputs that are certified for a first threshold
_POINTS = 8
_EPSILON = 0.01


@dataclass(frozen=True)
class Found:
    """A network that can be read, under the name that the suite gives it."""

    name: str
    path: str
    network: Network


@dataclass(frozen=True)
class Made:
    """A suite's text, files of inputs that go with it (by name), what is in it, and what was left out and why."""

    text: str
    samples: dict[str, tuple[torch.Tensor, torch.Tensor]]
    networks: int
    jobs: int
    left_out: tuple[str, ...]


def make(folder: Path) -> Made:
    """The suite for what lies in `folder` and below it.

    A property or data belongs to every network that it fits. A network that nothing fits gets inputs of its own:
    random points of the unit cube, labelled with what the network says now.

    Raises UsageError: there is no network that can be read.
    """
    files = list(_files(folder))
    networks, left_out = _networks(folder, [path for path in files if path.name.endswith(_NETWORKS)][:_MOST])
    if not networks:
        why = f" ({'; '.join(left_out)})" if left_out else ""
        raise UsageError(f"{folder}: no network was found{why}; export one to ONNX, or name another folder")
    properties = [path for path in files if path.name.endswith(_PROPERTIES)][:_MOST]
    data = [path for path in files if path.name.endswith(_DATA)][:_MOST]
    blocks, samples = [_head(networks)], dict[str, tuple[torch.Tensor, torch.Tensor]]()
    for one in networks:
        own = [*_verifies(one, properties, folder), *_certifies(one, data, folder)]
        if not own:
            made = _sampled(one)
            if made is None:
                left_out.append(f"{one.path}: nothing fits it, and it is no classifier of one input")
                continue
            block, inputs = made
            samples[SAMPLES.format(one.name)] = inputs
            own = [block]
        blocks += own
    return Made("\n".join(blocks), samples, len(networks), len(blocks) - 1, tuple(left_out))


def _files(folder: Path) -> Iterator[Path]:
    """All files, in order of their names; hidden folders and those of tools are skipped."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        yield from (Path(root) / name for name in sorted(names) if not name.startswith("leaktight-samples"))


def _networks(folder: Path, paths: Sequence[Path]) -> tuple[list[Found], list[str]]:
    found: list[Found] = []
    left_out: list[str] = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            found.append(Found(_named(name, [one.name for one in found]), name, load(path)))
        except InputError as error:
            left_out.append(str(error))
    return found, left_out


def _named(path: str, taken: Sequence[str]) -> str:
    """A short name that needs no quotes and is not taken."""
    stem = path.rpartition("/")[2].partition(".")[0]
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in stem)
    plain = plain.strip("-") or "network"
    return next(
        name for number in range(len(taken) + 1) if (name := f"{plain}-{number + 1}" if number else plain) not in taken
    )


def _head(networks: Sequence[Found]) -> str:
    lines = [
        "# What leaktight proves of the networks here: 'leaktight run' with this file's name runs all of it.",
        "# Every list is a matrix: epsilon = [0.01, 0.03] makes two jobs. All keys: docs/run.md of leaktight.",
        "",
        "[defaults]",
        "timeout = 60            # seconds, for each property or input",
        "",
        "[gate]",
        'fail_on = ["refuted", "regression"]   # also: "unknown", "timeout"',
        "tolerance = 0.01        # how much worse than a --baseline is none",
        "",
        "[networks]",
        *(f"{one.name} = {_quoted(one.path)}" for one in networks),
        '# a network that wants normalised inputs: other = { path = "other.onnx", mean = 0.1307, std = 0.3081 }',
        "",
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)  # a JSON string is a TOML string


def _verifies(one: Found, properties: Sequence[Path], folder: Path) -> Iterator[str]:
    fitting = [path.relative_to(folder).as_posix() for path in properties if _fits(one.network, path)]
    if fitting:
        names = ",\n".join(f"    {_quoted(name)}" for name in fitting)
        yield (
            f"[[verify]]\nnetwork = {_quoted(one.name)}\nproperty = [\n{names},\n]\n"
            '# require = "margin >= 0.1"   # how far from violated, at least\n'
        )


def _fits(network: Network, path: Path) -> bool:
    try:
        read_property(path).about(network)
    except InputError:
        return False
    return True


def _certifies(one: Found, data: Sequence[Path], folder: Path) -> Iterator[str]:
    for path in data:
        try:
            known = fit(read_data(path, limit=_TRIED), one.network)
        except InputError:
            continue
        unit = bool((known.inputs >= 0).all() and (known.inputs <= 1).all())
        yield _certify(one, path.relative_to(folder).as_posix(), known.inputs, known.labels, "", unit)


def _sampled(one: Found) -> tuple[str, tuple[torch.Tensor, torch.Tensor]] | None:
    """A job about random points, and the points; None where the network does not take one input, or gives no scores."""
    network = one.network
    if len(network.inputs) != 1 or network.output_size < 2:
        return None
    points = torch.rand(_POINTS, network.input_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = network.flat(points.to(network.dtype)).argmax(1)
    note = (
        "# No data was found: these are random points of the unit cube, labelled with what the network says now.\n"
        "# They notice when the network changes. Put labelled inputs of your own in their place.\n"
    )
    return _certify(one, SAMPLES.format(one.name), points, labels, note, True), (points, labels)


def _certify(one: Found, data: str, inputs: torch.Tensor, labels: torch.Tensor, note: str, unit: bool) -> str:
    """A job whose thresholds are what is proved today, of the inputs that it names."""
    clip = (0.0, 1.0) if unit else None
    found = certify(one.network, inputs, labels, _EPSILON, clip=clip, timeout=20.0).accuracy
    lines = [
        f"{note}[[certify]]",
        f"network = {_quoted(one.name)}",
        f"data = {_quoted(data)}",
        f"limit = {len(inputs)}               # only so many inputs; more take longer",
        f"epsilon = {_EPSILON}          # how far an input may move; also '8/255'",
        'norm = "inf"            # or 2, or 1',
        "clip = [0, 1]           # the range that values keep to" if unit else "# clip = [0, 1]",
        "require = [             # what is proved today",
        f'    "clean_accuracy >= {_below(found["clean"])}",',
        f'    "certified_accuracy >= {_below(found["certified"])}",',
        "]",
        "",
    ]
    return "\n".join(lines)


def _below(share: float) -> float:
    """The share in three digits, never more than it is."""
    return int(share * 1000) / 1000

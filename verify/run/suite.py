"""Suites: TOML files that say which questions to ask of which networks, and what the answers must be."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from leaktight.errors import UsageError
from leaktight.verify.run import schema
from leaktight.verify.run.expand import expand
from leaktight.verify.run.job import Job
from leaktight.verify.run.lines import line_of, lines
from leaktight.verify.run.schema import Problem, Problems, checked

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SIZE = 16 << 20
"""The largest suite that is read, in bytes."""
_SECTIONS = ("defaults", "gate", "networks", *schema.KINDS)


@dataclass(frozen=True)
class Suite:
    """All jobs of a suite, and when a run of them fails (`fail_on` None: the suite does not say)."""

    path: str
    sha256: str
    jobs: tuple[Job, ...]
    fail_on: tuple[str, ...] | None = None
    tolerance: float = 0.01


def read_toml(path: Path) -> Suite:
    """The suite in a TOML file.

    Raises UsageError: it cannot be read, or says what is not allowed; the message names file, line and key of every
    mistake, and all files that are missing.
    """
    raw, text = content(path)
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: this is no TOML: {error}; correct it there") from None
    except RecursionError:
        raise UsageError(f"{path}: it is nested too deeply; write it flat") from None
    places = lines(text)
    reader = _Reader(path, given)
    jobs = reader.jobs(places)
    if reader.problems:
        found = sorted(reader.problems, key=lambda problem: line_of(places, problem.path))
        raise UsageError("\n".join(_told(path, places, _written(given, one.path), one) for one in found))
    return Suite(str(path), raw, tuple(jobs), reader.fail_on, reader.tolerance)


def content(path: Path) -> tuple[str, str]:
    """The SHA-256 and the text of a suite.

    Raises UsageError: it cannot be read, is too large, or no UTF-8.
    """
    import hashlib

    try:
        with path.open("rb") as file:
            raw = file.read(SIZE + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: it cannot be read ({error.strerror}); give a TOML suite ('leaktight init' writes one) or an"
            " instances.csv"
        ) from None
    if len(raw) > SIZE:
        raise UsageError(f"{path}: it is larger than {SIZE >> 20} MiB; split it")
    try:
        return hashlib.sha256(raw).hexdigest(), raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: byte {error.start} is no UTF-8; save the file as UTF-8 text") from None


def _told(path: Path, places: dict[tuple[str | int, ...], int], keys: tuple[str | int, ...], problem: Problem) -> str:
    name = ".".join(f"[{key + 1}]" if isinstance(key, int) else key for key in keys).replace(".[", "[")
    near = get_close_matches(problem.word or "", problem.near, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; allowed: {', '.join(problem.near)}" if problem.near else ""
    return f"{path}:{line_of(places, problem.path)}: {name or 'the suite'}: {problem.says}{hint}"


def _written(given: Mapping[str, Any], path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The path, without a last place in a list where the suite has one value and no list."""
    value: Any = given
    for key in path[:-1]:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return path
    return path if isinstance(value, list) or not path or isinstance(path[-1], str) else path[:-1]


class _Reader:
    """Reads one suite and collects everything that is wrong with it."""

    def __init__(self, path: Path, given: Mapping[str, Any]) -> None:
        self.folder, self.path, self.given = path.parent, path, given
        self.problems: list[Problem] = []
        self.fail_on: tuple[str, ...] | None = None
        self.tolerance = 0.01

    def jobs(self, places: dict[tuple[str | int, ...], int]) -> list[Job]:
        for section in self.given:
            if section not in _SECTIONS:
                self.problems.append(Problem((section,), "there is no such table", _SECTIONS))
        self._gate()
        networks, defaults = dict(self._networks()), self._defaults()
        found: list[Job] = []
        for kind, place, ask in self._asks(defaults):
            where = (kind, place)
            try:
                found += expand(kind, ask, networks, self.path, line_of(places, where), where)
            except Problems as error:
                self.problems += error.found
        if not found and not self.problems:
            self.problems.append(
                Problem((), f"there is no job; add one of {', '.join(f'[[{k}]]' for k in schema.KINDS)}")
            )
        return self._named(found)

    def _table(self, name: str) -> Mapping[str, Any]:
        value = self.given.get(name, {})
        if isinstance(value, Mapping):
            return value
        self.problems.append(Problem((name,), f"it is a table, written [{name}]"))
        return {}

    def _checked(self, model: type[schema.T], value: Any, path: tuple[str | int, ...]) -> schema.T | None:
        try:
            return checked(model, value, path)
        except Problems as error:
            self.problems += error.found
            return None

    def _gate(self) -> None:
        gate = self._checked(schema.Gate, self._table("gate"), ("gate",))
        if gate is not None:
            self.fail_on = None if gate.fail_on is None else tuple(gate.fail_on)
            self.tolerance = gate.tolerance

    def _networks(self) -> Iterator[tuple[str, schema.Network]]:
        for name, value in self._table("networks").items():
            given = {"path": value} if isinstance(value, str) else value
            network = self._checked(schema.Network, given, ("networks", name))
            if network is None:
                continue
            network.path = str(self.folder / network.path)
            if not Path(network.path).is_file():
                self.problems.append(Problem(("networks", name), f"there is no file {network.path}"))
            yield name, network

    def _defaults(self) -> Mapping[str, Any]:
        """Raises nothing: keys that no kind of job has are noted; values are checked with each job."""
        known = tuple(
            dict.fromkeys(key for kind in schema.KINDS.values() for key in kind.model_fields if key != "name")
        )
        given = self._table("defaults")
        for key in given:
            if key not in known:
                self.problems.append(Problem(("defaults", key), "there is no such key", known))
        return given

    def _asks(self, defaults: Mapping[str, Any]) -> Iterator[tuple[str, int, schema.Ask]]:
        for kind, model in schema.KINDS.items():
            tables = self.given.get(kind, [])
            if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
                self.problems.append(Problem((kind,), f"jobs are written [[{kind}]], with two brackets"))
                continue
            for place, table in enumerate(tables):
                inherited = {key: value for key, value in defaults.items() if key in model.model_fields}
                ask = self._one(model, {**inherited, **table}, kind, place, set(inherited) - set(table))
                if ask is not None:
                    yield kind, place, ask

    def _one(
        self, model: type[schema.Ask], value: Mapping[str, Any], kind: str, place: int, inherited: set[str]
    ) -> schema.Ask | None:
        before = len(self.problems)
        ask = self._checked(model, value, (kind, place))
        known = {key: item for key, item in value.items() if key in model.model_fields}
        if ask is None and len(known) == len(value) - (len(self.problems) - before):
            ask = model.model_validate(known)  # all else is right: go on, to find what else is wrong
        for problem in self.problems[before:]:  # a wrong default is wrong where it stands, and once
            if len(problem.path) > 2 and problem.path[2] in inherited:
                problem.path = ("defaults", *problem.path[2:])
        seen = {(one.path, one.says) for one in self.problems[:before]}
        self.problems[before:] = [one for one in self.problems[before:] if (one.path, one.says) not in seen]
        return ask

    def _named(self, jobs: list[Job]) -> list[Job]:
        """Raises nothing: notes names that are given twice, by which results could not be told apart."""
        first: dict[str, Job] = {}
        for job in jobs:
            if job.name in first:
                says = f"two jobs are called {job.name!r} (lines {first[job.name].place.line} and {job.place.line})"
                self.problems.append(Problem((job.kind,), f"{says}; give each its own 'name'"))
            first.setdefault(job.name, job)
        return jobs

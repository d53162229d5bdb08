"""From one table of a suite to its jobs: one for each network, file and value that its lists name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from leaktight.errors import DataError
from leaktight.verify.run import requirement
from leaktight.verify.run.job import Job, Place
from leaktight.verify.run.schema import Ask, Network, Problem, Problems

# Keys whose lists make a job for each value, in the order in which names and jobs have them.
_AXES = ("network", "property", "data", "epsilon", "norm", "slopes", "engine", "method", "seed")
_FILES = ("property", "data", "labels")
# Keys that are no part of the question to be answered.
_BESIDE = ("network", "name", "tags", "require", "resources", *_FILES)
_DIVIDING = ("auto", "branch", "milp")
_GLOB = "*?["


def expand(
    kind: str, ask: Ask, networks: Mapping[str, Network], suite: Path, line: int, where: tuple[str | int, ...]
) -> list[Job]:
    """The jobs of one table.

    Raises Problems: networks that are not named, files that are missing, requirements that make no sense.
    """
    problems: list[Problem] = []
    given = ask.model_dump()
    _together(kind, given, where, problems)
    given["network"] = list(_chosen(given["network"], networks, where, problems))
    for role in ("property", "data"):
        if given.get(role) is not None:
            given[role] = list(_files(given[role], suite.parent, (*where, role), problems))
    requires = list(_requirements(given["require"], kind, where, problems))
    labels = given.get("labels")
    if labels is not None and not (suite.parent / labels).is_file():
        problems.append(Problem((*where, "labels"), f"there is no file {suite.parent / labels}"))
    if problems:
        raise Problems(problems)
    axes = [axis for axis in _AXES if isinstance(given.get(axis), list)]
    several = [axis for axis in axes if len(given[axis]) > 1]
    jobs = []
    for values in product(*(given[axis] for axis in axes)):
        chosen = {**given, **dict(zip(axes, values, strict=True))}
        jobs.append(_job(kind, chosen, several, networks, requires, suite, line, problems, where))
    if problems:
        raise Problems(problems)
    return jobs


def _job(
    kind: str,
    chosen: Mapping[str, Any],
    several: Sequence[str],
    networks: Mapping[str, Network],
    requires: Sequence[requirement.Requirement],
    suite: Path,
    line: int,
    problems: list[Problem],
    where: tuple[str | int, ...],
) -> Job:
    files = {role: str(suite.parent / chosen[role]) for role in _FILES if chosen.get(role) is not None}
    try:
        files |= labels_of(files)
    except DataError as error:
        problems.append(Problem((*where, "data"), str(error)))
    return Job(
        name=_name(kind, chosen, several),
        kind=kind,
        network=networks[chosen["network"]].model_dump(),
        question={key: _plain(value) for key, value in chosen.items() if key not in _BESIDE and value is not None},
        files=files,
        place=Place(str(suite), line),
        requires=tuple(requires),
        resources=chosen["resources"],
        tags=tuple(chosen["tags"]),
    )


def labels_of(files: Mapping[str, str]) -> dict[str, str]:
    """The file of labels that lies beside an idx file and is read with it; nothing for other data.

    Raises DataError: the data cannot be read, or has no labels beside it.
    """
    from leaktight.specs.arrays import is_idx, labels_beside, opened

    if "data" not in files or "labels" in files:
        return {}
    place = Path(files["data"])
    with opened(place) as file:
        start = file.peek(4)[:4]
    return {"labels": str(labels_beside(place))} if is_idx(start) else {}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _name(kind: str, chosen: Mapping[str, Any], several: Sequence[str]) -> str:
    """A name that stays the same as long as the suite says the same."""
    own = chosen["name"]
    told = [] if own else [axis for axis in ("network", "property", "data", "epsilon") if chosen.get(axis) is not None]
    parts = [own or kind, *(_said(axis, chosen[axis]) for axis in _AXES if axis in told or axis in several)]
    return " ".join(parts)


def _said(axis: str, value: Any) -> str:
    if axis in ("network", "property", "data"):
        return str(value)
    if isinstance(value, tuple):
        return f"{axis}={':'.join(f'{end:.6g}' for end in value)}"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{axis}={text}"


def _together(kind: str, given: Mapping[str, Any], where: tuple[str | int, ...], problems: list[Problem]) -> None:
    """Keys that only make sense together."""
    if kind == "verify" and given["split"] is not None and not set(given["engine"]) <= set(_DIVIDING):
        says = f"only the engines {', '.join(_DIVIDING)} split a property into parts"
        problems.append(Problem((*where, "split"), says))
    if kind != "leak":
        return
    if (given["property"] is None) == (given["data"] is None):
        problems.append(Problem(where, "give either 'property', or 'data' with 'epsilon'"))
    elif (given["data"] is None) != (given["epsilon"] is None):
        problems.append(Problem(where, "'data' and 'epsilon' belong together; one of them is missing"))


def _chosen(
    names: Sequence[str], networks: Mapping[str, Network], where: tuple[str | int, ...], problems: list[Problem]
) -> Iterator[str]:
    for name in names:
        if name == "*":
            yield from networks
        elif name in networks:
            yield name
        else:
            near = get_close_matches(name, networks, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"[networks] has: {', '.join(networks) or 'none'}"
            problems.append(Problem((*where, "network"), f"no network is called {name!r}; {hint}"))


def _files(names: Sequence[str], folder: Path, where: tuple[str | int, ...], problems: list[Problem]) -> Iterator[str]:
    """The files, as the suite names them; of a pattern all that match, in order of their names."""
    for name in names:
        if (folder / name).is_file():
            yield name
            continue
        pattern = any(letter in name for letter in _GLOB) and not Path(name).is_absolute()
        found = sorted(path for path in folder.glob(name) if path.is_file()) if pattern else []
        yield from (path.relative_to(folder).as_posix() for path in found)
        if not found:
            what = "no file matches" if pattern else "there is no file"
            problems.append(Problem(where, f"{what} {folder / name}"))


def _requirements(
    texts: Sequence[str], kind: str, where: tuple[str | int, ...], problems: list[Problem]
) -> Iterator[requirement.Requirement]:
    for place, text in enumerate(texts):
        try:
            yield requirement.parse(text, kind)
        except ValueError as error:
            problems.append(Problem((*where, "require", place), str(error)))

"""The schema of suites, as pydantic knows it: what every table may hold."""

from __future__ import annotations

import re
from fractions import Fraction
from math import isfinite
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

Engine = Literal["auto", "interval", "crown", "alpha-crown", "branch", "milp", "auto-lirpa"]
FailOn = Literal["refuted", "unknown", "timeout", "regression"]
T = TypeVar("T")
_QUOTED = re.compile(r"'([^']*)'")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTkmgt])(?:i?[Bb])?")


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _number(value: Any) -> float:
    """A finite number, also as text: ``8/255``."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        found = float(Fraction(value.replace(" ", ""))) if isinstance(value, str) else float(value)
    except (ValueError, ZeroDivisionError, OverflowError):
        found = float("nan")
    if not isfinite(found):
        raise ValueError(f"{value!r} is not a finite number; write it like 0.03 or '8/255'")
    return found


def _norm(value: Any) -> str:
    text = {float("inf"): "inf", 1: "1", 2: "2"}.get(value, value) if not isinstance(value, bool) else value
    if text not in ("inf", "2", "1"):
        raise ValueError(f"{value!r} is no norm; allowed: 'inf', 2 or 1")
    return str(text)


def _span(value: Any) -> tuple[float, float]:
    """A range, as text ``0:0.3`` or as two numbers."""
    parts = value.split(":") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        raise ValueError(f"{value!r} is no range; write it like '0:0.3'")
    low, high = map(_number, parts)
    if low > high:
        raise ValueError(f"{value!r} is reversed; give the lower number first")
    return low, high


def _spans(value: Any) -> Any:
    """One range, or a list of them."""
    if isinstance(value, list) and len(value) == 2 and not any(isinstance(part, str | list) for part in value):
        return [value]
    return _listed(value)


def _amount(value: Any) -> float:
    """A positive number; of memory also as text: ``4GiB``."""
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is not None:
        return float(found[1]) * float(1024 ** "KMGT".index(found[2].upper()) * 1024)
    amount = _number(value)
    if amount <= 0:
        raise ValueError(f"{value!r} is not positive; write how much a worker needs")
    return amount


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
NotNegative = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Norm = Annotated[str, BeforeValidator(_norm)]
Span = Annotated[tuple[float, float], BeforeValidator(_span)]
Many = Annotated[list[T], BeforeValidator(_listed), Field(min_length=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Network(_Table):
    """How a network is read."""

    path: str
    mean: Annotated[list[Number], BeforeValidator(_listed)] | None = None
    std: Annotated[list[Number], BeforeValidator(_listed)] | None = None
    architecture: str | None = None
    trust: bool = False


class Ask(_Table):
    """What every kind of job has. Lists are matrices: one job for each of their values."""

    network: Many[str]
    name: str | None = None
    tags: Annotated[list[str], BeforeValidator(_listed)] = []
    require: Annotated[list[str], BeforeValidator(_listed)] = []
    timeout: Positive = 60.0
    seed: Many[Annotated[int, Field(ge=0)]] = [0]
    resources: dict[str, Annotated[float, BeforeValidator(_amount)]] = {}


class _Data(_Table):
    labels: str | None = None
    channels_last: bool = False
    norm: Many[Norm] = ["inf"]
    clip: Span | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    radius: bool = False


class Verify(Ask):
    """Properties that must hold."""

    property: Many[str]
    engine: Many[Engine] = ["auto"]
    dtype: Literal["float64", "float32"] = "float64"
    split: Annotated[int, Field(ge=2, le=4096)] | None = None


class Certify(_Data, Ask):
    """Labelled inputs that must keep their label."""

    data: Many[str]
    epsilon: Many[NotNegative]
    engine: Many[Engine] = ["auto"]
    dtype: Literal["float64", "float32"] = "float64"


class Leak(_Data, Ask):
    """How certificates move with the slope of the leak."""

    slopes: Annotated[list[Span], BeforeValidator(_spans), Field(min_length=1)]
    property: Many[str] | None = None
    data: Many[str] | None = None
    epsilon: Many[NotNegative] | None = None
    tolerance: Positive = 0.05
    nodes: Annotated[list[str], BeforeValidator(_listed)] | None = None
    leak: Literal["shared", "independent"] = "shared"
    engine: Many[Literal["auto", "crown", "alpha-crown"]] = ["auto"]


class Lipschitz(Ask):
    """Constants that must be small."""

    norm: Many[Norm] = ["2"]
    method: Many[Literal["auto", "product", "liplt", "fast", "lipsdp", "fourier", "jacobian"]] = ["auto"]


KINDS: dict[str, type[Ask]] = {"verify": Verify, "certify": Certify, "leak": Leak, "lipschitz": Lipschitz}


class Gate(_Table):
    """When a run fails."""

    fail_on: Annotated[list[FailOn], BeforeValidator(_listed)] | None = None
    tolerance: NotNegative = 0.01


class Problem(Exception):
    """Something in a suite is wrong. path: the keys that lead to it. near: what may be written there instead of `word`,
    by default the last of the keys."""

    def __init__(
        self, path: tuple[str | int, ...], says: str, near: tuple[str, ...] = (), word: str | None = None
    ) -> None:
        super().__init__(says)
        self.path, self.says, self.near = path, says, near
        self.word = word if word is not None or not path else str(path[-1])


def checked(model: type[T], value: Any, path: tuple[str | int, ...]) -> T:
    """`value` as `model`, one of the tables of this schema.

    Raises Problems: all that is wrong with it, each with its path.
    """
    try:
        found: T = model.model_validate(value)  # type: ignore[attr-defined]
        return found
    except ValidationError as error:
        allowed = tuple(model.model_fields)  # type: ignore[attr-defined]
        raise Problems([_problem(dict(one), path, allowed) for one in error.errors()]) from None


class Problems(Exception):
    """Several problems at once."""

    def __init__(self, found: list[Problem]) -> None:
        super().__init__("; ".join(one.says for one in found))
        self.found = found


def _problem(error: dict[str, Any], path: tuple[str | int, ...], allowed: tuple[str, ...]) -> Problem:
    place = (*path, *(part for part in error["loc"] if isinstance(part, int) or part in allowed or part == "path"))
    if error["type"] == "extra_forbidden":
        return Problem((*path, *error["loc"]), "there is no such key", allowed)
    if error["type"] == "missing":
        return Problem((*path, *error["loc"]), "it is missing; add it")
    if error["type"] == "value_error":
        return Problem(place, str(error["ctx"]["error"]))
    if error["type"] == "literal_error":
        word = str(error["input"])[:60]
        return Problem(place, f"{word!r} is not known", tuple(_QUOTED.findall(error["ctx"]["expected"])), word)
    came = repr(error["input"])
    came = came if len(came) <= 60 else came[:60] + "..."
    return Problem(place, f"{error['msg'][:1].lower()}{error['msg'][1:]}; got {came}")

"""From a task to its document: what a worker computes. Runs in worker processes only; it imports all engines."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from leaktight.errors import UsageError
from leaktight.models.load import load
from leaktight.models.network import Network
from leaktight.specs.data import LabelledData, fit, read_data
from leaktight.specs.vnnlib import read_property
from leaktight.verify.run.job import digest_of

Task = Mapping[str, Any]
_KEPT = 4
_networks: OrderedDict[str, tuple[Network, str]] = OrderedDict()


def identity(network: Network) -> str:
    """The digest of everything about a network that an answer can depend on, wherever its file lies.

    Its meaning (`Network.digest`), and how properties and questions name its parts: the names, shapes and types of its
    inputs and outputs, whether its first axis is the batch, and its nodes' own names.
    """
    names = [[(port.name, port.shape, port.dtype) for port in ports] for ports in (network.inputs, network.outputs)]
    parts = (network.digest, names, network.batched, [node.origin for node in network])
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def known(asked: Mapping[str, Any]) -> tuple[Network, str]:
    """The network that a task names, with its identity; the last few are kept."""
    name = repr(sorted(asked.items()))
    if name not in _networks:
        _networks[name] = _read(asked)
        while len(_networks) > _KEPT:
            _networks.popitem(last=False)
    _networks.move_to_end(name)
    return _networks[name]


def _read(asked: Mapping[str, Any]) -> tuple[Network, str]:
    network = load(asked["path"], architecture=asked.get("architecture"), trust=bool(asked.get("trust")))
    if asked.get("mean") is not None or asked.get("std") is not None:
        from leaktight.models.normalise import normalised

        network = normalised(network, asked.get("mean") or [0.0], asked.get("std") or [1.0])
    return network, identity(network)


def answer(task: Task, memory: int | None) -> tuple[dict[str, Any], str]:
    """The answer's document, and the identity of the network that it is about.

    Raises UsageError: a file of the question changed while it was worked on. Else what the commands of that kind raise.
    """
    before = {role: digest_of(path) for role, path in task["files"].items()}
    network, name = known(task["network"])
    asked = {**task["question"], "part": task["part"]} if "part" in task else task["question"]
    document = _KINDS[task["kind"]](network, asked, task["files"], memory)
    for role, path in task["files"].items():
        if digest_of(path) != before[role] or before[role] != task["digests"][role]:
            raise UsageError(f"{path}: it changed while the run was going on; run again")
    return document, name


def seconds(task: Task) -> float:
    """The longest that the answer may take by the question's own time limit."""
    limit = float(task["question"]["timeout"])
    if task["kind"] != "certify":
        return limit
    found = read_data(task["files"]["data"], labels=task["files"].get("labels"), limit=task["question"].get("limit"))
    return limit * max(1, len(found))


def _verify(network: Network, asked: Task, files: Mapping[str, str], memory: int | None) -> dict[str, Any]:
    from leaktight.verify.prove import prove

    return prove(network, read_property(files["property"]), **_limits(asked, memory)).to_json()


def _divide(network: Network, asked: Task, files: Mapping[str, str], memory: int | None) -> dict[str, Any]:
    from leaktight.verify.divide import divide

    found = divide(network, read_property(files["property"]), asked["split"], **_limits(asked, memory))
    return {"begun": found.verdict.to_json(), "parts": list(found.parts)}


def _part(network: Network, asked: Task, files: Mapping[str, str], memory: int | None) -> dict[str, Any]:
    from leaktight.verify.parts import prove_part

    return prove_part(network, read_property(files["property"]), asked["part"], **_limits(asked, memory)).to_json()


def _limits(asked: Task, memory: int | None) -> dict[str, Any]:
    return {
        "engine": asked["engine"],
        "timeout": asked["timeout"],
        "seed": asked["seed"],
        "dtype": getattr(torch, asked["dtype"]),
        "memory": memory,
    }


def _certify(network: Network, asked: Task, files: Mapping[str, str], memory: int | None) -> dict[str, Any]:
    from leaktight.verify.certify import certify

    data = _data(network, asked, files)
    found = certify(
        network,
        data.inputs,
        data.labels,
        asked["epsilon"],
        norm=asked["norm"],
        clip=_pair(asked.get("clip")),
        engine=asked["engine"],
        radius=asked["radius"],
        timeout=asked["timeout"],
        seed=asked["seed"],
        dtype=getattr(torch, asked["dtype"]),
        memory=memory,
    )
    return replace(found, data={"path": data.path, "sha256": data.sha256}).to_json()


def _leak(network: Network, asked: Task, files: Mapping[str, str], memory: int | None) -> dict[str, Any]:
    from leaktight.verify.leak.leak import leak, leak_of_data

    slopes = _pair(asked["slopes"]) or (0.0, 0.0)
    ways: dict[str, Any] = {
        "tolerance": asked["tolerance"],
        "nodes": asked.get("nodes"),
        "meaning": asked["leak"],
        "engine": asked["engine"],
        "timeout": asked["timeout"],
        "seed": asked["seed"],
        "memory": memory,
    }
    if "property" in files:
        return leak(network, read_property(files["property"]), slopes, **ways).to_json()
    data = _data(network, asked, files)
    balls: dict[str, Any] = {"norm": asked["norm"], "clip": _pair(asked.get("clip")), "radius": asked["radius"]}
    found = leak_of_data(network, data.inputs, data.labels, asked["epsilon"], slopes, **balls, **ways)
    return found.about({"data": {"path": data.path, "sha256": data.sha256}}).to_json()


def _lipschitz(network: Network, asked: Task, _files: Mapping[str, str], _memory: int | None) -> dict[str, Any]:
    from leaktight.verify.lipschitz.lipschitz import lipschitz

    ways = {"norm": asked["norm"], "method": asked["method"]}
    return lipschitz(network, timeout=asked["timeout"], seed=asked["seed"], **ways).to_json()


_KINDS = {
    "verify": _verify,
    "certify": _certify,
    "leak": _leak,
    "lipschitz": _lipschitz,
    "divide": _divide,
    "part": _part,
}


def _data(network: Network, asked: Task, files: Mapping[str, str]) -> LabelledData:
    found = read_data(Path(files["data"]), labels=files.get("labels"), limit=asked.get("limit"))
    return fit(found, network, channels_last=asked["channels_last"])


def _pair(value: Any) -> tuple[float, float] | None:
    return None if value is None else (float(value[0]), float(value[1]))

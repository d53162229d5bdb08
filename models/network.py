"""Network: the one representation of a neural network that everything else works on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from leaktight.errors import ModelError
from leaktight.models.ops import Input, Op, Shape
from leaktight.models.placed import PROCESSOR, Movable, placed


@dataclass(frozen=True, eq=False)
class Node:
    """One operator applied to named values. Its own name is the name of the value that it produces.

    `shape` is the value's shape without the batch axis that leaktight adds in front. `origin` is the name that the
    user's file knows the operator by (the ONNX node's name, or its first output's where it has none).
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: Shape
    origin: str = ""

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Port:
    """An input or output as the user's file declares it, for talking to the user and to a runtime.

    `shape` has every free dimension set to one. `dtype` is a numpy name such as ``float32``.
    """

    name: str
    shape: Shape
    dtype: str = "float32"

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Source:
    """Where a network came from, and the ONNX model that a counterexample is replayed in."""

    path: str
    sha256: str
    onnx: bytes | None = field(default=None, repr=False)
    folder: str | None = None  # where external data lies, for a runtime that has to find it


_NO_FILE = {"path": None, "sha256": None}


@dataclass(frozen=True, eq=False)
class Network(Movable):
    """A directed acyclic graph of operators, in topological order; never changed after it is made.

    Called with one tensor per input, each ``(batch, *shape)`` (or anything that reshapes to it), it returns the output
    ``(batch, *shape)``, or a tuple of them where there are several. When the first axis of every input and output is
    the file's own batch axis (`batched`), that axis and the one added here are the same in what users see.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batched: bool = True
    source: Source | None = None

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for node in self.nodes:
            if node.name in seen:
                raise ModelError(f"node {node.name!r} is defined twice")
            for name in node.inputs:
                if name not in seen:
                    raise ModelError(f"node {node.name!r} uses {name!r}, which no earlier node defines")
            seen.add(node.name)
        for port in (*self.inputs, *self.outputs):
            if port.name not in seen:
                raise ModelError(f"{port.name!r} is declared as an input or output, but no node defines it")

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                found[name].append(node.name)
        return {name: tuple(users) for name, users in found.items()}

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def file(self) -> dict[str, str | None]:
        """The file that it is from, as results name it."""
        return {"path": self.source.path, "sha256": self.source.sha256} if self.source else dict(_NO_FILE)

    @property
    def input_size(self) -> int:
        """The number of input entries, all inputs together: regions live in this many dimensions."""
        return sum(port.size for port in self.inputs)

    @property
    def output_size(self) -> int:
        """The number of output entries, all outputs together: properties speak of this many numbers."""
        return sum(port.size for port in self.outputs)

    def visible(self, shape: Shape) -> Shape:
        """The shape that users see after ``batch``: without the file's own batch axis."""
        return shape[1:] if self.batched else shape

    def values(self, *inputs: Tensor, last: str | None = None) -> dict[str, Tensor]:
        """Every node's value ``(batch, *node.shape)``, as far as the node named `last`, where one is named."""
        if len(inputs) != len(self.inputs):
            raise ValueError(f"the network has {len(self.inputs)} inputs, and {len(inputs)} were given")
        shapes = [self.by_name[port.name].shape for port in self.inputs]
        given = {port.name: x.reshape(-1, *s) for port, x, s in zip(self.inputs, inputs, shapes, strict=True)}
        batch = len(next(iter(given.values())))
        known: dict[str, Tensor] = {}
        for node in self.nodes:
            if isinstance(node.op, Input):
                known[node.name] = given[node.name]
            else:
                known[node.name] = node.op(*(known[name] for name in node.inputs)).expand(batch, *node.shape)
            if node.name == last:
                break
        return known

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        known = self.values(*inputs)
        found = tuple(known[p.name].reshape(-1, *self.visible(p.shape)) for p in self.outputs)
        return found[0] if len(found) == 1 else found

    def parted(self, x: Tensor, ports: Sequence[Port]) -> Iterator[tuple[str, Tensor]]:
        """Entries ``(..., n)`` of all these ports together as values of their nodes, ``(..., *shape)``, by name."""
        for port, part in zip(ports, x.split([port.size for port in ports], -1), strict=True):
            yield port.name, part.reshape(*part.shape[:-1], *self.by_name[port.name].shape)

    def flat(self, x: Tensor) -> Tensor:
        """All outputs ``(batch, output_size)`` of inputs given as ``(batch, input_size)``."""
        known = self.values(*x.split([port.size for port in self.inputs], -1))
        return torch.cat([known[port.name].reshape(-1, port.size) for port in self.outputs], 1)

    def to(self, dtype: torch.dtype) -> Network:
        """The network with parameters in `dtype`; each conversion's error is kept in its operator."""
        ops = [node.op.to(dtype) for node in self.nodes]
        if all(op is node.op for op, node in zip(ops, self.nodes, strict=True)):
            return self  # with all that it keeps
        return replace(self, nodes=tuple(replace(node, op=op) for op, node in zip(ops, self.nodes, strict=True)))

    def on(self, where: torch.device) -> Network:
        """The network with its parameters on a device: moved once, and kept."""
        found = self._places.get(where)
        if found is None:
            found = self._places[where] = replace(self, nodes=placed(self.nodes, where))
            found.__dict__["_places"] = self._places
        return found

    @cached_property
    def _places(self) -> dict[torch.device, Network]:
        """The same network on every device where it is wanted."""
        return {self.device: self}

    @cached_property
    def single(self) -> Network:
        """The network in float32, kept."""
        return self.to(torch.float32)

    @cached_property
    def dtype(self) -> torch.dtype:
        return next((x.dtype for x in self._tensors() if x.is_floating_point()), torch.float64)

    @cached_property
    def device(self) -> torch.device:
        """Where the parameters are; the processor, where there are none."""
        return next((x.device for x in self._tensors()), PROCESSOR)

    def _tensors(self) -> Iterator[Tensor]:
        for node in self.nodes:
            for f in fields(node.op):  # type: ignore[arg-type]
                value = getattr(node.op, f.name)
                if isinstance(value, Tensor):
                    yield value

    @cached_property
    def digest(self) -> str:
        """A SHA-256 of the meaning: operators, parameters and wiring; independent of names and file format."""
        place = {node.name: i for i, node in enumerate(self.nodes)}
        sha = hashlib.sha256()
        for node in self.nodes:
            sha.update(repr((type(node.op).__name__, [place[n] for n in node.inputs], node.shape)).encode())
            for f in fields(node.op):  # type: ignore[arg-type]
                if not f.compare:  # provenance
                    continue
                value = getattr(node.op, f.name)
                if isinstance(value, Tensor):
                    sha.update(repr((f.name, tuple(value.shape), str(value.dtype))).encode())
                    sha.update(value.detach().cpu().contiguous().numpy().tobytes())
                else:
                    sha.update(repr((f.name, value)).encode())
        sha.update(repr([place[port.name] for port in (*self.inputs, *self.outputs)]).encode())
        return sha.hexdigest()

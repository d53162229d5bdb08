"""Replay: what a file's own runtime computes for a concrete input, and when that is a counterexample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from leaktight.errors import Contradiction, ModelError
from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.verify.device import CPU
from leaktight.verify.search.exact import lies_in_unsafe_set
from leaktight.verify.search.membership import representable, settle
from leaktight.verify.verdict import Counterexample

if TYPE_CHECKING:
    import onnxruntime

Arrays = dict[str, np.ndarray[Any, Any]]


class Replay:
    """The network as its own file's runtime computes it: onnxruntime on the CPU, one thread, graph optimisations off.

    A network without a file (made in Python) is evaluated as it stands, in the dtype that its first input declares.
    Keep the object to replay several inputs: the runtime's session is opened once, at the first use.
    """

    def __init__(self, network: Network) -> None:
        self.network = CPU.of(network)

    def run(self, point: Tensor) -> Arrays:
        """The outputs by name, in the file's shapes and dtypes, for a point ``(n,)`` cast to the inputs' dtypes.

        Raises ModelError: onnxruntime refuses the file or fails on the input.
        """
        feed = self.inputs(point)
        if self._session is None:
            return self._evaluate(feed)
        names = [port.name for port in self.network.outputs]
        try:
            found = self._session.run(names, feed)
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise ModelError(
                f"{self._place}: onnxruntime fails on an input of this network ({_first_line(error)});"
                " check that the file runs in onnxruntime"
            ) from error
        return {name: np.asarray(value) for name, value in zip(names, found, strict=True)}

    def inputs(self, point: Tensor) -> Arrays:
        """A point ``(n,)``, wherever it is, as arrays by name, in the file's shapes and dtypes."""
        parts = torch.split(point.detach().cpu().double(), [port.size for port in self.network.inputs])
        return {
            port.name: part.numpy().astype(port.dtype).reshape(port.shape)
            for port, part in zip(self.network.inputs, parts, strict=True)
        }

    @property
    def _place(self) -> str:
        return self.network.source.path if self.network.source else "the network"

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession | None:
        source = self.network.source
        if source is None or source.onnx is None:
            return None
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if source.folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", source.folder)
        try:
            return onnxruntime.InferenceSession(source.onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise ModelError(
                f"{self._place}: onnxruntime, which replays every counterexample, cannot open the file"
                f" ({_first_line(error)}); export the network with operators that it supports"
            ) from error

    def _evaluate(self, feed: Mapping[str, np.ndarray[Any, Any]]) -> Arrays:
        values = [torch.from_numpy(array).unsqueeze(0) for array in feed.values()]
        dtype = values[0].dtype if values[0].is_floating_point() else torch.float64
        known = self.network.to(dtype).values(*(value.to(dtype) for value in values))
        return {
            port.name: known[port.name].detach().numpy().astype(port.dtype).reshape(port.shape)
            for port in self.network.outputs
        }


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def flatten(arrays: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """All entries in order, as float64 ``(n,)``."""
    return np.concatenate([value.astype(np.float64).reshape(-1) for value in arrays.values()])


def confirm(network: Network, case: Case, points: Tensor, replay: Replay | None = None) -> Counterexample | None:
    """The first of the candidates ``(k, n)`` that is a counterexample to the case, after it was moved into the region.

    Each candidate is moved strictly inside the (single) region in exact arithmetic, to numbers of the inputs' dtypes
    wherever the region holds one, and replayed. It counts when the replayed outputs lie in the unsafe set in exact
    arithmetic, strict conditions taken strictly. Where some coordinate has no number of its input's dtype in range,
    what ran is not quite what lies in the region: then the network's own float64 evaluation of the point must be
    unsafe as well. NaN and infinite outputs compare with nothing: such a candidate is no counterexample.

    Raises Contradiction: the replay of an unsafe candidate (or of the first one, safe or not) and the network's own
    evaluation differ by far more than rounding, so the network does not mean what the file says. ValueError: the case
    holds several regions.
    """
    if case.region.batch != 1:
        raise ValueError(f"confirm takes one region; got a batch of {case.region.batch} (see Region.select)")
    with CPU.at_work():
        runner = Replay(network) if replay is None else replay
        return _confirmed(*CPU.of((network, case, points)), runner)


def _confirmed(network: Network, case: Case, points: Tensor, runner: Replay) -> Counterexample | None:
    for i, point in enumerate(settle(network, case.region, points)):
        outputs = runner.run(point)
        values = flatten(outputs)
        unsafe = lies_in_unsafe_set(case.unsafe, values)
        if (unsafe or i == 0) and np.isfinite(values).all():
            _compare(network, point, values)
        if not unsafe:
            continue
        run = representable(network, point)
        if bool((run != point).any()) and not lies_in_unsafe_set(case.unsafe, _own(network, point)):
            continue
        margin = float(case.unsafe.margin(torch.from_numpy(values).unsqueeze(0))[0])
        return Counterexample(runner.inputs(point), outputs, point.numpy(), margin)
    return None


def confirming(network: Network, case: Case, replay: Replay) -> Callable[[int, Tensor], Counterexample | None]:
    """`confirm` for the regions of a case, by their numbers."""

    def confirmed(region: int, points: Tensor) -> Counterexample | None:
        part = slice(region, region + 1)
        return confirm(network, case.select(part), points, replay)

    return confirmed


def _own(network: Network, point: Tensor, dtype: torch.dtype = torch.float64) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        network = network if network.dtype == dtype else network.to(dtype)
        value: np.ndarray[Any, Any] = network.flat(point.to(dtype).unsqueeze(0))[0].double().numpy()
    return value


def _compare(network: Network, point: Tensor, replayed: np.ndarray[Any, Any]) -> None:
    """Raises Contradiction where the replay is further from the network's own float64 value than rounding explains."""
    run = representable(network, point)
    own = _own(network, run)
    off = float(np.abs(own - replayed).max())
    noise = float(np.abs(own - _own(network, run, torch.float32)).max())
    if not off <= 1e-3 * float(np.abs(replayed).max()) + 10 * noise + 1e-6:
        at = int(np.abs(own - replayed).argmax())
        raise Contradiction(
            f"output entry {at}: onnxruntime computes {replayed[at]!r} and leaktight {own[at]!r} for"
            " the same input; the network was not read as its file means it, so no verdict is given"
        )

"""What tests of runs share: a folder with a suite, workers without processes, and what of a run is compared."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import twins

from leaktight.demo import IMAGES, NETWORK, PROVED, REFUTED
from leaktight.verify.run import answer, worker
from leaktight.verify.run.pipeline import Wanted

Document = dict[str, Any]
SUITE = """\
[networks]
digits = "net.onnx"

[[certify]]
name = "seeds"
network = "digits"
data = "data.npz"
epsilon = 0.03
clip = [0, 1]
limit = 3
seed = [0, 1, 2, 3, 4, 5]
timeout = 30
require = "certified_accuracy >= 0.6"

[[verify]]
network = "digits"
property = ["proved.vnnlib", "refuted.vnnlib"]
timeout = 30
"""


def folder(path: Path, text: str = SUITE) -> Path:
    """A folder with the demo's files and a suite; the path of the suite."""
    path.mkdir(exist_ok=True)
    for source, name in (
        (NETWORK, "net.onnx"),
        (IMAGES, "data.npz"),
        (PROVED, "proved.vnnlib"),
        (REFUTED, "refuted.vnnlib"),
    ):
        (path / name).write_bytes(Path(source).read_bytes())
    (path / "suite.toml").write_text(text)
    return path / "suite.toml"


def wanted(suite: Path, **more: Any) -> Wanted:
    settings: dict[str, Any] = {"ledger": f"sqlite:///{suite.parent / 'ledger.sqlite'}", "workers": 1, **more}
    return Wanted(suite=suite, **settings)


def told(document: Document) -> list[tuple[str, str, object]]:
    """What every job answered, without what differs from run to run."""

    def numbers(found: Document) -> object:
        return [one["margin"] for one in found.get("inputs", [found])]

    return [
        (job["name"], job["status"], None if job["result"] is None else numbers(job["result"]))
        for job in document["jobs"]
    ]


class Inline:
    """Workers without processes, for tests of what is asked and not of how."""

    def __init__(self, size: int, memory: int | None) -> None:
        answer._networks.clear()  # a new worker has read nothing
        self.workers = self.idle = [object()]
        self.replies: list[tuple[Any, Document]] = []

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def grow(self, size: int) -> None:
        pass

    @property
    def busy(self) -> bool:
        return bool(self.replies)

    def cancel(self, token: Any) -> None:
        self.replies = [(given, reply) for given, reply in self.replies if given != token]

    def give(self, _worker: object, token: Any, task: Document) -> None:
        self.replies.append((token, worker._answered(task, answer, io.StringIO(), None)))

    def wait(self, _seconds: float) -> list[tuple[Any, Document]]:
        done, self.replies = self.replies, []
        return done


def hard(path: Path, text: str) -> Path:
    """A folder with a suite, a network of four inputs, and a property that takes about two hundred boxes to prove."""
    network = twins.onnx_twin(twins.random_weights([4, 24, 24, 2], 1), 0.1)
    (path / "net.onnx").write_bytes(network)
    inputs = "\n".join(f"(assert (>= X_{i} -1.0))\n(assert (<= X_{i} 1.0))" for i in range(4))
    names = [*(f"X_{i}" for i in range(4)), "Y_0", "Y_1"]
    declared = "\n".join(f"(declare-const {name} Real)" for name in names)
    (path / "hard.vnnlib").write_text(f"{declared}\n{inputs}\n(assert (<= (+ Y_0 (* -1.0 Y_1)) -0.32))\n")
    (path / "suite.toml").write_text(text)
    return path / "suite.toml"

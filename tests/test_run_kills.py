"""Sixty jobs, whose runner and workers are killed again and again: every one has one answer, the undisturbed one."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from runs import folder

ROOT = Path(__file__).resolve().parent.parent
SUITE = """\
[networks]
n = "net.onnx"
[[verify]]
network = "n"
property = ["proved.vnnlib", "refuted.vnnlib"]
seed = [{seeds}]
timeout = 60
"""


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/pipeline.py, which kills at random moments."""
    spec = importlib.util.spec_from_file_location("pipeline_benchmark", ROOT / "benchmarks" / "pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_four_kills_of_the_runner_and_ten_of_workers_lose_and_repeat_nothing(
    seed: int, benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    suite = folder(tmp_path, SUITE.format(seeds=", ".join(map(str, range(30)))))
    whole, broken = tmp_path / "whole.json", tmp_path / "broken.json"
    command = benchmark.run_command(suite, tmp_path / "whole.sqlite", whole)
    assert subprocess.run([sys.executable, *command], check=False, capture_output=True).returncode == 1
    random.seed(seed)
    kinds = 4 * ["runner"] + 10 * ["worker"]
    kills = [(random.randrange(1, 35), kind) for kind in kinds]
    runners, workers = benchmark.disturbed(suite, tmp_path / "broken.sqlite", broken, kills)
    assert runners == 4
    assert workers >= 5, "some kills find no worker, right after a runner has been killed"
    expected = benchmark.answers(whole)
    assert len(expected) == 60
    assert benchmark.answers(broken) == expected
    assert benchmark.answered(tmp_path / "broken.sqlite") == 60 * [1]

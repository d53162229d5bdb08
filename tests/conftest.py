"""What every test shares: one thread, repeatable examples, the folder of benchmarks where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

ROOT = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.register_profile("unshrunk", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session")
def bench() -> Path:
    """The folder of public benchmarks; tests that use it are skipped where it does not exist."""
    folder = ROOT.parent / "shared" / "bench"
    if not folder.is_dir():
        pytest.skip(f"no public benchmarks at {folder}")
    return folder

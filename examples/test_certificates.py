"""Certificates as tests of a model: run with ``pytest examples/test_certificates.py``."""

from pathlib import Path

import numpy as np
import pytest

from leaktight.pytest_plugin import certify

DATA = Path(__file__).resolve().parent.parent / "leaktight" / "data"
IMAGES = np.load(DATA / "digits.npz")


@pytest.mark.parametrize("index", range(3))
def test_digits_are_robust(index: int) -> None:
    x, label = IMAGES["x"][index], int(IMAGES["y"][index])
    certify(DATA / "digits.onnx", x, label, epsilon=0.02, clip=(0, 1))

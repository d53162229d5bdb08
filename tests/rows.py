"""Rows of tests of which a few stand for all in the default suite; the slow one runs every combination."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import product
from typing import Any

import pytest


def mostly_slow(*columns: Iterable[Any], quick: Collection[tuple[Any, ...]]) -> list[Any]:
    """Every combination of the columns' entries, slow where it is not one of `quick`, which must be among them."""
    every = list(product(*columns))
    assert set(quick) <= set(every)
    return [row if row in quick else pytest.param(*row, marks=pytest.mark.slow) for row in every]

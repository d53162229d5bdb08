"""``leaktight lipschitz``: its document, its page, and what it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leaktight import cli
from leaktight.verify.report.check import check
from leaktight.verify.report.render import render

DIGITS = "leaktight/data/digits.onnx"


def asked(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.run(["lipschitz", *map(str, arguments)])
    found = capfd.readouterr()
    return code, found.out, found.err


def test_the_document_is_what_the_interface_promises(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = asked(capfd, DIGITS, "--method", "fast", "--slopes", "0:0.5", "--format", "json")
    found: dict[str, Any] = json.loads(out)
    check(found, "the document")
    assert code == 0
    assert found["schema"] == "leaktight.lipschitz/1"
    assert (found["norm"], found["method"], found["scope"]) == ("2", "fast", "global")
    assert 0 < found["lower"] <= found["upper"] == found["bounds"]["fast"]
    assert [found["curve"][0]["slopes"][0], found["curve"][-1]["slopes"][1]] == [0, 0.5]
    assert found["lower"] <= found["pattern"] <= found["upper"]
    assert "at most" in err
    for style in ("html", "md", "text"):
        assert "Lipschitz constant is at most" in render(found, style)


def test_a_bound_below_what_is_attained_is_no_document(capfd: pytest.CaptureFixture[str]) -> None:
    from leaktight.errors import UsageError

    _, out, _ = asked(capfd, DIGITS, "--method", "product", "--format", "json")
    found = {**json.loads(out), "upper": 1.0}
    with pytest.raises(UsageError, match="above upper"):
        check(found, "the document")


@pytest.mark.parametrize("ending", ["npy", "txt"])
def test_a_local_constant_is_below_the_global_one(
    ending: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place, centre = tmp_path / f"centre.{ending}", np.linspace(0, 1, 64)
    if ending == "npy":
        np.save(place, centre.reshape(8, 8))
    else:
        place.write_text(", ".join(map(repr, centre.tolist())) + "\n")
    where = ("--method", "fast", "--norm", "2", "--format", "json")
    everywhere = json.loads(asked(capfd, DIGITS, *where)[1])
    inside = json.loads(asked(capfd, DIGITS, *where, "--center", place, "--radius", "1/100")[1])
    assert (inside["scope"], inside["radius"]) == ("local", 0.01)
    assert inside["center"] == {"sha256": hashlib.sha256(struct.pack("<64d", *centre)).hexdigest()}
    assert "center" not in everywhere
    assert inside["lower"] <= inside["upper"] < everywhere["upper"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--norm", "3"], "norm '3' is not known; allowed: inf, 2, 1"),
        (["--method", "network"], "allowed: auto, product, liplt"),
        (["--norm", "1", "--method", "fast"], "those that do: auto, product, liplt"),
        (["--radius", "0.1"], "belong together"),
        (["--center", "nowhere.npy", "--radius", "1"], "--center: nowhere.npy cannot be read"),
        (["--center", "nowhere.npy", "--radius", "inf"], "for all inputs leave out --center and --radius"),
        (["--center", "nowhere.npy", "--radius", "-1"], "for all inputs leave out --center and --radius"),
        (["--slopes", "1:0"], "reversed"),
        (["--timeout", "0"], "not a positive number"),
        (["--solver", "mosek", "--method", "lipsdp"], "allowed: primal-dual, sweeps, newton, descent, clarabel, scs"),
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str], fragment: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = asked(capfd, DIGITS, *arguments)
    assert (code, out) == (2, "")
    assert fragment in err


@pytest.mark.parametrize("text", ["1 2 3", "a b", "nan " * 64, ""])
def test_a_centre_that_is_none_is_refused(text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "centre.txt"
    place.write_text(text)
    code, _, err = asked(capfd, DIGITS, "--center", place, "--radius", "0.1")
    assert code == 2
    assert "--center" in err
    assert "numbers" in err


def head(shape: tuple[int, ...]) -> bytes:
    """An .npy file that claims an array and holds none of it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (head((10**12,)), "greater than file size"),
        (pickle.dumps([0.0] * 64), "magic string"),
        (np.zeros(64, complex), "its entries are complex128"),
        (np.full(64, None), "objects"),
        (np.zeros(63), "holds 63 numbers; needed are 64"),
        (b"", "cannot be read as numbers"),
    ],
    ids=["claims a terabyte", "pickle", "complex numbers", "objects", "one too few", "empty"],
)
def test_an_array_that_is_no_input_is_refused_unread(
    content: Any, fragment: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "centre.npy"
    place.write_bytes(content) if isinstance(content, bytes) else np.save(place, content, allow_pickle=True)
    code, out, err = asked(capfd, DIGITS, "--center", place, "--radius", "0.1")
    assert (code, out) == (2, "")
    assert err.startswith("leaktight: error: --center: ")
    assert fragment in err

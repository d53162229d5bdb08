"""A first proof: the bundled network reads an 8x8 digit; one property of it is proved, a larger one refuted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from leaktight.verify.verdict import Verdict

FOLDER = Path(__file__).parent / "data"
NETWORK = FOLDER / "digits.onnx"
IMAGES = FOLDER / "digits.npz"
PROVED = FOLDER / "digits-proved.vnnlib"
REFUTED = FOLDER / "digits-refuted.vnnlib"
STORY = """A network of 64-32-32-10 neurons (Leaky ReLU, slope 0.1) reads handwritten digits of 8x8 pixels in [0, 1].
Does it still read the first test image as a 0 when every pixel may change a little?"""


def demo(progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Proves the one and refutes the other property (schema leaktight.demo/1).

    ``steps`` hold the question, the verdict's document and pictures of the image before and after. ``as_expected``
    says whether the first was proved and the second refuted.
    """
    from leaktight.models.load import load
    from leaktight.specs.vnnlib import read_property
    from leaktight.verify.prove import prove
    from leaktight.version import __version__

    network = load(NETWORK)
    first, second = (prove(network, read_property(path), progress=progress) for path in (PROVED, REFUTED))
    return {
        "schema": "leaktight.demo/1",
        "story": STORY,
        "steps": [_step("Every pixel may change by 0.02:", first), _step("Every pixel may change by 0.2:", second)],
        "as_expected": (first.status.value, second.status.value) == ("proved", "refuted"),
        "version": __version__,
    }


def _step(question: str, verdict: Verdict) -> dict[str, Any]:
    return {"question": question, "verdict": verdict.to_json(), "pictures": _pictures(verdict)}


def _pictures(verdict: Verdict) -> list[dict[str, Any]]:
    if verdict.counterexample is None:
        return []
    with np.load(IMAGES, allow_pickle=False) as data:
        image, label = data["x"][0], int(data["y"][0])
    (found,) = verdict.counterexample.inputs.values()
    (scores,) = verdict.counterexample.outputs.values()
    return [
        {"title": f"the image, read as {label}", "pixels": image.reshape(8, 8).tolist()},
        {"title": f"the counterexample, read as {int(scores.argmax())}", "pixels": found.reshape(8, 8).tolist()},
    ]

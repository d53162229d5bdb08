"""Trains the network behind ``leaktight demo`` and writes it, its test images and two properties to leaktight/data.

    python scripts/make_demo.py [FOLDER]

The data are scikit-learn's handwritten digits (8x8 pixels, scaled to [0, 1]); the network is 64-32-32-10 with Leaky
ReLUs of slope 0.1, trained on images with random noise. Seeded and single-threaded: a second run on the same machine
writes the same files.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import Tensor, nn

SLOPE = 0.1
WIDTHS = (64, 32, 32, 10)
TEST_IMAGES = 50
PROVED, REFUTED = 0.02, 0.2  # radii around test image 0; the tests say that the names tell the truth

Image = NDArray[np.float32]


def train(images: Tensor, labels: Tensor, *, epochs: int = 60, noise: float = 0.1) -> nn.Sequential:
    """A network that classifies `images` (count, 64) also under noise of the given amplitude."""
    layers: list[nn.Module] = []
    for incoming, outgoing in pairwise(WIDTHS):
        layers += [nn.Linear(incoming, outgoing), nn.LeakyReLU(SLOPE)]
    network = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, weight_decay=1e-4)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(64):
            noisy = (images[chosen] + noise * (2 * torch.rand(len(chosen), WIDTHS[0]) - 1)).clamp(0, 1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(noisy), labels[chosen]).backward()
            optimizer.step()
    return network


def to_onnx(network: nn.Sequential) -> onnx.ModelProto:
    """The network as plain ONNX: Gemm and LeakyRelu, input ``image`` (batch, 64), output ``scores`` (batch, 10)."""
    nodes, weights, value = [], [], "image"
    for place, layer in enumerate(network):
        result = "scores" if place == len(network) - 1 else f"layer{place}"
        if isinstance(layer, nn.Linear):
            names = f"weight{place}", f"bias{place}"
            for name, tensor in zip(names, (layer.weight, layer.bias), strict=True):
                weights.append(numpy_helper.from_array(tensor.detach().numpy(), name))
            nodes.append(helper.make_node("Gemm", [value, *names], [result], name=f"dense{place}", transB=1))
        else:
            nodes.append(helper.make_node("LeakyRelu", [value], [result], name=f"leaky{place}", alpha=SLOPE))
        value = result
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("image", WIDTHS[0]), ("scores", WIDTHS[-1]))
    ]
    graph = helper.make_graph(nodes, "leaktight demo", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="leaktight")


def robustness(image: Image, label: int, epsilon: float) -> str:
    """VNN-LIB 1.0 text that says: within `epsilon` of `image`, no other digit scores as high as `label`."""
    lines = [f"; the digit {label} of leaktight's demo: every pixel may move by {epsilon}, within [0, 1]"]
    lines += [f"(declare-const X_{i} Real)" for i in range(WIDTHS[0])]
    lines += [f"(declare-const Y_{j} Real)" for j in range(WIDTHS[-1])]
    for i, pixel in enumerate(image.tolist()):
        lines.append(f"(assert (>= X_{i} {max(round(pixel - epsilon, 6), 0.0)}))")
        lines.append(f"(assert (<= X_{i} {min(round(pixel + epsilon, 6), 1.0)}))")
    others = " ".join(f"(and (>= Y_{j} Y_{label}))" for j in range(WIDTHS[-1]) if j != label)
    return "\n".join([*lines, f"(assert (or {others}))", ""])


def main(folder: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    digits = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target.astype(np.int64)
    network = train(torch.from_numpy(images[TEST_IMAGES:]), torch.from_numpy(labels[TEST_IMAGES:]))
    held_back, truth = images[:TEST_IMAGES], labels[:TEST_IMAGES]
    with torch.no_grad():
        correct = (network(torch.from_numpy(held_back)).argmax(1).numpy() == truth).mean()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "digits.onnx").write_bytes(to_onnx(network).SerializeToString(deterministic=True))
    np.savez_compressed(folder / "digits.npz", x=held_back, y=truth)
    for name, epsilon in (("digits-proved", PROVED), ("digits-refuted", REFUTED)):
        (folder / f"{name}.vnnlib").write_text(robustness(held_back[0], int(truth[0]), epsilon))
    print(f"{folder}: {correct:.0%} of {TEST_IMAGES} held-back images are classified correctly")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "leaktight" / "data")

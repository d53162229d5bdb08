"""Whether a device computes as the error terms assume: settings that shorten products, and a look at results.

The error terms need that +, -, *, / and square roots round to nearest, subnormal numbers included, and that products of
matrices (and so convolutions) are sums, in any order, of products of their factors as they are. Settings can change the
second; both are looked at on the device itself. A look proves nothing, but it notices what would make bounds wrong:
shortened factors, factors scaled to a common exponent, and algorithms that add entries before they multiply.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch.nn import functional as F

from leaktight.errors import UsageError
from leaktight.models.ops import plain_arithmetic
from leaktight.models.placed import PROCESSOR, working_on
from leaktight.verify.rounding import unit, whole_products

# what tells NVIDIA's libraries to make products of other numbers than those they are given
SHORTENING = ("NVIDIA_TF32_OVERRIDE", "CUBLAS_EMULATE_SINGLE_PRECISION", "CUBLAS_EMULATE_DOUBLE_PRECISION")
_SIZES = (3, 64, 200)
_COUNT = 4096


def check_settings() -> None:
    """Raises UsageError: a setting of torch's or of the environment shortens products on a GPU."""
    for name in SHORTENING:
        if os.environ.get(name, "0").strip() not in ("", "0"):
            raise UsageError(f"{name}={os.environ[name]} changes how matrices are multiplied; unset it, or set it to 0")
    if not whole_products():
        raise UsageError(
            "torch may multiply float32 matrices in TF32 or bfloat16, so nothing can be proven with them; call"
            " torch.set_float32_matmul_precision('highest'), and leave torch.backends.*.fp32_precision as it is"
        )


def check_arithmetic(where: torch.device) -> None:
    """Compares results of a device with what they have to be, bit by bit.

    Raises UsageError: some differ; the message says of which operation.
    """
    with working_on(PROCESSOR):
        for dtype in (torch.float64, torch.float32):
            generator = torch.Generator().manual_seed(0)
            for name, ours, theirs in (*_elementwise(where, dtype, generator), *_products(where, dtype, generator)):
                _agree(bool((ours == theirs.cpu()).all()), f"{name} of {dtype}", where)
        _check_smooth(where)


def _agree(well: bool, what: str, where: torch.device) -> None:
    if not well:
        raise UsageError(
            f"--device {where}: {what} are not computed there as the error terms assume, so nothing can be proven on"
            " it; use --device cpu"
        )


def _check_smooth(where: torch.device) -> None:
    """Both are taken for within 4 units in the last place (`leaktight.verify.relax`), here and there."""
    x = _wide((_COUNT,), torch.float64, torch.Generator().manual_seed(0), 6)
    for function in (torch.tanh, torch.sigmoid):
        off = (function(x) - function(x.to(where)).cpu()).abs()
        _agree(bool((off <= 8 * unit(x.dtype)).all()), f"values of {function.__name__}", where)


def _wide(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, reach: float) -> Tensor:
    """Random numbers of either sign with all digits, of sizes between ``2^-reach`` and ``2^reach``."""
    digits = torch.rand(shape, generator=generator, dtype=dtype) + 1
    sign = torch.rand(shape, generator=generator).sub(0.5).sign().to(dtype)
    power = (torch.rand(shape, generator=generator) * 2 - 1).mul(reach).round()
    return digits * sign * torch.exp2(power.double()).to(dtype)


def _elementwise(
    where: torch.device, dtype: torch.dtype, generator: torch.Generator
) -> list[tuple[str, Tensor, Tensor]]:
    """Correctly rounded results, which are the same wherever they are computed; some of them are subnormal."""
    least = torch.finfo(dtype).smallest_normal
    a, b = (_wide((_COUNT,), dtype, generator, 30) for _ in range(2))
    a[: _COUNT // 4] *= least  # about half of these, and their products below, are subnormal
    raised = a * 2**20
    there, other = a.to(where), b.to(where)
    return [
        ("sums", a + b, there + other),
        ("differences", raised - b, raised.to(where) - other),
        ("products", a * b, there * other),
        ("quotients", a / b, there / other),
        ("square roots", a.abs().sqrt(), there.abs().sqrt()),
        ("conversions", a.to(torch.float32), there.to(torch.float32)),
    ]


def _products(where: torch.device, dtype: torch.dtype, generator: torch.Generator) -> list[tuple[str, Tensor, Tensor]]:
    """Products in which every entry is one entry of a factor: it comes through whole, whatever its neighbours are."""
    found = []
    for size in _SIZES:
        matrix, one = _wide((size, size), dtype, generator, 30), torch.eye(size, dtype=dtype)
        order = torch.randperm(size, generator=generator)
        there = matrix.to(where)
        found += [
            ("matrix products", matrix[:, order], there @ one[:, order].to(where)),
            ("matrix products", matrix[order], one[order].to(where) @ there),
            ("matrix products", matrix.expand(2, -1, -1), one.expand(2, -1, -1).to(where) @ there.expand(2, -1, -1)),
        ]
    image, kernel = _wide((2, 3, 12, 12), dtype, generator, 20), torch.zeros(3, 3, 3, 3, dtype=dtype)
    for channel in range(3):
        kernel[channel, channel, 0, 2] = 1.0
    with plain_arithmetic():
        found.append(("convolutions", image[:, :, :-2, 2:], F.conv2d(image.to(where), kernel.to(where))))
        back = F.conv_transpose2d(image.to(where), kernel.to(where))
    found.append(("convolutions", F.pad(image, (2, 0, 0, 2)), back))
    return found

"""Error terms that turn floating-point results into bounds of the real ones.

An inner product of length ``k``, its terms summed in any order, with or without fused multiply-add, is off by at most

    gamma_k |a|.|b| + k eta,      gamma_k = k u / (1 - k u),

with ``u`` the unit roundoff and ``eta`` the error of one product that underflows (Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., section 3.1 and 2.1). The factors below are doubled, so that they still hold when the
right-hand side is itself a floating-point sum of nonnegative terms, which is too small by less than the factor
``1 - gamma_k >= 1/2``.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from leaktight.errors import UsageError


def unit(dtype: torch.dtype) -> float:
    """The unit roundoff of round-to-nearest, 2^-53 or 2^-24."""
    return float(torch.finfo(dtype).eps) / 2


def gamma(terms: int, dtype: torch.dtype) -> float:
    """At least ``2 gamma_k`` for sums of `terms` products, with eight more roundings to spare; 0 for no terms.

    Raises UsageError: the sum is so long that `dtype` says nothing about it, or products in it are shortened.
    """
    if terms == 0:
        return 0.0
    if dtype == torch.float32 and not whole_products():
        raise UsageError(
            "products of float32 matrices may be made from fewer digits here, so nothing can be proven with them; call"
            " torch.set_float32_matmul_precision('highest') and unset ONEDNN_DEFAULT_FPMATH_MODE, or use float64"
        )
    share = (terms + 8) * unit(dtype)
    if share > 1 / 32:
        raise UsageError(f"a sum of {terms} products has no useful error bound in {dtype}; use float64")
    return 2 * share / (1 - share)


def whole_products() -> bool:
    """Whether products of float32 matrices are made of their factors as they are.

    Torch may be told to round factors to bfloat16 or TF32 first, which is faster, and 2^13 times less accurate.
    """
    modes = (os.environ.get(f"{library}_DEFAULT_FPMATH_MODE", "STRICT") for library in ("ONEDNN", "DNNL"))
    if any(mode.upper() not in ("", "STRICT") for mode in modes):
        return False
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set for some backends alone
        return False


def underflow(dtype: torch.dtype) -> float:
    """At least the absolute error of one operation whose result underflows, also where subnormals are flushed."""
    return float(torch.finfo(dtype).smallest_normal)


def down(x: Tensor) -> Tensor:
    """At least one unit in the last place below; what is left of a bound after one more rounded operation."""
    return x - (x.abs() * torch.finfo(x.dtype).eps + underflow(x.dtype))


def up(x: Tensor) -> Tensor:
    """At least one unit in the last place above."""
    return x + (x.abs() * torch.finfo(x.dtype).eps + underflow(x.dtype))


def quotient(x: Tensor, divisor: float) -> Tensor:
    """`x` divided by a number, rounded once wherever it is computed.

    Of a tensor on a GPU and a plain number torch makes a product with the reciprocal, which is rounded too, and which
    is infinite or inexact next to the ends of the range. (Powers of two between these lose nothing that way.)
    """
    return x / x.new_tensor(divisor)


def trusted_lower(x: Tensor) -> Tensor:
    """`x` as a lower bound: whatever overflowed or is undefined says nothing, which is minus infinity."""
    return torch.nan_to_num(x, nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)


def trusted_upper(x: Tensor) -> Tensor:
    """`x` as an upper bound: whatever overflowed or is undefined says nothing, which is infinity."""
    return torch.nan_to_num(x, nan=torch.inf, posinf=torch.inf, neginf=torch.inf)

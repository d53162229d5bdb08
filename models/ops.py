"""The operators a Network is made of: what each one means, and the traits that engines ask for.

Conventions. A value of shape ``shape`` travels as a tensor ``(..., *shape)`` with any leading batch axes. ``shape`` is
the shape that the source file gives the value with every free dimension set to one, so axes in a file and axes here
agree when counted from the back. Parameters are stored in float64, where every float32 weight is exact.

An operator is a frozen dataclass, called like the function that it is. Two families:

* `Affine`: a linear map of all inputs together plus a bias. It carries its adjoint, its entrywise absolute value
  (`magnitude`) and how far the stored parameters may be from the true ones (`spread`), which is all that any bounding
  engine needs. Structural operators (`Select`, `Reshape`, `Concat`) are affine maps that compute nothing.
* activations: `TwoSlope` (every Leaky ReLU), `Clip`, `Sigmoid`, `Tanh`, elementwise, and `Maximum` over the last axis.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Shape = tuple[int, ...]
SomeOp = TypeVar("SomeOp", bound="Op")
_SMALL_WEIGHT = 2**20


class Op(ABC):
    """An operator: a pure function of its input values. Subclasses are final."""

    @abstractmethod
    def __call__(self, *inputs: Tensor) -> Tensor:
        """The operator's value, in the dtype of its inputs."""

    def to(self: SomeOp, dtype: torch.dtype) -> SomeOp:
        """The operator with parameters in `dtype`. Affine operators account for what the conversion rounds away."""
        return self


@dataclass(frozen=True, eq=False)
class Input(Op):
    """A place where a value enters the network."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return x


class Affine(Op):
    """``sum_i W_i x_i + b``, with parameters known up to a spread: the true ``W`` lies within ``W ± E``.

    `forward_terms` and `adjoint_terms` count the products that are summed for one entry of ``W x`` and of ``W^T a``
    (an upper bound; the bias counts as one): the ``k`` of the rounding factor ``gamma_k``. Zero says that nothing is
    rounded, because entries are only moved.
    """

    @abstractmethod
    def linear(self, *inputs: Tensor) -> Tensor:
        """``W x`` without the bias."""

    @abstractmethod
    def magnitude(self, *inputs: Tensor) -> Tensor:
        """``|W| x``, for ``x >= 0``."""

    @abstractmethod
    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """``W_i^T a`` for every input, given ``a`` as ``(..., *output shape)`` and the input shapes."""

    def spread(self, *inputs: Tensor) -> Tensor | None:
        """``E x + e``, for ``x >= 0``: how far the value may be off because of uncertain parameters; None for zero."""
        return None

    @property
    def bias_value(self) -> Tensor | None:
        """``b``, broadcastable to the output shape; None for zero."""
        return None

    @property
    @abstractmethod
    def forward_terms(self) -> int: ...

    @property
    @abstractmethod
    def adjoint_terms(self) -> int: ...

    def __call__(self, *inputs: Tensor) -> Tensor:
        value = self.linear(*inputs)
        return value if self.bias_value is None else value + self.bias_value


def _rounded(value: Tensor | None, error: Tensor | None, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """`value` in `dtype`, with a bound on its distance to the truth; None stands for zero."""
    if value is None:
        return None, None
    nearest = value.to(dtype)
    off = (nearest.double() - value.double()).abs()  # exact: both are within a factor two, or the result is tiny
    if error is not None:
        off = (off + error.double()) * (1 + 2**-50)
    if not off.any():
        return nearest, None
    outward = off.to(dtype)
    return nearest, torch.where(
        outward.double() < off, torch.nextafter(outward, outward.new_tensor(torch.inf)), outward
    )


@dataclass(frozen=True, eq=False)
class _Weighted(Affine):
    """Shared by the affine operators that have a weight, a bias and an error for each of them."""

    weight: Tensor
    bias: Tensor | None = None
    weight_error: Tensor | None = field(default=None, kw_only=True)
    bias_error: Tensor | None = field(default=None, kw_only=True)

    @abstractmethod
    def _apply(self, weight: Tensor, x: Tensor) -> Tensor:
        """The linear map with another weight of the same shape."""

    def _bias_shaped(self, bias: Tensor | None) -> Tensor | None:
        return bias

    def linear(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return self._apply(self.weight, x)

    @cached_property
    def _kept_sizes(self) -> Tensor:
        return self.weight.abs()

    def magnitude(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return self._apply(self.weight.abs() if self.weight.numel() > _SMALL_WEIGHT else self._kept_sizes, x)

    def spread(self, *inputs: Tensor) -> Tensor | None:
        (x,) = inputs
        error = self._bias_shaped(self.bias_error)
        if self.weight_error is None:
            return None if error is None else error
        value = self._apply(self.weight_error, x)
        return value if error is None else value + error

    @property
    def bias_value(self) -> Tensor | None:
        return self._bias_shaped(self.bias)

    def to(self: Any, dtype: torch.dtype) -> Any:
        if self.weight.dtype == dtype and (self.bias is None or self.bias.dtype == dtype):
            return self
        weight, weight_error = _rounded(self.weight, self.weight_error, dtype)
        bias, bias_error = _rounded(self.bias, self.bias_error, dtype)
        return replace(self, weight=weight, bias=bias, weight_error=weight_error, bias_error=bias_error)


@dataclass(frozen=True, eq=False)
class Linear(_Weighted):
    """``W x + b`` over the last axis; weight ``(out, in)``, bias ``(out,)``."""

    def _apply(self, weight: Tensor, x: Tensor) -> Tensor:
        return x @ weight.mT

    @cached_property
    def _columns(self) -> Tensor:
        """The weight, kept column by column where it is small: products with many rows are a fifth faster so."""
        return self.weight if self.weight.numel() > _SMALL_WEIGHT else self.weight.mT.contiguous().mT

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return (coefficients @ self._columns,)

    @property
    def forward_terms(self) -> int:
        return self.weight.shape[1] + 1

    @property
    def adjoint_terms(self) -> int:
        return self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class Scale(_Weighted):
    """``w * x + b`` entry by entry; weight and bias broadcast against the value's shape without enlarging it."""

    def _apply(self, weight: Tensor, x: Tensor) -> Tensor:
        return x * weight

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return (coefficients * self.weight,)

    @property
    def forward_terms(self) -> int:
        return 2

    @property
    def adjoint_terms(self) -> int:
        return 1


@dataclass(frozen=True, eq=False)
class Conv(_Weighted):
    """Convolution (as neural networks say it) over the last 1, 2 or 3 axes of ``(channels, *space)``.

    weight ``(out, in / groups, *kernel)``; `padding` holds one number of zeros for both ends of every axis (uneven
    padding is a `Select` in front).
    """

    stride: Shape = (1,)
    padding: Shape = (0,)
    dilation: Shape = (1,)
    groups: int = 1

    def _apply(self, weight: Tensor, x: Tensor) -> Tensor:
        axes = weight.dim() - 2
        flat = x.reshape(-1, *x.shape[-axes - 1 :])
        value = _convolved(self, weight, flat)
        return value.reshape(*x.shape[: -axes - 1], *value.shape[1:])

    def _bias_shaped(self, bias: Tensor | None) -> Tensor | None:
        return None if bias is None else bias.reshape(-1, *[1] * (self.weight.dim() - 2))

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        axes = self.weight.dim() - 2
        flat = coefficients.reshape(-1, *coefficients.shape[-axes - 1 :])
        return (
            _transposed(self, self.weight, flat, shapes[0][-axes:]).reshape(
                *coefficients.shape[: -axes - 1], *shapes[0][-axes - 1 :]
            ),
        )

    @property
    def forward_terms(self) -> int:
        return prod(self.weight.shape[1:]) + 1

    @property
    def adjoint_terms(self) -> int:
        return prod(self.weight.shape[2:]) * self.weight.shape[0] // self.groups


@dataclass(frozen=True, eq=False)
class ConvTranspose(_Weighted):
    """Transposed convolution over ``(channels, *space)``; weight ``(in, out / groups, *kernel)``."""

    stride: Shape = (1,)
    padding: Shape = (0,)
    output_padding: Shape = (0,)
    dilation: Shape = (1,)
    groups: int = 1

    def _apply(self, weight: Tensor, x: Tensor) -> Tensor:
        axes = weight.dim() - 2
        space = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + o + 1
            for n, s, p, d, k, o in zip(
                x.shape[-axes:],
                self.stride,
                self.padding,
                self.dilation,
                weight.shape[2:],
                self.output_padding,
                strict=True,
            )
        )
        flat = x.reshape(-1, *x.shape[-axes - 1 :])
        value = _transposed(self, weight, flat, space)
        return value.reshape(*x.shape[: -axes - 1], *value.shape[1:])

    def _bias_shaped(self, bias: Tensor | None) -> Tensor | None:
        return None if bias is None else bias.reshape(-1, *[1] * (self.weight.dim() - 2))

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        axes = self.weight.dim() - 2
        flat = coefficients.reshape(-1, *coefficients.shape[-axes - 1 :])
        value = _convolved(self, self.weight, flat)
        # a stride that does not divide leaves rows that the transposed map never wrote from an input
        for axis, extent in enumerate(shapes[0][-axes:]):
            value = value.narrow(axis - axes, 0, extent)
        return (value.reshape(*coefficients.shape[: -axes - 1], *shapes[0][-axes - 1 :]),)

    @property
    def forward_terms(self) -> int:
        return prod(self.weight.shape[2:]) * self.weight.shape[0] // self.groups + 1

    @property
    def adjoint_terms(self) -> int:
        return prod(self.weight.shape[1:])


def _convolved(op: Conv | ConvTranspose, weight: Tensor, x: Tensor) -> Tensor:
    """The convolution of `x` ``(batch, channels, *space)`` with the operator's settings."""
    convolve: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[weight.dim() - 3]
    with plain_arithmetic():
        return convolve(x, weight, None, op.stride, op.padding, op.dilation, op.groups)


def _transposed(op: Conv | ConvTranspose, weight: Tensor, x: Tensor, space: Sequence[int]) -> Tensor:
    """The transposed convolution of `x` ``(batch, channels, *space)`` with exactly the output extent `space`."""
    axes = weight.dim() - 2
    extra = tuple(
        n - ((m - 1) * s - 2 * p + d * (k - 1) + 1)
        for n, m, s, p, d, k in zip(
            space, x.shape[2:], op.stride, op.padding, op.dilation, weight.shape[2:], strict=True
        )
    )
    convolve: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    fitting = tuple(min(e, max(s, d) - 1) for e, s, d in zip(extra, op.stride, op.dilation, strict=True))
    with plain_arithmetic():
        value = convolve(x, weight, None, op.stride, op.padding, fitting, op.groups, op.dilation)
    if fitting != extra:  # inputs beyond the last kernel position: their coefficients are zero
        missing = [pair for e, f in zip(reversed(extra), reversed(fitting), strict=True) for pair in (0, e - f)]
        value = F.pad(value, missing)
    return value


class _PlainArithmetic(contextlib.ContextDecorator):
    """The settings are the process's: the first thread to enter makes them, the last to leave takes them back."""

    def __init__(self) -> None:
        self._lock, self._inside, self._settings = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                mkldnn, nnpack, cudnn = torch.backends.mkldnn, torch.backends.nnpack, torch.backends.cudnn
                before = mkldnn.set_flags(False)[0]  # flags() would set more than this, and warn
                self._settings.callback(mkldnn.set_flags, before)
                self._settings.enter_context(nnpack.flags(enabled=False))
                self._settings.enter_context(cudnn.flags(enabled=False))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._settings.close()


_PLAIN_ARITHMETIC = _PlainArithmetic()


def plain_arithmetic() -> contextlib.AbstractContextManager[None]:
    """Convolutions as sums of products in some order: no Winograd, no FFT, no TF32. The error terms rely on it."""
    return _PLAIN_ARITHMETIC


@dataclass(frozen=True, eq=False)
class Constant(Affine):
    """A value that depends on no input, for example one that a file concatenates to its input."""

    value: Tensor
    error: Tensor | None = None

    def linear(self, *inputs: Tensor) -> Tensor:
        return torch.zeros_like(self.value)

    def magnitude(self, *inputs: Tensor) -> Tensor:
        return torch.zeros_like(self.value)

    def spread(self, *inputs: Tensor) -> Tensor | None:
        return self.error

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return ()

    @property
    def bias_value(self) -> Tensor | None:
        return self.value

    @property
    def forward_terms(self) -> int:
        return 0

    @property
    def adjoint_terms(self) -> int:
        return 0

    def to(self: Any, dtype: torch.dtype) -> Any:
        value, error = _rounded(self.value, self.error, dtype)
        return replace(self, value=value, error=error)


@dataclass(frozen=True, eq=False)
class Sum(Affine):
    """``sum_i sign_i x_i`` of values of equal shape; every sign is +1 or -1."""

    signs: tuple[int, ...]

    def linear(self, *inputs: Tensor) -> Tensor:
        total = inputs[0] if self.signs[0] > 0 else -inputs[0]
        for sign, x in zip(self.signs[1:], inputs[1:], strict=True):
            total = total + x if sign > 0 else total - x
        return total

    def magnitude(self, *inputs: Tensor) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*inputs)).sum(0)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return tuple(coefficients if sign > 0 else -coefficients for sign in self.signs)

    @property
    def forward_terms(self) -> int:
        return len(self.signs)

    @property
    def adjoint_terms(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Select(Affine):
    """``y.flat[i] = x.flat[index.flat[i]]``, and zero where the index is -1.

    One operator for every rearrangement with known places: Transpose, Slice, Gather, Split, Pad, nearest Upsample and
    the windows of pooling.
    """

    index: Tensor
    input_shape: Shape

    @cached_property
    def _padded(self) -> bool:
        return bool((self.index < 0).any())

    def linear(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        flat = x.reshape(*x.shape[: x.dim() - len(self.input_shape)], -1)
        if not self._padded:
            return flat[..., self.index]
        return torch.where(self.index >= 0, flat[..., self.index.clamp(min=0)], 0.0)

    def magnitude(self, *inputs: Tensor) -> Tensor:
        return self.linear(*inputs)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        lead = coefficients.shape[: coefficients.dim() - self.index.dim()]
        flat, places = coefficients.reshape(*lead, -1), self.index.reshape(-1)
        if self._padded:
            flat, places = flat[..., places >= 0], places[places >= 0]
        value = flat.new_zeros(*lead, prod(self.input_shape)).index_add(-1, places, flat)
        return (value.reshape(*lead, *self.input_shape),)

    @property
    def forward_terms(self) -> int:
        return 0

    @cached_property
    def adjoint_terms(self) -> int:
        used = self.index[self.index >= 0]
        most = int(torch.bincount(used).max()) if used.numel() else 0
        return most if most > 1 else 0


@dataclass(frozen=True, eq=False)
class Reshape(Affine):
    """The same entries in another shape."""

    input_shape: Shape
    output_shape: Shape

    def linear(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return x.reshape(*x.shape[: x.dim() - len(self.input_shape)], *self.output_shape)

    def magnitude(self, *inputs: Tensor) -> Tensor:
        return self.linear(*inputs)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        lead = coefficients.shape[: coefficients.dim() - len(self.output_shape)]
        return (coefficients.reshape(*lead, *self.input_shape),)

    @property
    def forward_terms(self) -> int:
        return 0

    @property
    def adjoint_terms(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Concat(Affine):
    """Values joined along `axis`, counted from the back (negative)."""

    axis: int

    def linear(self, *inputs: Tensor) -> Tensor:
        lead = np.broadcast_shapes(*(x.shape[: self.axis] for x in inputs))
        return torch.cat([x.expand(*lead, *x.shape[self.axis :]) for x in inputs], self.axis)

    def magnitude(self, *inputs: Tensor) -> Tensor:
        return self.linear(*inputs)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return tuple(torch.split(coefficients, [shape[self.axis] for shape in shapes], self.axis))

    @property
    def forward_terms(self) -> int:
        return 0

    @property
    def adjoint_terms(self) -> int:
        return 0


class Elementwise(Op):
    """A nonlinear function of each entry by itself. Its parameters stay in float64 whatever the network is in."""

    def to(self: SomeOp, dtype: torch.dtype) -> SomeOp:
        return self


@dataclass(frozen=True, eq=False)
class Leaky:
    """Where a `TwoSlope` comes from: a Leaky ReLU of this slope, perhaps scaled and shifted on either side.

    In the entries `flipped` (boolean) the leaky side is the right one. The leaky side is `slope` times the other. Both
    broadcast against the value's shape. Provenance, not meaning: the activation is what its own parameters say.
    """

    slope: Tensor
    flipped: Tensor


@dataclass(frozen=True, eq=False)
class TwoSlope(Elementwise):
    """``value + right * (x - kink)`` where ``x >= kink`` and ``value + left * (x - kink)`` elsewhere.

    Every parameter is finite and broadcasts against the value's shape. The Leaky ReLU with slope ``s`` is
    ``left = s, right = 1, kink = value = 0`` (see `leaky_relu`); ReLU is ``s = 0`` and the absolute value ``s = -1``.
    """

    left: Tensor
    right: Tensor
    kink: Tensor
    value: Tensor
    precision: float = 0.0  # each true parameter lies within this relative distance of the stored one
    leak: Leaky | None = field(default=None, compare=False)  # None: not made from a Leaky ReLU

    def __post_init__(self) -> None:
        for name in ("left", "right", "kink", "value"):
            if not torch.isfinite(getattr(self, name)).all():
                raise ValueError(f"TwoSlope.{name} must be finite")

    def __call__(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        if self._leak is not None:
            return F.leaky_relu(x, self._leak)
        left, right, kink, value = (p.to(x.dtype) for p in (self.left, self.right, self.kink, self.value))
        shifted = x - kink
        # one of the two is zero, so their sum is exact; choosing between them takes longer
        return value + (right * shifted.clamp(min=0) + left * shifted.clamp(max=0))

    @cached_property
    def _leak(self) -> float | None:
        """The slope of a plain Leaky ReLU with one for all entries."""
        others = torch.cat([p.flatten() for p in (self.kink, self.value, self.right - 1)])
        plain = self.left.numel() == 1 and not self.left.requires_grad and not bool(others.any())
        return float(self.left) if plain else None


def leaky_relu(slope: Tensor | float) -> TwoSlope:
    """``x`` where ``x >= 0``, ``slope * x`` elsewhere; any finite slope, scalar or broadcastable (one per channel)."""
    left = torch.as_tensor(slope, dtype=torch.float64)
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    return TwoSlope(left, one, zero, zero, leak=Leaky(left, torch.zeros((), dtype=torch.bool)))


@dataclass(frozen=True, eq=False)
class Clip(Elementwise):
    """``min(max(x, lower), upper)`` with finite ``lower <= upper`` (a one-sided clip is a `TwoSlope`)."""

    lower: float
    upper: float

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0].clamp(self.lower, self.upper)


@dataclass(frozen=True, eq=False)
class Sigmoid(Elementwise):
    """``1 / (1 + exp(-x))``."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return torch.sigmoid(inputs[0])


@dataclass(frozen=True, eq=False)
class Tanh(Elementwise):
    """The hyperbolic tangent."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return torch.tanh(inputs[0])


@dataclass(frozen=True, eq=False)
class Maximum(Op):
    """The largest entry along the last axis, which disappears. Max pooling is a `Select` of windows, then this."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0].amax(-1)

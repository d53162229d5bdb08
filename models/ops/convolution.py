"""Convolutions and their transposes, each the other's adjoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor
from torch.nn import functional as F

from leaktight.models.ops.operator import Shape
from leaktight.models.ops.plain import plain_arithmetic
from leaktight.models.ops.weighted import Weighted


class _Spatial(Weighted):
    """Over the last axes of ``(channels, *space)``, with a bias for each channel."""

    def _bias_shaped(self, bias: Tensor | None) -> Tensor | None:
        return None if bias is None else bias.reshape(-1, *[1] * (self.weight.dim() - 2))

    def _images(self, x: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        """What `work` makes of ``(batch, channels, *space)``, for any leading axes in place of the batch."""
        lead, own = x.shape[: 1 - self.weight.dim()], x.shape[1 - self.weight.dim() :]
        value = work(x.reshape(-1, *own))
        return value.reshape(*lead, *value.shape[1:])


@dataclass(frozen=True, eq=False)
class Conv(_Spatial):
    """Convolution (as neural networks say it) over the last 1, 2 or 3 axes of ``(channels, *space)``.

    weight ``(out, in / groups, *kernel)``; `padding` holds one number of zeros for both ends of every axis (uneven
    padding is a `Select` in front).
    """

    stride: Shape = (1,)
    padding: Shape = (0,)
    dilation: Shape = (1,)
    groups: int = 1

    def _apply(self, weight: Tensor, x: Tensor) -> Tensor:
        return self._images(x, lambda images: _convolved(self, weight, images))

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        space = shapes[0][2 - self.weight.dim() :]
        return (self._images(coefficients, lambda images: _transposed(self, self.weight, images, space)),)

    @property
    def forward_terms(self) -> int:
        return prod(self.weight.shape[1:]) + 1

    @property
    def adjoint_terms(self) -> int:
        return prod(self.weight.shape[2:]) * self.weight.shape[0] // self.groups


@dataclass(frozen=True, eq=False)
class ConvTranspose(_Spatial):
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
        return self._images(x, lambda images: _transposed(self, weight, images, space))

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        axes = self.weight.dim() - 2
        value = self._images(coefficients, lambda images: _convolved(self, self.weight, images))
        # a stride that does not divide leaves rows that the transposed map never wrote from an input
        for axis, extent in enumerate(shapes[0][-axes:]):
            value = value.narrow(axis - axes, 0, extent)
        return (value,)

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

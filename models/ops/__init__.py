"""The operators a Network is made of: what each one means, and the traits that engines ask for.

Conventions. A value of shape ``shape`` travels as a tensor ``(..., *shape)`` with any leading batch axes. ``shape`` is
the shape that the source file gives the value with every free dimension set to one, so axes in a file and axes here
agree when counted from the back. Parameters are stored in float64, where every float32 weight is exact.

An operator is a frozen dataclass, called like the function that it is. Two families:

* `Affine`: a linear map of all inputs together plus a bias. It carries its adjoint, its entrywise absolute value
  (`magnitude`) and how far the stored parameters may be from the true ones (`spread`), which is all that any bounding
  engine needs. Rearrangements (`Select`, `Reshape`, `Concat`) are affine maps that compute nothing.
* activations: `TwoSlope` (every Leaky ReLU), `Clip`, `Sigmoid`, `Tanh`, elementwise, and `Maximum` over the last axis.
"""

from leaktight.models.ops.activation import Clip, Elementwise, Leaky, Maximum, Sigmoid, Tanh, TwoSlope, leaky_relu
from leaktight.models.ops.affine import Affine
from leaktight.models.ops.convolution import Conv, ConvTranspose
from leaktight.models.ops.operator import Input, Op, Shape
from leaktight.models.ops.plain import plain_arithmetic
from leaktight.models.ops.rearrangement import Concat, Reshape, Select
from leaktight.models.ops.sums import Constant, Sum
from leaktight.models.ops.weighted import Linear, Scale, Weighted

__all__ = [
    "Affine",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "Elementwise",
    "Input",
    "Leaky",
    "Linear",
    "Maximum",
    "Op",
    "Reshape",
    "Scale",
    "Select",
    "Shape",
    "Sigmoid",
    "Sum",
    "Tanh",
    "TwoSlope",
    "Weighted",
    "leaky_relu",
    "plain_arithmetic",
]

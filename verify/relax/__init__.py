"""Facts about the nonlinear operators; every engine draws them from here.

`image` encloses an operator's values over intervals, `envelope` encloses its graph between two lines. Both are proofs
in real arithmetic: they are computed in float64 from exact interval ends and then rounded outwards.
"""

from leaktight.verify.relax.leaky import is_leaky
from leaktight.verify.relax.lines import Lines
from leaktight.verify.relax.maximum import MaximumLines, maximum_lines
from leaktight.verify.relax.rules import envelope, image, is_linear_on, turn
from leaktight.verify.relax.tilts import default_tilt, has_tilt, other_tilt, parallel_tilt

__all__ = [
    "Lines",
    "MaximumLines",
    "default_tilt",
    "envelope",
    "has_tilt",
    "image",
    "is_leaky",
    "is_linear_on",
    "maximum_lines",
    "other_tilt",
    "parallel_tilt",
    "turn",
]

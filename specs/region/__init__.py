"""Regions: the sets of inputs that a statement is about.

A region lives in the flat space of all of a network's input entries, ``n`` of them, and comes in batches: one region
per input of a data set, say. All numbers are float64. `lower` and `upper` enclose the region; a box given in decimals
that float64 cannot hold is enclosed by its neighbours (`inner_lower`, `inner_upper` lie inside it).
"""

from leaktight.specs.region.balls import Ball, ball
from leaktight.specs.region.box import Box
from leaktight.specs.region.norm import Norm
from leaktight.specs.region.product import Product
from leaktight.specs.region.region import Region, toward

__all__ = ["Ball", "Box", "Norm", "Product", "Region", "ball", "toward"]

"""What is asked about a leak: one curve of a property, or one of each labelled input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Norm, ball
from leaktight.specs.unsafe import misclassified
from leaktight.verify.leak.constant import Constant
from leaktight.verify.leak.course import Setting
from leaktight.verify.leak.critical import first_refuted
from leaktight.verify.leak.joint_curve import joined
from leaktight.verify.leak.radius import radii
from leaktight.verify.leak.result import Curve, InputCurve
from leaktight.verify.leak.shift import rates, shift
from leaktight.verify.leak.traced import Traced
from leaktight.verify.leak.transfer import follow


class OfProperty:
    """One curve: the smallest margin over all regions of a property."""

    norm, replays_late = Norm.L2, True

    def __init__(self, cases: list[Case]) -> None:
        self.cases = cases

    def begin(self, found: list[list[Traced]], late: bool) -> None:
        self.found = found
        self.curve = Curve(joined([traced for some in found for traced in some]), timed_out=late)

    def refute(self, setting: Setting) -> None:
        both = zip(self.cases, self.found, strict=True)
        each = [first_refuted(setting.moving, c, t, setting.ways.slopes, setting.plan) for c, t in both]
        known = [one for some in each for one in some if one is not None]
        self.curve = replace(self.curve, refuted=min(known, key=lambda one: one.slope, default=None))

    def shift(self, setting: Setting) -> None:
        """A minimum of margins moves no faster than the fastest of them."""
        within, effort = setting.ways.slopes, setting.plan.effort(False)
        each = zip(*(rates(setting.moving, c, within, effort) for c in self.cases), strict=True)
        size, low, high = (torch.cat(x) for x in each)
        rate = float(low.amin()), float(high.amax())
        self.curve = replace(self.curve, shift=shift(self.curve.segments, float(size.amax()), rate, within))

    def follow(self, setting: Setting, constant: Constant | None) -> None:
        pass

    def told(self) -> dict[str, Any]:
        return {"curve": self.curve, "inputs": ()}


class OfData:
    """A curve for each input ``(batch, n)`` with a label ``(batch,)``: the label scores highest around it."""

    replays_late = False

    def __init__(
        self,
        moving: Slopes,
        inputs: Tensor,
        labels: Tensor,
        epsilon: float,
        norm: Norm,
        clip: tuple[float, float] | None,
        radius: bool,
    ) -> None:
        self.inputs, self.labels, self.epsilon = inputs, labels, epsilon
        self.norm, self.clip, self.radius = norm, clip, radius
        self.case = Case(ball(inputs, epsilon, norm, clip), misclassified(labels, moving.network.output_size))
        self.cases = [self.case]
        self.predicted = moving.network.flat(inputs).argmax(1).tolist()

    def begin(self, found: list[list[Traced]], late: bool) -> None:
        (self.found,) = found
        self.curves = [Curve(tuple(traced.segments), timed_out=late) for traced in self.found]

    def refute(self, setting: Setting) -> None:
        each = first_refuted(setting.moving, self.case, self.found, setting.ways.slopes, setting.plan)
        self.curves = [replace(curve, refuted=one) for curve, one in zip(self.curves, each, strict=True)]

    def shift(self, setting: Setting) -> None:
        within = setting.ways.slopes
        each = (x.tolist() for x in rates(setting.moving, self.case, within, setting.plan.effort(False)))
        self.curves = [
            replace(c, shift=shift(c.segments, size, (low, high), within))
            for c, size, low, high in zip(self.curves, *each, strict=True)
        ]

    def follow(self, setting: Setting, constant: Constant | None) -> None:
        """Radii, where they are asked for."""
        if not self.radius:
            return
        given = setting.moving, self.inputs, self.labels, self.epsilon, self.norm, self.clip
        apart = setting.ways.meaning == "independent"
        parts = radii(*given, setting.ways.slopes, setting.plan, apart)
        parts = parts if apart else follow(*given[:4], constant, parts)
        self.curves = [replace(curve, radius=tuple(part)) for curve, part in zip(self.curves, parts, strict=True)]

    def told(self) -> dict[str, Any]:
        each = zip(self.labels.tolist(), self.predicted, self.curves, strict=True)
        return {
            "curve": None,
            "inputs": tuple(InputCurve(i, int(label), *rest) for i, (label, *rest) in enumerate(each)),
        }

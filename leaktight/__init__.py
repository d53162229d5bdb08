"""Formal verification of certified robustness for (Leaky) ReLU networks.

>>> import leaktight as lt
>>> network = lt.load("leaktight/data/digits.onnx")
>>> property = lt.read_property("leaktight/data/digits-proved.vnnlib")
>>> lt.prove(network, property).status.value
'proved'

Names are imported when they are first used, so that ``import leaktight`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from leaktight.version import __version__

if TYPE_CHECKING:
    from leaktight.errors import InputError, InternalError, LeaktightError
    from leaktight.models.inspect import Inspection, inspect
    from leaktight.models.load import load
    from leaktight.models.network import Network
    from leaktight.models.normalise import normalised
    from leaktight.specs.data import LabelledData, read_data
    from leaktight.specs.property import Property, robust
    from leaktight.specs.region import Norm, Region
    from leaktight.specs.vnnlib import parse_property, read_property
    from leaktight.verify.bounds.engine import Bounds, bound
    from leaktight.verify.certification import Certification
    from leaktight.verify.certified_radius import certified_radius
    from leaktight.verify.certify import certify
    from leaktight.verify.leak.leak import leak, leak_of_data
    from leaktight.verify.leak.result import LeakResult
    from leaktight.verify.lipschitz.bound import LipschitzBound
    from leaktight.verify.lipschitz.lipschitz import lipschitz
    from leaktight.verify.prove import prove
    from leaktight.verify.report.render import report
    from leaktight.verify.tighten import least_margin
    from leaktight.verify.verdict import Counterexample, Guarantee, Margin, Status, Verdict

__all__ = [
    "Bounds",
    "Certification",
    "Counterexample",
    "Guarantee",
    "InputError",
    "Inspection",
    "InternalError",
    "LabelledData",
    "LeakResult",
    "LeaktightError",
    "LipschitzBound",
    "Margin",
    "Network",
    "Norm",
    "Property",
    "Region",
    "Status",
    "Verdict",
    "__version__",
    "bound",
    "certified_radius",
    "certify",
    "inspect",
    "leak",
    "leak_of_data",
    "least_margin",
    "lipschitz",
    "load",
    "normalised",
    "parse_property",
    "prove",
    "read_data",
    "read_property",
    "report",
    "robust",
]

_HOMES = {
    "leaktight.errors": ("InputError", "InternalError", "LeaktightError"),
    "leaktight.models.inspect": ("Inspection", "inspect"),
    "leaktight.models.load": ("load",),
    "leaktight.models.network": ("Network",),
    "leaktight.models.normalise": ("normalised",),
    "leaktight.specs.data": ("LabelledData", "read_data"),
    "leaktight.specs.property": ("Property", "robust"),
    "leaktight.specs.region": ("Norm", "Region"),
    "leaktight.specs.vnnlib": ("parse_property", "read_property"),
    "leaktight.verify.bounds.engine": ("Bounds", "bound"),
    "leaktight.verify.certification": ("Certification",),
    "leaktight.verify.certified_radius": ("certified_radius",),
    "leaktight.verify.certify": ("certify",),
    "leaktight.verify.leak.leak": ("leak", "leak_of_data"),
    "leaktight.verify.leak.result": ("LeakResult",),
    "leaktight.verify.lipschitz.bound": ("LipschitzBound",),
    "leaktight.verify.lipschitz.lipschitz": ("lipschitz",),
    "leaktight.verify.prove": ("prove",),
    "leaktight.verify.report.render": ("report",),
    "leaktight.verify.tighten": ("least_margin",),
    "leaktight.verify.verdict": ("Counterexample", "Guarantee", "Margin", "Status", "Verdict"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'leaktight' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

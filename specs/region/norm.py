"""The norms that balls are measured in."""

from __future__ import annotations

from enum import Enum

from leaktight.errors import PropertyError


class Norm(Enum):
    """The norms that balls are measured in."""

    LINF = "inf"
    L2 = "2"
    L1 = "1"

    @classmethod
    def named(cls, name: object) -> Norm:
        """The norm called ``inf``, ``2`` or ``1`` (a number or a string)."""
        words = {
            "inf": cls.LINF,
            "linf": cls.LINF,
            "2": cls.L2,
            "2.0": cls.L2,
            "l2": cls.L2,
            "1": cls.L1,
            "1.0": cls.L1,
            "l1": cls.L1,
        }
        found = words.get(str(name.value if isinstance(name, Norm) else name).lower())
        if found is None:
            raise PropertyError(f"norm {name!r} is not known; allowed: inf, 2, 1")
        return found

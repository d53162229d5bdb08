"""A first proof and a first refutation."""

from __future__ import annotations

from leaktight.answer import Answer
from leaktight.progress import stages


def demo() -> Answer:
    """A first proof and a first refutation."""
    from leaktight.demo import demo as show

    with stages() as progress:
        found = show(progress)
    if not found["as_expected"]:
        raise RuntimeError("the demo's properties did not come out as proved and refuted; run 'leaktight doctor'")
    return Answer(found, "the first property is proved, the second refuted; next: leaktight verify NETWORK PROPERTY")

"""What is supported."""

from __future__ import annotations

from leaktight.answer import Answer


def ops() -> Answer:
    """What is supported.

    The ONNX operators that can be read, and what each engine does with what they become.
    """
    from leaktight.capabilities import operators

    found = operators()
    engines = ", ".join((*found["searches"], *found["engines"]))
    return Answer(found, f"{len(found['onnx'])} ONNX operators; engines: {engines}")

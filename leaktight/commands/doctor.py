"""Is this installation sound?"""

from __future__ import annotations

from leaktight.answer import Answer


def doctor() -> Answer:
    """Is this installation sound?

    Looks at versions and the runtime, and runs proofs whose verdicts are known. Exits with 1 if anything is wrong.
    """
    from leaktight.doctor import doctor as examine

    found = examine()
    failed = [check["name"] for check in found["checks"] if not check["ok"]]
    if failed:
        return Answer(found, f"this installation is not sound: {', '.join(failed)}", 1)
    return Answer(found, "this installation is sound")

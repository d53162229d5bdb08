"""Jobs in parts: the verdict of the whole, by whatever workers; the rest is given up once the answer is known."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from runs import Document, Inline, hard, wanted

from leaktight.errors import UsageError
from leaktight.verify.run.pipeline import pipeline
from leaktight.verify.run.suite import read_toml
from leaktight.verify.run.whole import Token, Whole

SUITE = """\
[networks]
n = "net.onnx"
[[verify]]
name = "whole"
network = "n"
property = "hard.vnnlib"
[[verify]]
name = "in parts"
network = "n"
property = "hard.vnnlib"
split = 6
"""


def check_parts(found: Document) -> None:
    whole, parts = found["jobs"]
    assert whole["status"] == parts["status"] == "proved"
    assert parts["result"]["statistics"]["parts"] == 6
    assert 0 < parts["result"]["margin"]["lower"] <= whole["result"]["margin"]["upper"]
    assert parts["result"]["schema"] == whole["result"]["schema"]
    assert set(parts["result"]) == set(whole["result"])


def test_a_job_in_parts_has_the_verdict_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaktight.verify.run.runner.Pool", Inline)
    suite = hard(tmp_path, SUITE)
    found, _, code = pipeline(wanted(suite))
    check_parts(found)
    assert code == 0
    again, _, _ = pipeline(wanted(suite, resume=True))
    assert all(job["cached"] for job in again["jobs"]), "only the whole is recorded, under its own question"


@pytest.mark.slow
def test_worker_processes_share_a_job(tmp_path: Path) -> None:
    found, _, code = pipeline(wanted(hard(tmp_path, SUITE), workers=2))
    check_parts(found)
    assert code == 0


def verdict(status: str, lower: float | None = 0.5) -> Document:
    document: Document = {
        "status": status,
        "margin": {"lower": lower, "upper": 1.0},
        "reason": status,
        "statistics": {"domains": 1},
        "counterexample": {"inputs": {}} if status == "refuted" else None,
    }
    return {"document": document, "identity": "i"}


def divided(parts: int, timeout: float = 60.0) -> Whole:
    """A job whose division left so many parts."""
    whole = Whole("k", {"kind": "verify", "question": {"timeout": timeout, "split": parts}}, time.monotonic())
    assert whole.first["kind"] == "divide"
    begun = verdict("unknown", 2.0)["document"]
    whole.take(None, {"document": {"begun": begun, "parts": [{"case": n} for n in range(parts)]}, "identity": "i"})
    return whole


def test_a_counterexample_ends_the_other_parts() -> None:
    whole = divided(3)
    first, second = whole.next(), whole.next()
    assert first is not None
    assert second is not None
    assert (second[0], second[1]["part"]) == (Token("k", 1), {"case": 1})
    assert 0 < second[1]["question"]["timeout"] <= 60.0
    whole.take(0, verdict("refuted", None))
    assert whole.reply is not None
    assert whole.reply["document"]["status"] == "refuted"
    assert whole.reply["document"]["counterexample"] is not None
    assert whole.tokens == [Token("k", 1)], "what is to be given up"


def test_the_answer_waits_for_every_part() -> None:
    whole = divided(2)
    for _ in range(2):
        assert whole.next() is not None
    assert whole.next() is None
    whole.take(1, verdict("proved", 0.25))
    assert whole.reply is None
    whole.take(0, verdict("proved", 0.75))
    assert whole.reply is not None
    assert whole.reply["document"]["status"] == "proved"
    assert whole.reply["document"]["margin"]["lower"] == 0.25


def test_a_part_that_is_answered_twice_stands_for_no_other() -> None:
    whole = divided(3)
    for _ in range(3):
        whole.next()
    for part in (0, 1, 1):
        whole.take(part, verdict("proved"))
    assert whole.reply is None
    whole.take(2, verdict("unknown"))
    assert whole.reply is not None
    assert whole.reply["document"]["status"] == "unknown"


def test_an_error_of_a_part_is_the_jobs_and_never_unknown() -> None:
    whole = divided(2)
    whole.next()
    whole.take(0, {"error": {"kind": "crash", "message": "gone"}})
    assert whole.reply == {"error": {"kind": "crash", "message": "gone"}}


def test_parts_that_were_never_asked_are_no_proof() -> None:
    whole = divided(2, timeout=0.05)
    whole.next()
    time.sleep(0.06)
    assert whole.next() is None, "the time is up"
    whole.expire()
    assert whole.reply is None, "a part is still being answered"
    whole.take(0, verdict("proved", 0.5))
    assert whole.reply is not None
    assert whole.reply["document"]["status"] == "timeout"
    late = divided(2, timeout=0.0)
    late.expire()
    assert late.reply is not None
    assert late.reply["document"]["status"] == "timeout"


class Losing(Inline):
    """Workers of which the one with the third part is always lost."""

    def give(self, worker: object, token: Any, task: Document) -> None:
        if getattr(token, "part", None) == 2:
            self.replies.append((token, {"error": {"kind": "crash", "message": "killed"}}))
        else:
            super().give(worker, token, task)


def test_a_run_names_what_became_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaktight.verify.run.runner.Pool", Losing)
    found, _, code = pipeline(wanted(hard(tmp_path, SUITE)))
    assert [job["status"] for job in found["jobs"]] == ["proved", "error"]
    assert found["jobs"][1]["error"] == {"kind": "crash", "message": "killed"}
    assert code == 70


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("split = 1", "verify[1].split: input should be greater than or equal to 2; got 1"),
        ('split = 4\nengine = "crown"', "verify[1].split: only the engines auto, branch, milp split a property"),
        ("splits = 4", "verify[1].splits: there is no such key; did you mean 'split'?"),
        ("resources = { cpu = 0 }", "verify[1].resources: 0 is not positive; write how much a worker needs"),
        ('resources = { memory = "much" }', "verify[1].resources: 'much' is not a finite number"),
    ],
)
def test_what_parts_and_resources_may_be(line: str, message: str, tmp_path: Path) -> None:
    suite = hard(tmp_path, f'[networks]\nn = "net.onnx"\n[[verify]]\nnetwork = "n"\nproperty = "hard.vnnlib"\n{line}\n')
    with pytest.raises(UsageError) as caught:
        read_toml(suite)
    assert message in str(caught.value)


def test_resources_are_no_part_of_the_question(tmp_path: Path) -> None:
    suite = hard(
        tmp_path,
        '[networks]\nn = "net.onnx"\n[[verify]]\nnetwork = "n"\nproperty = "hard.vnnlib"\n'
        'resources = { cpu = 2, memory = "1.5GiB", lasso = 1 }\n',
    )
    (job,) = read_toml(suite).jobs
    assert job.resources == {"cpu": 2.0, "memory": 1.5 * 2**30, "lasso": 1.0}
    assert "resources" not in job.question


def test_a_cluster_without_ray_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("cluster", "remote"):
        monkeypatch.delitem(sys.modules, f"leaktight.verify.run.{name}", raising=False)
        monkeypatch.delattr(f"leaktight.verify.run.{name}", raising=False)
    with pytest.raises(UsageError, match=r"Ray is not installed; pip install 'leaktight\[cluster\]'"):
        pipeline(wanted(hard(tmp_path, SUITE), cluster="local"))

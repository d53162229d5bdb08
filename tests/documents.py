"""Documents as the commands write them, with numbers as real ones have: for tests of what is made of them."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any

Document = dict[str, Any]
DIGEST = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
_STATUSES = ("proved", "refuted", "unknown", "timeout")


def source(path: str, digest: str = DIGEST) -> Document:
    return {"path": path, "sha256": digest}


def common(*arguments: str) -> Document:
    """What every document has that a command wrote."""
    return {
        "engine": "auto",
        "guarantee": "real",
        "seconds": 0.412345,
        "network": source("nets/digits.onnx"),
        "version": "0.1.0",
        "command": ["leaktight", *arguments, "--format", "json", "-o", "result.json"],
        "versions": {"python": "3.11.9", "torch": "2.8.0", "numpy": "2.1.0", "onnxruntime": "1.20.1"},
    }


def verdict(status: str = "proved", lower: float | None = 15.48489, upper: float | None = 18.35081) -> Document:
    example = {"inputs": {"image": [[0.1, 0.25, 0.5]]}, "outputs": {"scores": [[1.25, -3.5]]}}
    return {
        **common("verify", "nets/digits.onnx", "specs/a.vnnlib"),
        "schema": "leaktight.verdict/1",
        "status": status,
        "margin": {"lower": lower, "upper": upper},
        "counterexample": example if status == "refuted" else None,
        "reason": "the margin is at least 15.4848 on the whole region",
        "statistics": {"domains": 1},
        "property": source("specs/a.vnnlib", "0" * 64),
    }


def certification(count: int = 40, *, radius: bool = True, seed: int = 0) -> Document:
    """Labelled inputs of all four statuses."""
    random_ = random.Random(seed)
    inputs = []
    for index in range(count):
        lower = random_.gauss(5.0, 4.0)
        status = "proved" if lower > 0 else random_.choice(_STATUSES[1:])
        label = random_.randrange(10)
        upper = -random_.random() if status == "refuted" else max(lower, 0.0) + random_.uniform(0.1, 3.0)
        inputs.append(
            {
                "index": index,
                "label": label,
                "predicted": label if random_.random() < 0.97 else (label + 1) % 10,
                "status": status,
                "margin": {"lower": lower if status != "timeout" else None, "upper": upper},
                "radius": max(0.0, 0.03 * min(1.0, 1 + lower / 8)) if radius else None,
                "seconds": round(random_.uniform(0.01, 0.2), 6),
            }
        )
    total = max(1, count)
    return {
        **common("certify", "nets/digits.onnx", "data/digits.npz", "--epsilon", "0.03"),
        "schema": "leaktight.certification/1",
        "inputs": inputs,
        "accuracy": {
            "clean": sum(found["label"] == found["predicted"] for found in inputs) / total,
            "certified": sum(found["status"] == "proved" for found in inputs) / total,
            "attacked": sum(found["status"] != "refuted" for found in inputs) / total,
        },
        "epsilon": 0.03,
        "norm": "inf",
        "data": source("data/digits.npz", "1" * 64),
    }


def bounds(outputs: int = 10) -> Document:
    random_ = random.Random(1)
    lower = [random_.gauss(0.0, 4.0) for _ in range(outputs)]
    return {
        **common("bounds", "nets/digits.onnx", "specs/a.vnnlib"),
        "schema": "leaktight.bounds/1",
        "outputs": {"scores": {"lower": lower, "upper": [low + random_.uniform(0.5, 6.0) for low in lower]}},
        "regions": 1,
        "property": source("specs/a.vnnlib", "0" * 64),
    }


def lipschitz(upper: float | None = 48.0811234, *, method: str = "lipsdp", radius: float | None = None) -> Document:
    """A global constant over slopes too, or one in a ball."""
    ball = {"scope": "local", "radius": radius, "center": {"sha256": "3" * 64}}
    return {
        **common("lipschitz", "nets/digits.onnx"),
        "schema": "leaktight.lipschitz/1",
        "norm": "2",
        "upper": upper,
        "lower": 20.5,
        "gap": None if upper is None else upper / 20.5 - 1,
        "pattern": 41.25,
        "method": method,
        "engine": method,
        "bounds": {"product": 96.5, method: upper},
        "timed_out": False,
        **({"scope": "global"} if radius is None else ball),
        "curve": [{"slopes": [0.0, 0.5], "upper": upper}, {"slopes": [0.5, 1.0], "upper": 30.0}],
    }


def found(start: float = 4.2, fall: float = 21.0, *, segments: int = 16, seed: int = 0) -> Document:
    """What is known of one margin over slopes 0 to 0.3: it falls from `start`, by about `fall` per unit."""
    random_ = random.Random(seed)
    ends = [0.3 * place / segments for place in range(segments + 1)]
    lower = [start - fall * a + 12.0 * a * a - 0.05 - 0.4 * a for a in ends]
    upper = [start - fall * a + 12.0 * a * a + random_.uniform(0.05, 0.3) for a in ends]
    curve = [
        {"slopes": [a, b], "lower": [lower[place], lower[place + 1]], "upper": [upper[place], upper[place + 1]]}
        for place, (a, b) in enumerate(pairwise(ends))
    ]
    proved = next((place for place, value in enumerate(lower) if value <= 0), segments + 1) - 1
    refuted = next((place for place, value in enumerate(upper) if value <= 0), None)
    proved_up_to = ends[proved] if proved >= 0 else None
    last = ends[refuted] if refuted is not None else 0.3
    drop = lower[-1] - upper[0]
    return {
        "status": "proved" if proved == segments else "unknown" if refuted is None else "refuted",
        "curve": curve,
        "proved_up_to": proved_up_to,
        "refuted_from": None if refuted is None else ends[refuted],
        "open": [[proved_up_to or 0.0, last]] if proved < segments and last > (proved_up_to or 0.0) else [],
        "shift": {
            "change": [drop, drop + 0.9],
            "closed_form": {"rate": 93.71234567},
            "local": {"rate": [-24.5123456, 1.75]},
            "parametric": [
                {"slopes": [a, b], "change": [drop * b / 0.3 - 0.2, drop * b / 0.3 + 0.9]} for a, b in pairwise(ends)
            ],
        },
        "radius": [
            {"slopes": [a, b], "radius": max(0.0, 0.011 + 0.0021 * lower[place])}
            for place, (a, b) in enumerate(pairwise(ends))
        ],
    }


def signal(layers: int = 3) -> Document:
    """The factors of each layer at the slopes 0, 0.1 and 0.3."""
    return {
        "slopes": [0.0, 0.1, 0.3],
        "layers": [
            {
                "node": f"/layers.{2 * layer + 1}/LeakyRelu",
                "entries": 100,
                "fan_in": 784 if layer == 0 else 100,
                "weight_variance": 0.00174321 + 0.011 * layer,
                "at": [
                    {
                        "slope": a,
                        "expected_gradient": (1 + a) / 2,
                        "gradient_variance": (1 - a) ** 2 / 4,
                        "squared_norm": (1 + a * a) / 2,
                        "preserving_variance": 2 / ((784 if layer == 0 else 100) * (1 + a * a)),
                        "active": 0.41,
                        "inactive": 0.37 - 0.02 * layer,
                        "unstable": 0.22 + 0.02 * layer,
                    }
                    for a in (0.0, 0.1, 0.3)
                ],
            }
            for layer in range(layers)
        ],
    }


def _leak(*arguments: str) -> Document:
    return {
        **common("leak", *arguments, "--slopes", "0:0.3"),
        "schema": "leaktight.leak/1",
        "slopes": [0.0, 0.3],
        "leak": "shared",
        "nodes": [f"/layers.{2 * layer + 1}/LeakyRelu" for layer in range(3)],
        "own_slopes": [0.1, 0.1],
        "tolerance": 0.05,
        "signal": signal(),
        "statistics": {"segments": 16, "bounds": 96},
        "interrupted": False,
    }


def leak(**settings: Any) -> Document:
    """The leak of one property; by default it is proved up to a slope, and refuted beyond another."""
    result = {**_leak("nets/digits.onnx", "specs/a.vnnlib"), **found(**settings)}
    example = {"slope": result["refuted_from"], "inputs": {"image": [[0.1, 0.25]]}, "outputs": {"scores": [[1.0, 2.5]]}}
    result["counterexample"] = None if result["refuted_from"] is None else example
    result["property"] = source("specs/a.vnnlib", "0" * 64)
    return result


def leak_over_data(count: int = 30, *, segments: int = 8, seed: int = 0) -> Document:
    """The leak of labelled inputs, of which some are proved for every slope and some are not."""
    random_ = random.Random(seed)
    inputs = []
    for index in range(count):
        label = random_.randrange(10)
        margins = found(random_.gauss(6.0, 3.0), random_.uniform(-2.0, 22.0), segments=segments, seed=index)
        inputs.append({"index": index, "label": label, "predicted": label, **margins})
    accuracy = []
    for place in range(segments):
        start, end = 0.3 * place / segments, 0.3 * (place + 1) / segments
        held = sum(min(record["curve"][place]["lower"]) > 0 for record in inputs)
        kept = sum(min(record["curve"][place]["upper"]) > 0 for record in inputs)
        accuracy.append({"slopes": [start, end], "certified": held / count, "attacked": kept / count})
    return {
        **_leak("nets/digits.onnx", "--data", "data/digits.npz", "--epsilon", "0.01"),
        "inputs": inputs,
        "accuracy": accuracy,
        "status": "refuted",
        "epsilon": 0.01,
        "norm": "inf",
        "data": source("data/digits.npz", "1" * 64),
    }


def job(name: str, result: Document | None, *, passes: bool, network: str = "nets/digits.onnx") -> Document:
    """A job of a run; without a result, one whose worker was killed."""
    found = (
        [] if result is None else [result["status"]] if "status" in result else [r["status"] for r in result["inputs"]]
    )
    status = next((word for word in ("refuted", "timeout", "unknown", "proved") if word in found), "error")
    return {
        "name": name,
        "kind": "verify",
        "tags": ["nightly"],
        "status": status,
        "passes": passes,
        "network": {"path": network, "digest": DIGEST},
        "files": {"property": f"specs/{name}.vnnlib"},
        "question": {"timeout": 60.0, "engine": "auto"},
        "place": {"path": "suite.toml", "line": 7},
        "assertion": {"path": f"specs/{name}.vnnlib", "line": 12} if status in ("refuted", "unknown") else None,
        "requires": [],
        "error": None if result is not None else {"kind": "crash", "message": "the worker was killed by SIGKILL"},
        "seconds": 0.25,
        "cached": False,
        "result": result,
    }


def run(count: int = 8, *, networks: int = 2) -> Document:
    """A run of `count` jobs of all statuses, of which the refuted and those with errors do not pass."""
    jobs, failures = [], []
    for place in range(count):
        status = ("proved", "refuted", "unknown", "timeout", None)[place % 5]
        lower, upper = (15.5 + place, 18.25) if status == "proved" else (-2.5 - place, -1.25)
        result = None if status is None else verdict(status, lower, upper)
        jobs.append(job(f"p{place}", result, passes=place % 5 not in (1, 4), network=f"nets/{place % networks}.onnx"))
        if place % 5 in (1, 4):
            rule = "refuted" if status else "error"
            failures.append({"job": f"p{place}", "rule": rule, "message": f"{rule}: see there", "about": ""})
    if count > 1:
        failures.append(
            {"job": "p0", "rule": "regression", "message": "margin, proven fell from 17 to 15.5 (by 1.5)", "about": "m"}
        )
        jobs[0]["passes"] = False
    counts = Counter(one["status"] for one in jobs)
    worse = {"job": "p0", "entry": "the property", "number": "margin, proven", "before": 17.0, "after": 15.5}
    return {
        "schema": "leaktight.run/1",
        "suite": source("suite.toml", "2" * 64),
        "jobs": jobs,
        "counts": {word: counts[word] for word in (*_STATUSES, "done", "error")},
        "gate": {"fail_on": ["refuted", "regression"], "chosen": True, "passed": not failures, "failures": failures},
        "baseline": {
            "path": "old.json",
            "tolerance": 0.01,
            "regressions": [worse] if count > 1 else [],
            "missing": ["gone"],
            "added": [],
        },
        "ledger": "sqlite:///.leaktight/ledger.sqlite",
        "seconds": 12.5,
        "interrupted": False,
        "version": "0.1.0",
        "command": ["leaktight", "run", "suite.toml"],
        "versions": {"python": "3.11.9"},
    }


def history() -> Document:
    """What a ledger holds of three answers."""
    records = [
        {
            "run": place,
            "name": f"p{place}",
            "status": status,
            "at": 1.7e9 + place,
            "seconds": 0.5,
            "version": "0.1.0",
            "network": DIGEST,
            "error": None if status != "error" else {"kind": "crash", "message": "gone"},
            "numbers": {} if status == "error" else {"margin, proven": 1.25, "certified accuracy": 0.5},
        }
        for place, status in enumerate(("proved", "refuted", "error"))
    ]
    return {
        "schema": "leaktight.history/1",
        "records": records,
        "ledger": "sqlite:///.l.sqlite",
        "version": "0.1.0",
        "command": ["leaktight", "history"],
        "versions": {"python": "3.11.9"},
    }

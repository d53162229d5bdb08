"""What lies beside the program: the GitHub Action, the GitLab template, the pre-commit hook and the pytest plugin."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from leaktight import cli
from leaktight.demo import IMAGES, NETWORK
from leaktight.errors import InputError
from leaktight.pytest_plugin import certify

ROOT = Path(__file__).resolve().parent.parent


def loaded(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


# Files that others' programs read, and the schemas for them that check-jsonschema brings.
SCHEMAS = {
    "action.yml": "vendor.github-actions",
    "examples/github-workflow.yml": "vendor.github-workflows",
    "examples/gitlab-ci.yml": "vendor.gitlab-ci",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_other_programs_read_is_valid_by_their_schemas(name: str) -> None:
    pytest.importorskip("check_jsonschema", reason="the schemas are not installed: pip install check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[name], str(ROOT / name)]
    if name.endswith("gitlab-ci.yml"):
        command += ["--data-transform", "gitlab-ci"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """Runs a script in which ``leaktight`` is a program that writes its arguments down; returns those."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "leaktight"
    program.write_text(
        f'#!{sys.executable}\nimport json, sys\nopen("arguments.json", "w").write(json.dumps(sys.argv[1:]))\n'
    )
    program.chmod(0o755)

    def call(script: str, **variables: str) -> list[str]:
        environment = {**os.environ, **variables, "PATH": f"{programs}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=True, cwd=tmp_path, env=environment)
        found: list[str] = json.loads((tmp_path / "arguments.json").read_text())
        return found

    return call


def refused_for_its_suite_only(arguments: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every option is one that the command line takes: all that it misses is the suite's file."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert cli.run(arguments) == 2
    finally:
        os.chdir(here)
    err = capfd.readouterr().err
    assert re.search(r"leaktight: error: .*it cannot be read \(No such file", err), err


NASTY = "my suite'; touch pwned; $(touch pwned) .toml"


def test_the_action_runs_the_suite_with_all_reports(
    shell: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    action = loaded("action.yml")
    (step,) = [step for step in action["runs"]["steps"] if step["name"] == "Run"]
    assert "${{" not in step["run"], "inputs reach the script as variables, and never as its text"
    inputs = {name: value["default"] for name, value in action["inputs"].items()}
    inputs |= {"suite": NASTY, "fail-on": "refuted", "jobs": "2"}
    names = {name: re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", text) for name, text in step["env"].items()}
    variables = {name: inputs[match[1]] for name, match in names.items() if match is not None}
    assert set(variables) == set(step["env"])
    found = shell(step["run"], **variables)
    assert found[-2:] == ["--", NASTY]
    styles = [text.split("=")[1] for text in found if text.startswith("--report=")]
    assert styles == ["html", "junit", "sarif", "md", "json"]
    assert {"--fail-on=refuted", "--jobs=2", "--resume"} <= set(found)
    assert not [text for text in found if text.startswith("--baseline")]
    assert not (tmp_path / "pwned").exists()
    refused_for_its_suite_only(found, tmp_path, capfd)


def test_the_example_workflow_gives_the_action_inputs_that_it_has() -> None:
    steps = loaded("examples/github-workflow.yml")["jobs"]["prove"]["steps"]
    (own,) = [step for step in steps if step["uses"] == "./leaktight"]
    assert set(own["with"]) <= set(loaded("action.yml")["inputs"])


def test_the_template_for_gitlab_runs_the_suite(shell: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = loaded("examples/gitlab-ci.yml")[".leaktight"]
    (install,) = job["before_script"]
    assert install.endswith('install --quiet "$INSTALL"')
    assert job["variables"]["INSTALL"] == "./leaktight"  # a name in an index may be anybody's
    found = shell("\n".join(job["script"]), SUITE=NASTY)
    assert found[:2] == ["run", NASTY]
    assert f"junit={job['artifacts']['reports']['junit']}" in found
    refused_for_its_suite_only(found, tmp_path, capfd)


def test_the_hook_for_pre_commit_runs_the_suite(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (hook,) = loaded(".pre-commit-hooks.yaml")
    (repository,) = loaded("examples/pre-commit-config.yaml")["repos"]
    assert hook["id"] == repository["hooks"][0]["id"]
    for arguments in (hook["args"], repository["hooks"][0]["args"]):
        program, *rest = [*shlex.split(hook["entry"]), *arguments]
        assert program == "leaktight"
        refused_for_its_suite_only(rest, tmp_path, capfd)


def test_a_certificate_is_an_assertion_that_holds() -> None:
    data = np.load(IMAGES)
    found = certify(NETWORK, data["x"][0], int(data["y"][0]), 0.02, clip=(0, 1))
    assert found.margin.lower is not None
    assert found.margin.lower > 0


def test_an_assertion_that_fails_says_which_input_does_it() -> None:
    data = np.load(IMAGES)
    x, label = data["x"][0].reshape(-1), int(data["y"][0])
    with pytest.raises(AssertionError) as caught:
        certify(NETWORK, x, label, 0.5, clip=(0, 1))
    told = str(caught.value).splitlines()
    other = int(told[0].rsplit(" ", 1)[1])
    assert told[0] == f"label {label} within 0.5 (norm inf) is refuted: an input in the region is classified as {other}"
    assert other != label
    moves = [re.fullmatch(r"  x\[(\d+)\]: (\S+) -> (\S+)", line) for line in told[2:7]]
    for move in moves:
        assert move is not None
        assert float(move[2]) == pytest.approx(float(x[int(move[1])]), abs=1e-5)
        assert 0 < abs(float(move[3]) - float(move[2])) <= 0.5 + 1e-5
    with pytest.raises(AssertionError, match="the input itself is misclassified"):
        certify(NETWORK, x, (label + 1) % 10, 0.0)


def failure(epsilon: float) -> str:
    """What the assertion says with the weakest engine; nothing where it holds."""
    data = np.load(IMAGES)
    try:
        certify(NETWORK, data["x"][0], int(data["y"][0]), epsilon, engine="interval")
    except AssertionError as error:
        return str(error)
    return ""


def test_what_is_not_decided_is_not_called_refuted() -> None:
    told = [failure(epsilon) for epsilon in (0.06, 0.08, 0.1, 0.12)]
    open_ = [text for text in told if text and "is refuted" not in text]
    assert open_
    for text in open_:
        assert "is neither proved nor refuted (unknown): the margin is proven to be at least -" in text


def test_arguments_that_make_no_sense_are_no_failures() -> None:
    with pytest.raises(InputError):
        certify(NETWORK, np.zeros(64), 99, 0.1)


def test_the_fixture_and_the_example_run_in_pytest(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["leaktight.pytest_plugin"]\n')
    (tmp_path / "test_own.py").write_text(
        f"import numpy as np\ndef test_own(certify):\n    data = np.load({str(IMAGES)!r})\n"
        f"    certify({str(NETWORK)!r}, data['x'][0], int(data['y'][0]), 0.5)\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    command.append(str(ROOT / "examples" / "test_certificates.py"))
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert "1 failed, 3 passed" in found.stdout, found.stdout + found.stderr
    assert "is refuted: an input in the region is classified as" in found.stdout
    assert "pytest_plugin.py" not in found.stdout.split("short test summary")[0], (
        "the failure is shown where the test is"
    )

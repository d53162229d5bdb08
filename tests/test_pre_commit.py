"""The hook, run by pre-commit itself from a clone: it proves what a commit changes, and stops what makes it worse."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_pipeline import worse

from leaktight import cli
from leaktight.demo import NETWORK

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".git", ".venv", ".leaktight", "*.egg-info", "build", "dist", "site", "__pycache__", ".*_cache", "shared")
SETTINGS = {
    "GIT_AUTHOR_NAME": "somebody",
    "GIT_AUTHOR_EMAIL": "somebody@example.org",
    "GIT_COMMITTER_NAME": "somebody",
    "GIT_COMMITTER_EMAIL": "somebody@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


def git(folder: Path, *arguments: str) -> str:
    found = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, env={**os.environ, **SETTINGS}
    )
    return found.stdout


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A repository with a network and the example's configuration, beside a repository of leaktight with its tag."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    if importlib.util.find_spec("pre_commit") is None:
        pytest.skip("pre-commit is not installed: pip install pre-commit")
    (config,) = yaml.safe_load((ROOT / "examples/pre-commit-config.yaml").read_text())["repos"]
    own, user = tmp_path / "leaktight", tmp_path / "user"
    shutil.copytree(ROOT, own, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    user.mkdir()
    for folder in (own, user):
        git(folder, "init", "--quiet", ".")
    git(own, "add", ".")
    git(own, "commit", "--quiet", "--message", "all")
    git(own, "tag", config["rev"])
    assert config["repo"] == "../leaktight"
    shutil.copy(ROOT / "examples/pre-commit-config.yaml", user / ".pre-commit-config.yaml")
    shutil.copy(NETWORK, user / "net.onnx")
    return user


class Hooks:
    """pre-commit in a repository, without a package index: what leaktight needs is taken from where these tests run."""

    def __init__(self, user: Path) -> None:
        self.user, self.home = user, user.parent / "home"
        self.packages = sysconfig.get_path("purelib")

    def call(self, *arguments: str, **more: str) -> tuple[int, str]:
        clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GITHUB_ACTIONS")}
        environment = {**clean, **SETTINGS, "PRE_COMMIT_HOME": str(self.home), **more}
        found = subprocess.run(
            [sys.executable, "-m", "pre_commit", *arguments],
            cwd=self.user,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        return found.returncode, found.stdout

    def install(self) -> Path:
        """Makes the hook's own environment; returns where leaktight lies in it."""
        offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PYTHONPATH": self.packages}
        code, said = self.call("install-hooks", **offline)
        assert code == 0, said
        (place,) = self.home.glob("*/py_env-*/lib/python*/site-packages")
        (place / "others.pth").write_text(f"{self.packages}\n")
        return place / "leaktight"

    def run(self) -> tuple[int, str]:
        git(self.user, "add", ".")
        return self.call("run", "--verbose")


@pytest.mark.slow
def test_a_commit_is_proved_by_the_hook_and_a_worse_network_is_stopped(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user)
    assert cli.run(["init", "."]) == 0
    hooks = Hooks(user)
    installed = hooks.install()
    assert (installed / "verify" / "run" / "runner.py").is_file()
    code, said = hooks.run()
    assert code == 0, said
    assert re.search(r"^leaktight\.+Passed$", said, re.MULTILINE)
    assert "leaktight: 1 job: " in said
    assert ".leaktight" not in git(user, "status", "--short"), "the ledger is not for version control"
    git(user, "commit", "--quiet", "--message", "a network that is proved")

    (user / "README").write_text("nothing of this is proved\n")
    code, said = hooks.run()
    assert re.search(r"^leaktight\.+\(no files to check\)Skipped$", said, re.MULTILINE), said

    worse(user / "net.onnx")
    code, said = hooks.run()
    assert code == 1
    assert re.search(r"^leaktight\.+Failed$", said, re.MULTILINE), said
    assert "- exit code: 1" in said
    assert "the gate FAILED: certify net leaktight-samples-net.npz epsilon=0.01: clean_accuracy >= 1.0: it is" in said

    git(user, "checkout", "--quiet", "HEAD", "--", "net.onnx")
    (user / "leaktight.toml").write_text((user / "leaktight.toml").read_text() + "# the same\n")
    code, said = hooks.run()
    assert code == 0, said
    assert "1 of them from the ledger" in said, "what was proved before is not proved again"


@pytest.mark.parametrize(
    ("name", "read"),
    [
        *((name, True) for name in ("a.onnx", "a/b.onnx.gz", "a.pt2", "a.pt", "a.pth", "a.vnnlib", "a.vnnlib.gz")),
        *((name, True) for name in ("x.npz", "x.csv", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte.gz", "s.toml")),
        *((name, False) for name in ("README.md", "onnx", "a.onnx.bak", "main.py", "photo.png")),
    ],
)
def test_the_hook_looks_at_files_that_suites_name(name: str, read: bool) -> None:
    hook: Any = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())[0]
    assert bool(re.search(hook["files"], name)) == read

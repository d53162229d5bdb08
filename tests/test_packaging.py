"""What is built from this repository is what users get."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "leaktight"
ROOMS = ("models", "specs", "verify")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of a copy of the repository, and the wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "copy"
    skip = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "__pycache__")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=skip)
    found = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return folder


def modules() -> set[str]:
    """Every module that the wheel must hold, as a path in the wheel."""
    rooms = {f"leaktight/{path.relative_to(ROOT).as_posix()}" for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    own = [path for place in ("*.py", "commands/*.py") for path in (ROOT / "leaktight").glob(place)]
    return rooms | {path.relative_to(ROOT).as_posix() for path in own}


def test_the_wheel_holds_one_package_with_every_module_and_the_demo(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        links = [entry.filename for entry in archive.infolist() if (entry.external_attr >> 16) & 0o170000 == 0o120000]
    data = {f"leaktight/data/{path.name}" for path in (ROOT / "leaktight" / "data").iterdir()}
    assert len(data) == 4
    templates = {
        f"leaktight/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "verify/report/templates").iterdir()
    }
    assert len(templates) == 4
    assert set(names) == modules() | data | templates | {"leaktight/py.typed"}
    assert not links
    assert wheel.stat().st_size < 1 << 20


def test_the_sdist_holds_the_same_modules(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        entries = {name.partition("/")[2]: entry for name, entry in ((e.name, e) for e in archive.getmembers())}
    assert modules() <= set(entries)
    assert {"LICENSE", "README.md", "pyproject.toml"} <= set(entries)
    assert not [name for name, entry in entries.items() if entry.issym()]


def test_the_metadata_say_what_is_needed(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
        (entries,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/entry_points.txt"))
    from leaktight.version import __version__

    assert f"\nVersion: {__version__}\n" in metadata
    assert "License-Expression: MIT" in metadata
    assert "leaktight = leaktight.__main__:main" in entries
    assert "Requires-Dist: auto" not in metadata  # it would replace torch by an old one


def test_every_folder_of_the_rooms_is_a_listed_package() -> None:
    settings = (ROOT / "pyproject.toml").read_text().partition("[tool.setuptools.dynamic]")[0]
    listed = set(re.findall(r'"(leaktight[a-z_.]*)"', settings))
    folders = {
        "leaktight." + path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    folders |= {
        "leaktight." + path.parent.name
        for path in (ROOT / "leaktight").glob("*/__init__.py")
        if path.parent.name not in ROOMS
    }
    assert folders | {"leaktight"} <= listed
    assert all(
        (PACKAGE / name.removeprefix("leaktight.").replace(".", "/") / "__init__.py").exists() for name in folders
    )


@pytest.mark.parametrize("name", ["pyproject.toml", "Makefile", ".ci/run"])
def test_what_installs_names_no_host(name: str) -> None:
    """Where packages come from is the user's setting."""
    assert not re.search(r"://|index-url|find-links", (ROOT / name).read_text())


def test_the_version_is_read_without_importing_torch() -> None:
    code = "import sys; from leaktight.version import __version__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_wheel_installs_in_a_new_environment_and_proves_the_demo(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    bin_folder = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([str(bin_folder / "python"), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    found = subprocess.run(
        [str(bin_folder / "leaktight"), "demo"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "the counterexample, read as" in found.stdout
    for bare in ROOMS:
        alone = subprocess.run(
            [str(bin_folder / "python"), "-c", f"import {bare}"], cwd=tmp_path, capture_output=True, check=False
        )
        assert alone.returncode == 1

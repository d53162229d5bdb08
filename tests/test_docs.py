"""Every command and every Python block of the documents runs, and shows what the documents say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from math import isclose
from pathlib import Path

import pytest
import typer
import yaml

import leaktight as lt
from leaktight import cli
from leaktight.verify.run.suite import read_toml

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> Iterator[tuple[str, str, list[str]]]:
    """Every command line of the documents, what it is said to print, and the earlier lines of its page that write what
    it reads. Without help, which is compared by words."""
    for page in PAGES:
        wrote: dict[str, str] = {}
        for block in blocks(page, "console"):
            for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                line, _, expected = command.partition("\n")
                if not line.endswith("--help"):
                    words = shlex.split(line)
                    yield line, expected, [wrote[word] for word in words if word in wrote]
                    wrote.update({words[words.index("-o") + 1]: line} if "-o" in words else {})
                    reports = [after for word, after in pairwise(words) if word == "--report"]
                    wrote.update({report.partition("=")[2]: line for report in reports})


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the paths that the documents use, in which files may appear."""
    for name in ("leaktight", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shows(expected: str, found: str) -> bool:
    """Whether `found` is `expected`, where ``...`` stands for anything, blanks do not count, and decimals may differ by
    one per cent: bounds get better."""
    pattern, numbers = "", []
    for piece in re.split(r"(\.\.\.|\s+|-?\d+\.\d+(?:e-?\d+)?)", expected.strip()):
        if piece == "...":
            pattern += r"[\s\S]*?"
        elif piece.isspace():
            pattern += r"\s+"
        elif NUMBER.fullmatch(piece):
            pattern += f"({NUMBER.pattern}|-?\\d+)"
            numbers.append(float(piece))
        else:
            pattern += re.escape(piece)
    match = re.fullmatch(pattern, found.strip())
    if match is None:
        return False
    return all(isclose(a, float(b), rel_tol=0.01) for a, b in zip(numbers, match.groups(), strict=True))


@pytest.mark.parametrize(("line", "expected", "before"), list(commands()))
def test_commands_print_what_the_documents_show(
    line: str, expected: str, before: list[str], checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for command in [*before, line]:
        program, *arguments = shlex.split(command)
        assert program == "leaktight"
        code = cli.run(arguments)
        found = capfd.readouterr()
        assert code in (0, 1, 3), found.err
    assert shows(expected, found.out), f"{line} prints now:\n{found.out}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run_one_after_the_other(page: Path, checkout: Path) -> None:
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


def test_every_block_is_of_a_kind_that_a_test_runs() -> None:
    for page in PAGES:
        for language, block in re.findall(r"^ *```([^\n]*)\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE):
            opening = {"console": "$ leaktight ", "": "make "}.get(language, "")
            assert language in ("console", "python", "toml", "yaml", ""), f"{page.name}: {language}"
            assert block.startswith(opening), f"{page.name}: {block}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=lambda page: page.name)
def test_suites_are_read_where_their_files_exist(page: Path, checkout: Path) -> None:
    (checkout / "specs").mkdir()
    for name in ("digits", "photos", "controller"):
        (checkout / f"{name}.onnx").symlink_to(ROOT / "leaktight" / "data" / "digits.onnx")
    for name in ("specs/a.vnnlib", "hard.vnnlib"):
        (checkout / name).symlink_to(ROOT / "leaktight" / "data" / "digits-proved.vnnlib")
    (checkout / "images.npz").symlink_to(ROOT / "leaktight" / "data" / "digits.npz")
    suite = checkout / "suite.toml"
    for block in blocks(page, "toml"):
        suite.write_text(block)
        assert read_toml(suite).jobs


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.name)
def test_pieces_for_pipelines_name_what_there_is(page: Path) -> None:
    inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    variables = yaml.safe_load((ROOT / "examples" / "gitlab-ci.yml").read_text())[".leaktight"]["variables"]
    hooks = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    for block in blocks(page, "yaml"):
        found = yaml.safe_load(block)
        if isinstance(found, list):
            assert set(found[-1]["with"]) <= set(inputs)
        elif "repos" in found:
            assert {hook["id"] for repo in found["repos"] for hook in repo["hooks"]} <= hooks
        else:
            assert set(found["variables"]) <= set(variables)


ASKED = {
    "verify": ["digits.onnx", "digits-proved.vnnlib"],
    "certify": ["digits.onnx", "digits.npz", "--epsilon", "0.01", "--limit", "1"],
    "bounds": ["digits.onnx", "digits-proved.vnnlib"],
    "leak": ["digits.onnx", "digits-proved.vnnlib", "--slopes", "0.1:0.2"],
    "lipschitz": ["digits.onnx", "--method", "product"],
}


@pytest.mark.parametrize("command", ASKED)
def test_the_page_of_formats_has_the_keys_of_every_answer(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    (said,) = re.findall(rf"^\| `{command}` \| (`.*?) \|", page, re.MULTILINE)
    common = {"schema", "version", "versions", "command", "network", "engine", "guarantee", "seconds"}
    common -= {"seconds"} if command == "bounds" else set()
    monkeypatch.chdir(ROOT / "leaktight" / "data")
    assert cli.run([command, *ASKED[command], "--format", "json"]) == 0
    assert {*re.findall(r"`(\w+)`", said), *common} == set(json.loads(capfd.readouterr().out))


def test_the_package_docstring_runs(checkout: Path) -> None:
    import doctest

    import leaktight

    assert doctest.testmod(leaktight).failed == 0


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ("a ... 1.00", "a b c 1.005", True),
        ("a 1.00", "a 1.02", False),
        ("a b", "a  b\n", True),
        ("a", "b", False),
    ],
)
def test_the_comparison_of_outputs_can_fail(expected: str, found: str, same: bool) -> None:
    assert shows(expected, found) is same


LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?([^"'\s>]+)""")


def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """As ``make docs`` builds it. Links may lead away; what a page loads lies beside it."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    site, environment = tmp_path / "site", {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = sorted(site.glob("*.html"))
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= {page.stem for page in pages}
    loaded = {target for page in pages for target in LOADED.findall(page.read_text())}
    assert len(loaded) > 3
    for target in loaded:
        assert not re.match(r"(?:[a-z]+:)?//", target), target
        assert target.startswith(("#", "data:")) or (site / target.partition("?")[0].lstrip("./")).exists(), target
    for sheet in site.rglob("*.css"):
        assert not re.search(r"""url\(["']?(?:https?:)?//|@import""", sheet.read_text()), sheet
    for name in lt.__all__:
        assert name.startswith("__") or f".{name}" in (site / "api.html").read_text(), name


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_page_of_the_command_line_has_every_command_and_option() -> None:
    """Compared by words: how help is laid out differs between versions of typer."""
    sections = re.split(r"^## leaktight ?", (ROOT / "docs" / "cli.md").read_text(), flags=re.MULTILINE)
    known = {section.partition("\n")[0].strip(): words(section) for section in sections[1:]}
    root = typer.main.get_command(cli.app)
    assert set(known) == {"", *root.commands}  # type: ignore[attr-defined]
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        assert words(command.help) in known[name]
        for parameter in command.params:
            assert parameter.name == "help" or words(parameter.help) in known[name], (name, parameter.name)
            assert parameter.param_type_name == "argument" or parameter.opts[0] in known[name], (name, parameter.name)
        documented = set(re.findall(r"^\s*(?:-\w, )?(--[a-z-]+)", known[name], re.MULTILINE))
        assert documented <= {option for parameter in command.params for option in parameter.opts} | {"--help"}


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page is called, as GitHub makes it from the heading's words."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "benchmarks").glob("*.md"))]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_every_link_between_documents_leads_somewhere(page: Path) -> None:
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {name}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {name}#{anchor}"


NAMING_TARGETS = "".join((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", ".ci/run"))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", NAMING_TARGETS, re.MULTILINE))))
def test_every_make_target_that_is_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)

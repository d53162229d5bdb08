"""The rules of the house: who imports whom, who prints, who may import what is heavy."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "leaktight"
# each floor, and the floors that it may import besides itself
FLOORS = {
    "errors": set(),
    "version": set(),
    "eager": set(),
    "models": {"errors", "version", "eager"},
    "specs": {"errors", "version"},
    "verify": {"errors", "version", "eager", "models", "specs"},
    "house": {"errors", "version", "models", "specs", "verify"},
    "cli": {"errors", "version", "models", "specs", "verify", "house"},
    "__main__": {"cli", "eager"},
}
# inside verify: what a room or file may import of verify
ROOMS = {
    "verdict": set(),
    "adam": set(),
    "clock": set(),
    "rounding": set(),
    "lasting": set(),
    "digits": set(),
    "kinds": set(),
    "arithmetic": {"rounding"},
    "device": {"arithmetic"},
    "relax": {"lasting", "rounding"},
    "report": {"digits"},
    "bounds": {"adam", "clock", "device", "kinds", "lasting", "relax", "rounding", "verdict"},
    "search": {"adam", "clock", "device", "relax", "rounding", "verdict", "bounds"},
    "lipschitz": {"clock", "device", "digits", "kinds", "relax", "rounding", "verdict", "bounds"},
    "leak": {"clock", "device", "digits", "kinds", "relax", "rounding", "verdict", "bounds", "search", "lipschitz"},
    "run": {
        "clock",
        "digits",
        "device",
        "relax",
        "rounding",
        "verdict",
        "report",
        "bounds",
        "search",
        "leak",
        "lipschitz",
        "prove",
        "certification",
        "answered",
        "inputs",
        "certify",
        "divide",
        "parts",
    },
}
DRAWINGS = ("curve", "histogram", "intervals", "percentages", "steps", "survival")
# every heavy import and the only files that may have it
HEAVY = {
    "onnxruntime": {"verify/search/replay.py"},
    "auto_LiRPA": {"verify/bounds/auto_lirpa.py"},
    "vnnlib": {"specs/vnnlib2.py"},
    "psutil": {"verify/bounds/memory.py", "verify/run/machine.py", "leaktight/doctor.py"},
    "sqlalchemy": {"verify/run/tables.py"},
    "pydantic": {"verify/run/schema.py"},
    "pytest": {"leaktight/pytest_plugin.py"},
    "junitparser": {"verify/report/junit.py"},
    "cvxpy": {"verify/bounds/mixed_integer.py", "verify/lipschitz/convex.py"},
    "highspy": {"verify/bounds/linear_solver.py"},
    "matplotlib": {
        "verify/report/plots.py",
        *(f"verify/report/drawing/{name}.py" for name in DRAWINGS),
    },
    "jinja2": {"verify/report/html.py"},
    "ray": {"verify/run/remote.py"},
    "sklearn": set(),
    "scipy": {"verify/bounds/mixed_integer.py"},
}


def sources() -> dict[str, Path]:
    """Every module of the project by its path in the repository, without what the links show twice."""
    rooms = [path for room in ("models", "specs", "verify") for path in (ROOT / room).rglob("*.py")]
    own = [path for place in ("*.py", "commands/*.py") for path in PACKAGE.glob(place) if not path.is_symlink()]
    return {path.relative_to(ROOT).as_posix(): path for path in (*rooms, *own, ROOT / "cli.py")}


SOURCES = sources()


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Names of imported modules, and whether the import happens as soon as the module is imported."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or "", id(node) in top
            yield from ((f"{node.module}.{alias.name}", id(node) in top) for alias in node.names)


def floor(module: str) -> str:
    """The floor that ``leaktight.something`` stands on."""
    first = [*module.split("."), ""][1]
    return first if first in FLOORS else "house"


def dotted(name: str) -> str:
    inner = name.removesuffix(".py").removesuffix("/__init__").removeprefix("leaktight/").replace("/", ".")
    return "leaktight" if inner in ("leaktight", "__init__") else f"leaktight.{inner}"


@pytest.mark.parametrize("name", SOURCES)
def test_imports_go_to_lower_floors_only(name: str) -> None:
    here = floor(dotted(name))
    for module, _ in imports(SOURCES[name]):
        if module.split(".")[0] == "leaktight" and module != "leaktight":
            there = floor(module)
            assert there == here or there in FLOORS[here], f"{name} ({here}) imports {module} ({there})"


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("verify/")])
def test_rooms_of_verify_import_rooms_below_them(name: str) -> None:
    here = name.removesuffix(".py").split("/")[1]
    if here not in ROOMS:
        return
    for module, _ in imports(SOURCES[name]):
        parts = module.split(".")
        if parts[:2] == ["leaktight", "verify"] and len(parts) > 2 and parts[2] != here:
            assert parts[2] in ROOMS[here], f"{name} imports {module}"


@pytest.mark.parametrize("name", SOURCES)
def test_the_bare_rooms_are_never_imported(name: str) -> None:
    bare = {module.split(".")[0] for module, _ in imports(SOURCES[name])} & {"models", "specs", "verify", "cli"}
    assert not bare, f"{name} imports {bare}; write leaktight.{next(iter(bare), '')}"


@pytest.mark.parametrize("name", SOURCES)
def test_heavy_libraries_are_imported_in_one_file_each(name: str) -> None:
    for module, _ in imports(SOURCES[name]):
        first = module.split(".")[0]
        assert name in HEAVY.get(first, {name}), f"{name} imports {first}"


@pytest.mark.parametrize("name", ["cli.py", *(name for name in SOURCES if name.startswith("leaktight/"))])
def test_what_help_needs_is_light(name: str) -> None:
    """Torch, onnx and numpy are imported inside functions, for ``--help`` to be fast."""
    if name in ("leaktight/capabilities.py", "leaktight/demo.py"):  # imported inside functions themselves
        return
    early = {module.split(".")[0] for module, at_once in imports(SOURCES[name]) if at_once}
    assert not early & {"torch", "onnx", "numpy", "onnxruntime", "rich"}


@pytest.mark.parametrize("name", SOURCES)
def test_only_the_command_line_prints(name: str) -> None:
    if name == "cli.py":
        return
    for node in ast.walk(ast.parse(SOURCES[name].read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{name}:{node.lineno} prints"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and name != "leaktight/__main__.py":
            assert (node.value.id, node.attr) not in {("sys", "exit"), ("os", "_exit")}, f"{name}:{node.lineno} exits"


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_swallows_every_error(name: str) -> None:
    for node in ast.walk(ast.parse(SOURCES[name].read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{name}:{node.lineno}: a bare except"
            silent = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            broad = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            assert not (silent and broad), f"{name}:{node.lineno}: every error is passed over"


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_says_what_it_is(name: str) -> None:
    tree = ast.parse(SOURCES[name].read_text())
    if tree.body and name != "leaktight/version.py":
        assert ast.get_docstring(tree), f"{name} has no docstring"


def test_every_operator_has_an_example_and_every_engine_knows_it() -> None:
    """What is forgotten shouts: a new operator needs an example, and interval and CROWN rules."""
    from leaktight.capabilities import EXAMPLES, can
    from leaktight.models import ops
    from leaktight.verify.bounds.engine import ENGINES

    final = {
        name
        for name, value in vars(ops).items()
        if isinstance(value, type)
        and issubclass(value, ops.Op)
        and not name.startswith("_")
        and not value.__abstractmethods__
        and value not in (ops.Input, ops.Elementwise)
    }
    assert set(EXAMPLES) == final
    for engine in ENGINES:
        for operator in EXAMPLES:
            assert can(engine, operator) != "-", f"{engine} has no rule for {operator}"


def test_the_links_lead_to_the_rooms() -> None:
    for room in ("models", "specs", "verify", "cli.py"):
        link = PACKAGE / room
        assert link.is_symlink()
        assert link.resolve() == ROOT / room

"""Imports go one way, as docs/architecture.md has it."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "neuralode"
FILES = sorted(SOURCE.rglob("*.py"))

# From the top to the bottom: a room imports from its own floor and from those below.
FLOORS = [
    {"__init__"},
    {"cli"},
    {"report", "reproduce"},
    {"tasks"},
    {"estimators", "terminal"},
    {"training"},
    {"data"},
    {"nn", "steady", "torchdiffeq", "train"},
    {"solver"},
    {"gradients"},
    {"engines"},
    {"autodiff"},
    {"methods", "controllers", "inputs"},
    {"core"},
]
FLOOR = {room: height for height, rooms in enumerate(reversed(FLOORS)) for room in rooms}

# What these rooms may import besides the standard library and the core's own dependencies.
CORE = {"torch", "numpy", "jaxtyping", "neuralode"}
EXTRAS_AT_HOME = {"cli", "report", "reproduce", "tasks", "terminal", "estimators", "training", "data"}


def module_name(path: Path) -> str:
    parts = ["neuralode", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def room(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def is_for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(tree: ast.AST, inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import that runs, and whether it stands inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, inside
        elif isinstance(node, ast.stmt) and is_for_types_only(node):
            yield from ((found, inside) for found, _ in statements(ast.Module(body=node.orelse, type_ignores=[])))
        else:
            yield from statements(node, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def imported(node: ast.Import | ast.ImportFrom, importer: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, f"{importer} uses a relative import"
    for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        yield whole if whole in MODULES else str(node.module)


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


@functools.cache
def own_imports(module: str, at_top_only: bool = True) -> set[str]:
    tree = tree_of(module)
    found = {
        name
        for node, inside in statements(tree)
        if not (at_top_only and inside)
        for name in imported(node, module)
        if name in MODULES
    }
    return found - {module}


def test_there_is_something_to_look_at() -> None:
    assert {
        "neuralode.solver.solve",
        "neuralode.core.problem",
        "neuralode.core.status",
        "neuralode.engines.loop",
    } <= set(MODULES)
    assert own_imports("neuralode.solver.solve")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_from_below(module: str) -> None:
    assert room(module) in FLOOR, f"{module} is in no room of the plan: add its room to FLOORS and docs/architecture.md"
    limit = FLOOR[room(module)]
    for name in own_imports(module, at_top_only=False):
        assert FLOOR[room(name)] <= limit, f"{module} imports {name} from a higher room"


def test_there_are_no_cycles() -> None:
    order = TopologicalSorter({module: own_imports(module, at_top_only=False) for module in MODULES})
    list(order.static_order())  # raises CycleError, which names the cycle


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_of_our_own_stands_inside_a_function(module: str) -> None:
    if module == "neuralode" or room(module) == "cli" or (room(module) == "tasks" and module.endswith(".command")):
        return  # the public face and the command line load what needs an extra on first use
    tree = tree_of(module)
    hidden = {
        name
        for node, inside in statements(tree)
        if inside
        for name in imported(node, module)
        if name.split(".")[0] == "neuralode"
    }
    assert not hidden


@pytest.mark.parametrize("module", sorted(name for name in MODULES if room(name) not in EXTRAS_AT_HOME))
def test_the_core_needs_no_extra_at_import(module: str) -> None:
    tree = tree_of(module)
    at_top = {name.split(".")[0] for node, inside in statements(tree) if not inside for name in imported(node, module)}
    assert at_top <= CORE | set(sys.stdlib_module_names)


def test_importing_the_package_loads_no_extra() -> None:
    extras = ["lightning", "torchmetrics", "sklearn", "typer", "rich", "matplotlib", "pandas", "safetensors", "scipy"]
    code = f"import sys, neuralode, neuralode.nn; print([name for name in {extras} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["methods", "engines", "gradients"])
def test_no_room_asks_which_method_or_engine_it_has(name: str) -> None:
    """A declared property is asked for instead: no isinstance on a method, no comparison of names, outside its room."""
    kinds = {
        "methods": {"ExplicitRungeKutta", "ImplicitRungeKutta", "ExplicitAdams", "ImplicitAdams", "Scipy"},
        "engines": {"Eager", "Whole"},
        "gradients": {"Replay", "Adjoint", "Direct"},
    }
    for module, path in MODULES.items():
        if room(module) == name:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                asked = {leaf.id for leaf in ast.walk(node.args[1]) if isinstance(leaf, ast.Name)}
                assert not asked & kinds[name], f"{module} asks which of {name} it has"

"""The graph of imports: no module needs, by any way, one that needs it, and folders need those below them alone."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "fastsft"


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, known: set[str]) -> set[str]:
    """The modules of the package that a module imports, in functions too; not those for the types alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{name.name}" for name in node.names}
            found |= (inside & known) or {node.module}
    return found & known


# From the bottom up: each needs those before it alone.
FOLDERS = (
    *(
        "version",
        "errors",
        "escape",
        "report",
        "execution",
        "storage",
        "inputs",
        "rollouts",
        "formats",
        "quantities",
        "options",
    ),
    *("selection", "statistics", "outputs", "checks", "pipeline", "trainers", "views", "api", "cli", "__main__"),
)


def test_the_graph_of_imports_has_no_circle():
    paths = modules()
    needs = {name: imports_of(path, set(paths)) - {name, "fastsft"} for name, path in paths.items()}

    assert len(needs) > 80
    assert list(TopologicalSorter(needs).static_order())  # raises CycleError with the circle


def test_folders_need_those_below_them_alone():
    paths = modules()
    needs = {
        (name.split(".")[1], other.split(".")[1])
        for name, path in paths.items()
        for other in imports_of(path, set(paths)) - {"fastsft"}
        if name != "fastsft"
    }

    assert {folder for pair in needs for folder in pair} == set(FOLDERS)
    assert {(upper, lower) for upper, lower in needs if FOLDERS.index(upper) < FOLDERS.index(lower)} == set()

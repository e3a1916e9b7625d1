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
        "reasons",
        "execution",
        "storage",
        "inputs",
        "rollouts",
        "formats",
        "quantities",
        "choices",
        "trainers",
        "settings",
        "pairing",
        "options",
    ),
    *("selection", "statistics", "outputs", "checks", "pipeline", "configs", "views", "api", "cli", "__main__"),
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


# What changes files, by the names of calls; and what only looks like it.
CHANGES = set(
    "unlink rmdir mkdir makedirs rename replace truncate ftruncate write_text write_bytes symlink_to hardlink_to "
    "rmtree mkstemp mkdtemp fsync pwrite touch".split()
)
OF_TEXT = {("replace", 2), ("truncate", 0)}  # `text.replace(old, new)`


def test_what_changes_files_is_done_in_storage_alone():
    found = set()
    for name, path in modules().items():
        if name.startswith("fastsft.storage"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
                module = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                if module == "os" or (node.func.attr, len(node.args)) not in OF_TEXT:
                    found.add((name, ast.unparse(node.func)))
    assert {one for one in found if not one[1].startswith(("msgspec.structs.", "dataclasses."))} == NO_FILES


NO_FILES = {("fastsft.cli.settings", "parameter.replace")}  # of a signature

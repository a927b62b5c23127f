"""The rooms and their arrows, as docs/architecture.md has them."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import REPOSITORY

# Each room, and which packages none of its files may import.
ROOMS = {
    "schema_changes": {"notifying_postgres", "pulumi", "pulumi_command", "pulumi_docker", "toolchain", "tests"},
    "components/notifying_postgres": {"toolchain", "tests", "protocol", "command_plugin", "docker_plugin"},
    "toolchain": {"tests"},
}


def files(room: str) -> list[Path]:
    return sorted((REPOSITORY / room).rglob("*.py"))


def imports(file: Path, room: Path) -> Iterator[str]:
    """The modules that a file imports, as absolute names; within functions and for types alone too."""
    package = (room.name, *file.relative_to(room).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join((*package[: len(package) - node.level + 1], *([node.module] if node.module else [])))
                if node.level
                else node.module or ""
            )
            yield base
            yield from (f"{base}.{name.name}" for name in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_upward(room: str) -> None:
    assert len(files(room)) > 3
    for file in files(room):
        found = {name.partition(".")[0] for name in imports(file, REPOSITORY / room)}
        assert not found & ROOMS[room], file


@pytest.mark.parametrize("room", ["schema_changes", "components/notifying_postgres"])
def test_no_circle(room: str) -> None:
    """Of modules that are imported when a module is loaded; a function may import what it alone needs."""
    root = REPOSITORY / room
    names = {}
    for file in files(room):
        parts = (root.name, *file.relative_to(root).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph = {}
    for name, file in names.items():
        tree = ast.parse(file.read_text())
        package = (root.name, *file.relative_to(root).parts[:-1])
        used = set()
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.level:
                base = ".".join((*package[: len(package) - node.level + 1], *([node.module] if node.module else [])))
                used |= {
                    one
                    for one in (base, *(f"{base}.{alias.name}" for alias in node.names))
                    if one in names and not f"{name}.".startswith(f"{one}.")
                }
        graph[name] = used - {name}
    assert sum(map(len, graph.values())) > 10
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle

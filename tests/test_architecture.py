"""The rooms of the design: each imports only rooms above it, and nothing imports the front doors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import yamori

SOURCE = Path(yamori.__file__).parent
ROOMS = (
    *(
        "errors",
        "address",
        "directories",
        "records",
        "hypervisors",
        "memory",
        "llview",
        "translation",
        "kernel",
        "probes",
        "detectors",
    ),
    *("response", "disk", "network", "exports", "lab", "targets", "guest", "cli", "console", "web"),
)
LONGEST = 500
FILES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of what a file imports of this package, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "yamori")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_file_imports_only_rooms_above_its_own(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return  # the package's front: its names lead to the API
    assert room in ROOMS, f"{room} is no room of the design"
    for line, name in imports(path):
        parts = name.split(".")
        other = parts[1] if len(parts) > 1 else ""
        if other not in ROOMS:
            continue  # a name of the package itself, such as __version__
        assert ROOMS.index(other) <= ROOMS.index(room), f"{path.name}:{line} imports {name}, which is below {room}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_file_is_not_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_what_is_looked_at_is_the_package() -> None:
    assert {"kernel", "cli", "probes", "errors"} <= set(map(room_of, FILES))
    assert "yamori.errors.YamoriError" in {name for _, name in imports(SOURCE / "cli" / "app.py")}


def test_modules_of_a_room_do_not_import_each_other_in_circles() -> None:
    modules = {".".join(("yamori", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in FILES}
    below = {
        module: {target for _, name in imports(path) for target in (name, name.rpartition(".")[0]) if target in modules}
        - {module}
        for module, path in modules.items()
        if not module.endswith("__init__")
    }
    left = dict(below)
    while left:
        free = [module for module, needs in left.items() if not needs & set(left)]
        assert free, f"a circle among {sorted(left)}"
        for module in free:
            del left[module]

"""The wheel: it carries the built-in probes compiled for every machine, and needs no compiler where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from tests.kernel.synthetic import ARM, ARM64, Machine, build

from yamori.llview import objects
from yamori.probes import ahead

SOURCE = Path(__file__).parents[2]
BUILT = "yamori/llview/built/"
E_MACHINE = {"x86_64": (2, 62), "aarch64": (2, 183), "armv7l": (1, 40), "riscv64": (2, 243)}
"""``EI_CLASS`` and ``e_machine`` of each machine's objects (ELF specification, processor supplements)."""

RUN = "import yamori; print(yamori.__file__, flush=True); from yamori.cli.main import main; main()"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it from a copy, so that nothing is left in the checkout; what builds it is installed for the tests."""
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    work = tmp_path_factory.mktemp("where_it_was_built")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, work)
    shutil.copytree(SOURCE / "src", work / "src", ignore=shutil.ignore_patterns("built", "__pycache__", "*.egg-info"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", *options, "--wheel-dir", str(work), str(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work)
    assert done.returncode == 0, done.stderr
    (made,) = work.glob("*.whl")
    return made


def compiled(wheel: Path) -> dict[PurePosixPath, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(BUILT)]
        return {PurePosixPath(name.removeprefix(BUILT)): archive.read(name) for name in names}


def test_it_holds_an_object_for_each_machine_and_word_size(wheel: Path) -> None:
    found = compiled(wheel)
    machines = {target.name for target in objects.TARGETS.values() if objects.has_compiler(target)}
    assert objects.this_machine() in machines
    shared = {path.parent.name: set[str]() for path in found if path.suffix == ".so"}
    for path, data in found.items():
        if path.suffix == ".so":
            shared[path.parent.name].add(path.name)
            assert data[:4] == b"\x7fELF"
            assert (data[4], int.from_bytes(data[18:20], "little")) == E_MACHINE[path.parent.name]
    assert shared.keys() == machines
    assert {len(names) for names in shared.values()} == {len(ahead.WORD_SIZES)}
    assert len({frozenset(names) for names in shared.values()}) == 1  # of the same text, for every machine
    assert len([path for path in found if path.suffix == ".pickle"]) == len(ahead.WORD_SIZES)
    assert {path.suffix for path in found} == {".so", ".pickle"}


def test_nothing_names_the_place_where_it_was_built(wheel: Path) -> None:
    places = {os.fsencode(path) for path in (wheel.parent, SOURCE, Path.home(), sys.prefix)}
    for path, data in compiled(wheel).items():
        assert [place for place in places if place in data] == [], path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return target


@pytest.mark.parametrize("machine", [ARM, ARM64], ids=lambda machine: machine.name)
def test_it_runs_native_code_where_there_is_no_compiler(installed: Path, machine: Machine, tmp_path: Path) -> None:
    guest = build(machine)
    image = tmp_path / "memory"
    image.write_bytes(bytes(guest.ram))
    for name in ("home", "bin"):
        (tmp_path / name).mkdir()

    def yamori(*arguments: str) -> str:
        """Run a command of what was installed, not of the checkout, where there is no other program."""
        environment = {"PYTHONPATH": str(installed), "PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home")}
        command = [sys.executable, "-c", RUN, *arguments, f"file:{image}", "--ram-base", hex(machine.base)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        where, _, output = done.stdout.partition("\n")
        assert Path(where).is_relative_to(installed)
        return output

    assert "native code (package)" in yamori("doctor")
    rows = json.loads(yamori("ids", "plist", "--json"))["rows"]
    assert {row["pid"]: row["comm"] for row in rows} == {task.pid: task.comm for task in guest.tasks if task.pid}
    assert not any((tmp_path / "home").rglob("*.so"))

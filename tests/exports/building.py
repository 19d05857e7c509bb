"""The exported core as a program of this machine, or of another one, over RAM in files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from yamori.exports.core import core_header

HARNESS = Path(__file__).with_name("harness.c")
FLAGS = (
    *("-std=gnu11", "-nostdlib", "-fno-builtin", "-ffreestanding", "-Os", "-Wall", "-Wextra", "-Werror"),
    *("-Wstack-usage=2048", "-Wconversion", "-Wshadow"),
)
CROSS = {
    "aarch64": ("aarch64-linux-gnu-", ("-mgeneral-regs-only",)),
    "armv7l": ("arm-linux-gnueabi-", ("-march=armv7-a", "-msoft-float", "-marm")),
    "riscv64": ("riscv64-linux-gnu-", ("-mcmodel=medany",)),
}
OK, INCOMPLETE, ERROR = 0, 1, 2


class Ran(NamedTuple):
    """What a command gave."""

    result: int
    lines: list[str]
    maps: int
    yields: int

    def rows(self, letter: str) -> list[list[str]]:
        return [line.split(" ")[1:] for line in self.lines if line.startswith(f"{letter} ")]

    def processes(self) -> list[list[str]]:
        """Return the rows of processes, the time of the start in seconds as the host gives it."""
        rows = self.rows("P")
        return [[*row[:9], row[9] if row[9] == "-" else str(int(row[9]) / 1e9), *row[10:]] for row in rows]


def written(text: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "ids_core.h").write_text(core_header())
    source = folder / "ids_core.c"
    source.write_text(text)
    return source


def compiled(text: str, folder: Path, prefix: str = "", flags: Iterable[str] = FLAGS) -> Path:
    """Compile the core to an object file, warnings being errors."""
    source = written(text, folder)
    target = source.with_suffix(".o")
    done = subprocess.run(
        [f"{prefix}gcc", *flags, "-c", source, "-o", target], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:4000]
    return target


def program(text: str, folder: Path, prefix: str = "", flags: Iterable[str] = FLAGS) -> Path:
    """Link the core with a port that reads files; for another machine without shared libraries."""
    core = compiled(text, folder, prefix, flags)
    made = folder / "ids"
    command = [f"{prefix}gcc", "-O1", "-Wall", "-Wextra", "-Werror", *(["-static"] if prefix else []), f"-I{folder}"]
    done = subprocess.run(
        [*command, str(HARNESS), str(core), "-o", str(made)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:4000]
    return made


def ran(
    made: Path,
    command: str,
    ram: Mapping[int, Path],
    *,
    raw: bool = True,
    window: int = 1 << 16,
    windows: int = 4,
    hint: int = 0,
    yields: int = 0,
    peek: bool = False,
    emulator: Iterable[str] = (),
) -> Ran:
    """Run a command over files of RAM by their GPA."""
    numbers = map(str, (int(raw), window, windows, hint, yields))
    files = [f"{gpa:#x}={path}" for gpa, path in ram.items()]
    given = [*emulator, str(made), command, *numbers, *files]
    environment = {**os.environ, **({"PEEK": "1"} if peek else {})}
    done = subprocess.run(given, capture_output=True, check=False, timeout=60, env=environment)
    assert done.returncode in {OK, INCOMPLETE, ERROR}, f"ended by {done.returncode}: {done.stderr[-500:]!r}"
    text = done.stdout.decode("ascii")
    assert text.replace("\n", "").isprintable()
    _, maps, _, passed = done.stderr.decode().split()
    return Ran(done.returncode, text.splitlines(), int(maps), int(passed))


def has(prefix: str) -> bool:
    return shutil.which(f"{prefix}gcc") is not None

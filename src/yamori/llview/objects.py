"""Objects: compiled units, shipped with the package, or made by this machine's C compiler and kept in a cache.

An object's name is the hash of everything that it is made of, so one that is found is the right one. The cache is used
only where nobody else could have put an object into it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from yamori import directories
from yamori.errors import YamoriError

FLAGS: Final = (
    *("-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wconversion", "-Wshadow"),
    *("-ffreestanding", "-fno-builtin", "-fno-tree-loop-distribute-patterns", "-fno-stack-protector"),
    *("-fno-strict-aliasing", "-fno-asynchronous-unwind-tables"),
)
"""No call that the text does not name, and no assumption about the type of guest memory."""

LINK_FLAGS: Final = ("-shared", "-nostdlib", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,now", "-Wl,-s")

_PATIENCE = 120  # seconds for one compilation
_EF_ARM_ABI_FLOAT = 0x600
"""ELF for the Arm Architecture, e_flags: EF_ARM_ABI_FLOAT_SOFT and _HARD. What uses no float belongs to both."""


class BuildError(YamoriError):
    """A unit could not be compiled."""


class Target(NamedTuple):
    """A machine that objects are built for.

    Attributes:
        name: As ``platform.machine()`` says, but ``armv7l`` for all of 32-bit Arm from version 7 on.
        compiler: Debian's cross compiler.
        flags: What that compiler must be told beyond its defaults.
    """

    name: str
    compiler: str
    flags: tuple[str, ...] = ()


TARGETS: Final = {
    target.name: target
    for target in (
        Target("x86_64", "x86_64-linux-gnu-gcc"),
        Target("aarch64", "aarch64-linux-gnu-gcc"),
        Target("armv7l", "arm-linux-gnueabi-gcc", ("-march=armv7-a", "-mfloat-abi=soft")),
        Target("riscv64", "riscv64-linux-gnu-gcc"),
    )
}
"""The machines that packages carry objects for."""


class Found(NamedTuple):
    """The search's result.

    Attributes:
        path: The object, or ``None``.
        why: Why there is none, in words for users; else where it comes from: ``package``, ``cache`` or ``compiler``.
    """

    path: Path | None
    why: str


def key(text: str) -> str:
    """Return the name of the object that a unit's C text becomes."""
    from yamori.llview.c_backend import essence, host_source  # noqa: PLC0415  what was built ahead needs no C

    parts = "\0".join([essence(text), essence(host_source()), *FLAGS, *LINK_FLAGS])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def this_machine() -> str:
    """Name this machine as ``TARGETS`` does; the machine of this process, where a 64-bit kernel runs a 32-bit one."""
    machine = {"amd64": "x86_64", "arm64": "aarch64", "armv8l": "armv7l"}.get(platform.machine(), platform.machine())
    if sys.maxsize < 1 << 32:
        machine = {"aarch64": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return machine


@contextmanager
def find(text: str, *, name: str = "", compiling: bool = True) -> Iterator[Found]:
    """Look for the object of a unit: in the package, in the cache, else compile it.

    The path is good inside of the ``with``; what was loaded stays loaded.

    Args:
        text: The unit, as ``c_source`` wrote it.
        name: The object's name, where it is known already: then the text is not needed but for compiling.
        compiling: Whether to wait for the compiler, seconds for a large unit.
    """
    if os.environ.get("YAMORI_NATIVE") == "0":
        yield Found(None, "YAMORI_NATIVE=0 says so")
        return
    if sys.byteorder != "little":
        yield Found(None, "this machine is big-endian")
        return
    name = f"{name or key(text)}.so"
    shipped = Path(__file__).parent / "built" / this_machine() / name
    if shipped.is_file():
        yield Found(shipped, "package")
        return
    with _cache() as directory:
        path = directory / name
        if _is_whole(path):
            yield Found(path, "cache")
            return
        if not compiling or not text:
            yield Found(None, "nothing was compiled ahead for this machine")
            return
        try:
            build(text, path)
        except BuildError as error:
            yield Found(None, error.message)
            return
        yield Found(path, "compiler")


def build(text: str, path: Path, target: Target | None = None) -> Path:
    """Compile a unit to an object.

    Args:
        text: The unit, as ``c_source`` wrote it.
        path: The object; it appears whole or not at all.
        target: Another machine, by its cross compiler; ``None`` is this one.

    Raises:
        BuildError: There is no compiler, or it refused.
    """
    from yamori.llview.c_backend import host_source  # noqa: PLC0415  as above

    compiler = _compiler(target)
    flags = [*FLAGS, *(target.flags if target else ()), *LINK_FLAGS]
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as work:
            unit, host, output = Path(work, "unit.c"), Path(work, "host.c"), Path(work, "unit.so")
            unit.write_text(text, encoding="utf-8")
            host.write_text(host_source(), encoding="utf-8")
            _compile([compiler, *flags, "-o", str(output), str(unit), str(host)])
            _drop_float_abi(output)
            _flush(output)
            output.replace(path)
    except OSError as error:
        raise BuildError(f"the object cannot be written: {error.strerror}", where=str(path)) from None
    return path


def _compile(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"the C compiler could not be run: {error}", where=command[0]) from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), "no message")
        raise BuildError(f"the C compiler refused: {first}", where=command[0])


def has_compiler(target: Target | None) -> bool:
    """Say whether the compiler for a machine is installed; ``None`` is this one."""
    try:
        return bool(_compiler(target))
    except BuildError:
        return False


def _compiler(target: Target | None) -> str:
    here = target is None or target.name == this_machine()
    candidates = ["cc", "gcc", "clang"] if target is None or here else [target.compiler]
    for candidate in candidates:
        if found := shutil.which(candidate):
            return found
    raise BuildError("there is no C compiler", where=candidates[0], hint="install gcc")


def _drop_float_abi(path: Path) -> None:
    """Let a 32-bit Arm object be loaded by processes of either float ABI."""
    data = bytearray(path.read_bytes())
    if data[:5] != b"\x7fELF\x01" or int.from_bytes(data[18:20], "little") != 40:  # ELFCLASS32, EM_ARM
        return
    flags = int.from_bytes(data[36:40], "little") & ~_EF_ARM_ABI_FLOAT
    data[36:40] = flags.to_bytes(4, "little")
    path.write_bytes(data)


def _is_whole(path: Path) -> bool:
    """Say whether a file is an object up to its section headers, which end it: loading a shorter one is fatal."""
    try:
        head = path.read_bytes()[:64]
        if len(head) < 64 or head[:4] != b"\x7fELF":
            return False
        wide = head[4] == 2  # ELFCLASS64
        first = int.from_bytes(head[40:48] if wide else head[32:36], "little")
        size, count = (int.from_bytes(head[at : at + 2], "little") for at in ((58, 60) if wide else (46, 48)))
        return path.stat().st_size >= first + size * count
    except OSError:
        return False


def _flush(path: Path) -> None:
    """Bring a file to the disk: what is renamed before that may be empty after a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _cache() -> Iterator[Path]:
    """Give the directory for objects; one that is gone afterwards where nobody else can be kept out of the cache."""
    directory = _cache_directory()
    if directory:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="yamori-") as private:
        yield Path(private)


def _cache_directory() -> Path | None:
    try:
        directory = directories.cache_base() / "yamori" / "llview" / this_machine()
        there = next(part for part in (directory, *directory.parents) if part.exists())
        if not directories.is_safe(there.resolve()):  # before anything is made in it
            return None
        directory = there.resolve() / directory.relative_to(there)
        directories.make(directory)
        return directory if os.access(directory, os.W_OK) else None
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None

"""What the attack lab builds: modules for the kernel that a guest runs, with Debian's headers of it, and programs."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from yamori.errors import LabError
from yamori.lab import packages
from yamori.lab.devices import DEVICES
from yamori.lab.machines import Machine
from yamori.lab.packages import Progress

SOURCES = Path(__file__).parent / "sources"
PROGRAMS = Path(__file__).parent / "programs"

TOOLS = {
    "armhf": ("arm", "arm-linux-gnueabi-"),
    "armel": ("arm", "arm-linux-gnueabi-"),
    "arm64": ("arm64", "aarch64-linux-gnu-"),
    "riscv64": ("riscv", "riscv64-linux-gnu-"),
    "amd64": ("x86_64", "x86_64-linux-gnu-"),
}
"""Debian's architecture → the kernel's name of it, and the prefix of its compiler."""

HOSTS = {"x86_64": "amd64", "aarch64": "arm64"}
"""The machine that builds → Debian's name of it: the kernel's build tools run there."""


def built(machine: Machine, name: str, progress: Progress) -> bytes:
    """Return a module for the kernel that a guest runs.

    Args:
        machine: The guest.
        name: The source's name, without ``.c``.
        progress: Told what is being done.

    Raises:
        LabError: There are no headers, no compiler, or it cannot be built.
    """
    device = DEVICES[machine.record.device]
    release = machine.run("uname -r").output.strip()
    architecture, prefix = _tools(device.architecture)
    suite = _suite(machine, device.architecture)
    with tempfile.TemporaryDirectory(prefix="yamori-module-") as temporary:
        folder = Path(temporary)
        tree = _tree(folder, device.architecture, release, suite, progress)
        source = folder / "module"
        source.mkdir()
        for path in (*SOURCES.glob("*.h"), SOURCES / f"{name}.c"):
            shutil.copy(path, source)
        (source / "Makefile").write_text(f"obj-m := {name}.o\n")
        progress(f"building {name} for {release}")
        words = [f"M={source}", f"ARCH={architecture}", f"CROSS_COMPILE={prefix}", f"CC={prefix}gcc", "modules"]
        _run(["make", "-s", "-C", str(tree), *words])
        _run([f"{prefix}strip", "--strip-debug", str(source / f"{name}.ko")])
        return (source / f"{name}.ko").read_bytes()


def program(machine: Machine, name: str) -> bytes:
    """Return a program for a guest: static and without a C library, which cross compilers come without.

    Args:
        machine: The guest.
        name: The source's name, without ``.c``.

    Raises:
        LabError: There is no compiler, or it cannot be built.
    """
    _, prefix = _tools(DEVICES[machine.record.device].architecture)
    with tempfile.TemporaryDirectory(prefix="yamori-program-") as temporary:
        made = Path(temporary) / name
        flags = ["-Os", "-s", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]
        _run([f"{prefix}gcc", *flags, "-o", str(made), str(PROGRAMS / f"{name}.c")])
        return made.read_bytes()


def _tools(architecture: str) -> tuple[str, str]:
    """Return the kernel's name of an architecture, and the prefix of its compiler, which has to be installed."""
    name, prefix = TOOLS[architecture]
    if not shutil.which(f"{prefix}gcc"):
        raise LabError("not installed", where=f"{prefix}gcc", hint="install the cross compiler; `make test` does")
    return name, prefix


def _suite(machine: Machine, architecture: str) -> str:
    """Return the suite that a guest's kernel was taken from: it is in the name of the directory that holds it."""
    root = packages.cache_root()
    kernel = Path(machine.record.kernel)
    if not kernel.is_relative_to(root):
        raise LabError("its kernel is none of Debian's, so there are no headers of it", where=machine.name)
    return kernel.relative_to(root).parts[0].removeprefix(architecture).removeprefix("-")


def names(release: str) -> tuple[str, str]:
    """Return how Debian names the headers that all flavours share, and the build tools, of a kernel.

    ``6.1.0-50-armmp`` is (``6.1.0-50``, ``6.1``); since Debian 13 ``6.12.117+deb13-cloud-amd64`` is twice
    ``6.12.117+deb13``.
    """
    words = release.split("-")
    if "+deb" in words[0]:
        return words[0], words[0]
    return "-".join(words[:2]), ".".join(release.split(".")[:2])


def _tree(folder: Path, architecture: str, release: str, suite: str, progress: Progress) -> Path:
    """Put together what a module is built against: Debian's headers point at places that only a system has."""
    common, version = names(release)
    host = HOSTS.get(platform.machine(), "amd64")
    flavoured = packages.unpacked(architecture, f"linux-headers-{release}", progress, suite)
    shared = packages.unpacked(architecture, f"linux-headers-{common}-common", progress, suite)
    kbuild = packages.unpacked(host, f"linux-kbuild-{version}", progress, suite)
    tools = next((kbuild / "usr" / "lib").glob("linux-kbuild-*"))
    for name, package in (("common", shared), ("flavour", flavoured)):
        _farm(next((package / "usr" / "src").iterdir()), folder / name, tools)
    (folder / "flavour" / "Makefile").unlink()
    (folder / "flavour" / "Makefile").write_text(f"include {folder}/common/Makefile\n")
    return folder / "flavour"


def _farm(source: Path, into: Path, tools: Path) -> None:
    """Link to everything in a directory, and to the build tools instead of where the package expects them."""
    into.mkdir()
    for entry in source.iterdir():
        (into / entry.name).symlink_to(tools / entry.name if entry.name in {"scripts", "tools"} else entry)


def _run(words: list[str]) -> None:
    try:
        ran = subprocess.run(words, check=False, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise LabError("not installed", where=words[0]) from None
    if ran.returncode:
        said = "; ".join(ran.stderr.strip().splitlines()[-3:])
        raise LabError(f"it failed: {said}", where=words[0])

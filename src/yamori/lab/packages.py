"""Debian packages of another architecture, fetched through the machine's own apt and unpacked into a cache.

Apt gets a private state directory, so the system's is neither read nor changed and no privileges are needed;
where the packages come from is whatever the machine's own sources say.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from yamori.errors import LabError
from yamori.lab import sources

Progress = Callable[[str], None]
"""Told, in a few words, what a long operation is doing now."""

_TRIES = 4  # packages that are tried where a mirror has not got the best one

_KERNEL = re.compile(r"linux-(?:image|binary)-(?P<version>\d\S*)")


def cache_root() -> Path:
    """Return the directory of unpacked packages (XDG base directory specification). It may be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".cache"
    return base / "yamori" / "guests"


def unpacked(architecture: str, package: str, progress: Progress = lambda _stage: None, suite: str = "") -> Path:
    """Return the directory that holds the files of a package, fetching it the first time.

    Args:
        architecture: Debian's name of it, such as ``armhf``.
        package: Name of the package. A kernel's meta-package stands for the newest kernel that it depends on.
        progress: Told what is being done when that takes time.
        suite: The suite to take it from, such as ``trixie``; what the machine's own sources name unless given.

    Raises:
        LabError: The package cannot be found, fetched or unpacked.
    """
    root = cache_root() / (f"{architecture}-{suite}" if suite else architecture)
    final = root / package
    if final.is_dir():
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / "lock"):
            if not final.is_dir():  # another process may have fetched it while we waited
                _fetch(Apt(architecture, root / "apt", suite), package, final, progress)
    except OSError as error:
        raise LabError(f"cannot store {package}: {error.strerror}", where=str(root)) from error
    return final


def kernel_image(directory: Path) -> Path:
    """Return the kernel among the unpacked files of a kernel package.

    Raises:
        LabError: There is none.
    """
    # Debian 14 moved the kernel from /boot to /usr/lib/modules/VERSION. One that is not compressed is a vmlinux.
    found = [*directory.glob("boot/vmlinu[xz]-*"), *directory.glob("usr/lib/modules/*/vmlinu[xz]")]
    if not found:
        raise LabError("no kernel among the package's files", where=str(directory), hint="delete it and try again")
    return found[0]


def device_tree(directory: Path, name: str) -> Path:
    """Return a device tree among the unpacked files of a kernel package.

    Raises:
        LabError: There is none of this name.
    """
    for path in directory.glob(f"usr/lib/linux-image-*/**/{name}"):
        return path
    raise LabError(f"no {name} among the package's files", where=str(directory), hint="delete it and try again")


def busybox(directory: Path) -> Path:
    """Return the program among the unpacked files of ``busybox-static``.

    Raises:
        LabError: There is none.
    """
    for path in (directory / "bin" / "busybox", directory / "usr" / "bin" / "busybox"):
        if path.is_file():
            return path
    raise LabError("no busybox among the package's files", where=str(directory), hint="delete it and try again")


class Apt:
    """Apt for one architecture, with its state in a directory of our own.

    Args:
        architecture: Debian's name of it.
        state: The directory; made if it is not there.
        suite: The suite, where it is not what the machine's own sources name.

    Raises:
        LabError: The machine has no sources to make those of a suite from.
    """

    def __init__(self, architecture: str, state: Path, suite: str = "") -> None:
        self.what = f"{architecture} in {suite}" if suite else architecture
        lists, cache = state / "lists", state / "cache"
        for path in (lists / "partial", cache / "archives" / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        self._options = [
            f"-oAPT::Architecture={architecture}",
            f"-oAPT::Architectures={architecture}",
            f"-oDir::State::Lists={lists}",
            f"-oDir::Cache={cache}",
            "-oDir::State::status=/dev/null",
            "-oAcquire::Languages=none",
            "-oAPT::Sandbox::User=",  # apt's own user cannot write into a private directory
        ]
        if suite:
            sources.write(suite, state / "sources")
            self._options += ["-oDir::Etc::sourcelist=/dev/null", f"-oDir::Etc::sourceparts={state / 'sources'}"]
        self._stamp = state / "updated"
        self._trouble = ""

    def update(self) -> None:
        """Fetch the package lists, unless that was done within the hour.

        A source that lacks this architecture is normal, so a failure only shows when a package is missing.
        """
        if not self._stamp.exists() or time.time() - self._stamp.stat().st_mtime > 3600:
            self._trouble = self._run("apt-get", "update", "-qq").stderr
            self._stamp.touch()

    def candidates(self, package: str) -> list[str]:
        """Return the names of the packages that would do, the best first: itself, or kernels that it stands for.

        Raises:
            LabError: No such package.
        """
        resolved = self._resolved(package)
        if resolved == package:
            return [package]
        flavour = package.removeprefix("linux-image-")
        others = kernels(self._run("apt-cache", "pkgnames", "linux-image-").stdout.split(), flavour)
        found = list(dict.fromkeys([*([resolved] if resolved else []), *others]))
        if not found:
            self._stamp.unlink(missing_ok=True)  # the next attempt looks again
            raise self._error(f"there is no package {package}", self._trouble)
        return found[:_TRIES]

    def _resolved(self, package: str) -> str | None:
        """Return the same, or the kernel that a meta-package stands for; ``None`` if there is no such package."""
        for _ in range(4):  # a meta-package may depend on another; never more than two deep so far
            shown = self._run("apt-cache", "show", "--no-all-versions", package)
            if shown.returncode:
                return None
            kernel = kernel_dependency(shown.stdout, package)
            if kernel is None:
                break
            package = kernel
        return package

    def download(self, package: str, directory: Path) -> Path:
        """Fetch a package into a directory and return its file.

        Raises:
            LabError: It cannot be fetched.
        """
        done = self._run("apt-get", "download", "-qq", package, cwd=directory)
        files = list(directory.glob("*.deb"))
        if done.returncode or len(files) != 1:
            self._stamp.unlink(missing_ok=True)
            raise self._error(f"cannot fetch {package}", done.stderr)
        return files[0]

    def _error(self, what: str, stderr: str) -> LabError:
        reasons = [line[2:].strip() for line in stderr.splitlines() if line.startswith("E:")]
        reason = f" ({reasons[0]})" if reasons else ""
        hint = f"check the network, and that `apt-get update` succeeds and its sources carry {self.what}"
        return LabError(f"{what} for {self.what}{reason}", where="apt", hint=hint)

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return _command([program, *self._options, *arguments], cwd)


def kernel_dependency(shown: str, package: str) -> str | None:
    """Return the versioned kernel package that a meta-package depends on, from what ``apt-cache show`` prints.

    Args:
        shown: The package's control fields.
        package: Its name: a package that holds a kernel itself may depend on parts of its own version only.

    Returns:
        A package name, or ``None`` if this is no meta-package of a kernel.
    """
    for line in shown.splitlines():
        if line.startswith(("Depends:", "Pre-Depends:")):
            names = (part.split()[0] for part in re.split(r"[,|]", line.partition(":")[2]) if part.strip())
            for name in names:
                if _KERNEL.fullmatch(name) and name != package:
                    return name
    return None


def kernels(names: Iterable[str], flavour: str) -> list[str]:
    """Return each ``linux-image-VERSION-FLAVOUR`` among package names, the newest first.

    A kernel of the suite itself is preferred to a backport (``+deb12``), a signed one to its unsigned twin.
    """
    pattern = re.compile(rf"linux-image-(?P<version>\d[0-9.]*(?:-\d+)?(?P<backport>\+[^-]+)?)-{re.escape(flavour)}")

    def rank(name: str) -> tuple[bool, list[int], bool] | None:
        match = pattern.fullmatch(name.removesuffix("-unsigned"))
        if match is None:
            return None
        numbers = [int(number) for number in re.findall(r"\d+", match["version"])]
        return match["backport"] is None, numbers, not name.endswith("-unsigned")

    ranked = [(key, name) for name in names if (key := rank(name)) is not None]
    return [name for _, name in sorted(ranked, reverse=True)]


def _fetch(apt: Apt, package: str, final: Path, progress: Progress) -> None:
    for left in final.parent.glob(".partial-*"):  # of a process that was killed; we hold the lock
        shutil.rmtree(left)
    progress(f"asking apt for {package} ({apt.what})")
    apt.update()
    names = apt.candidates(package)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".partial-") as temporary:
        name, deb = _downloaded(apt, names, Path(temporary), progress)
        progress(f"unpacking {name}")
        files = Path(temporary) / "files"
        done = _command(["dpkg-deb", "-x", str(deb), str(files)])
        if done.returncode:
            raise LabError(f"cannot unpack {name}: {done.stderr.strip()}", where=str(final.parent))
        files.rename(final)


def _downloaded(apt: Apt, names: list[str], directory: Path, progress: Progress) -> tuple[str, Path]:
    """Fetch the first package that can be, and say which: a mirror may list a new kernel before it has the file."""
    first: LabError | None = None
    for name in names:
        progress(f"fetching {name}")
        try:
            return name, apt.download(name, directory)
        except LabError as error:
            first = first or error
    raise first or LabError("nothing to fetch", where="apt")


def _command(arguments: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            arguments,
            cwd=cwd,
            check=False,
            text=True,
            errors="replace",
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        hint = "the lab fetches its kernels with apt and dpkg: use Debian or Ubuntu, or give --kernel and --initrd"
        raise LabError("not found on this machine", where=arguments[0], hint=hint) from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

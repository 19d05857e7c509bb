"""What processes run: files that are gone, that were never on a disk, or that anybody may write."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import detector
from yamori.detectors.view import View
from yamori.records import Finding, Program

NEEDS = "where the kernel keeps a program's executable"
SYSTEM = ("/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/", "/opt/")
"""Where packages install, and replace, programs."""
WRITABLE = ("/tmp/", "/var/tmp/", "/dev/", "/run/user/", "/run/shm/", "/var/crash/")  # noqa: S108  the guest's
MEMFD = "/memfd:"
RUNTIMES = ("runc", "crun")
"""Container runtimes run from a memfd, so that a container cannot change them (CVE-2019-5736)."""
LOOK = "Read its memory (`yamori shell`) before it ends: there is no file to look at."


def _programs(view: View) -> Iterator[Program]:
    return (row for row in view.programs() if row.executable is not None and not row.kthread)


@detector(
    title="Programs whose file was deleted",
    needs=NEEDS,
    misses="a program that deleted its file and put another one in its place under the same name is not told from an "
    "upgrade",
    attack=["T1070.004"],
)
def deleted_executable(view: View) -> Iterator[Finding]:
    """Look for executables that are no longer in their directory."""
    for row in _programs(view):
        if row.deleted and not row.executable.startswith(MEMFD):  # type: ignore[union-attr]  # see _programs
            upgraded = row.executable.startswith(SYSTEM)  # type: ignore[union-attr]
            yield Finding(
                subject=f"process {row.pid}",
                severity="low" if upgraded else "high",
                confidence="possible" if upgraded else "likely",
                title=f"Process {row.pid} ({row.comm}) runs a file that was deleted",
                why=[
                    "Expected: a program's file is where it was started from.",
                    f"Found: {row.executable} is not in its directory any more; the process runs as uid {row.uid}.",
                    *(
                        ["An upgrade of the package does this, too, until the service is restarted."]
                        if upgraded
                        else []
                    ),
                ],
                remedy="Restart the service; if the finding comes back, look at the process." if upgraded else LOOK,
            )


@detector(
    title="Programs that never were on a disk",
    needs=NEEDS,
    misses="code that was loaded into a program's memory without execve",
    attack=["T1620"],
)
def memfd_executable(view: View) -> Iterator[Finding]:
    """Look for executables made by ``memfd_create``."""
    for row in _programs(view):
        name = str(row.executable)
        if name.startswith(MEMFD):
            runtime = name.removeprefix(MEMFD).startswith(RUNTIMES)
            yield Finding(
                subject=f"process {row.pid}",
                severity="low" if runtime else "critical",
                confidence="possible" if runtime else "likely",
                title=f"Process {row.pid} ({row.comm}) runs a program that only exists in memory",
                why=[
                    "Expected: programs come from files.",
                    f"Found: the executable is {name}, made by memfd_create; the process runs as uid {row.uid}.",
                    *(["Container runtimes copy themselves so."] if runtime else []),
                ],
                remedy="Check that containers run on this device." if runtime else LOOK,
            )


@detector(
    title="Programs from places that anybody may write",
    needs=NEEDS,
    misses="other places that are writable on this device",
    attack=["T1036.005", "T1059"],
)
def writable_place(view: View) -> Iterator[Finding]:
    """Look for executables in directories for temporary files and in ``/dev``."""
    for row in _programs(view):
        if str(row.executable).startswith(WRITABLE):
            yield Finding(
                subject=f"process {row.pid}",
                severity="high",
                confidence="likely",
                title=f"Process {row.pid} ({row.comm}) runs from a place for temporary files",
                why=[
                    "Expected: programs are installed where only root may write.",
                    f"Found: {row.executable}, with arguments {row.arguments!r}, as uid {row.uid}.",
                ],
                remedy="Find out who put it there and what it does; remove it if nobody knows it.",
            )

"""Libraries that anybody may write: those that ``LD_PRELOAD``, ``/etc/ld.so.preload`` or ``dlopen`` named."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import detector
from yamori.detectors.view import View
from yamori.records import Finding, Mapping

WRITABLE = ("/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/", "/run/shm/", "/var/crash/")  # noqa: S108  the guest's
"""Not all of ``/dev``: drivers' memory, and ``/dev/zero`` for shared memory of no file, may be mapped executable."""


def _code(view: View) -> dict[tuple[int, str], Mapping]:
    """Return the first executable mapping of each file from such a place, by process and file."""
    found: dict[tuple[int, str], Mapping] = {}
    for row in view.mappings():
        if row.path and "x" in row.mode and row.path.startswith(WRITABLE):
            found.setdefault((row.pid, row.path), row)
    return found


@detector(
    title="Libraries from places that anybody may write",
    needs="how the mappings of a process are laid out",
    misses="libraries in other places, from memfds, and code that was copied into memory of no file; who named them",
    attack=["T1574.006"],
)
def preloaded_libraries(view: View) -> Iterator[Finding]:
    """Look for code of files, other than the executable, that is mapped from directories for temporary files."""
    code = _code(view)
    if not code:
        return
    running = {row.pid: row for row in view.programs()}
    for (pid, path), row in code.items():
        program = running.get(pid)
        if program and program.executable == path:
            continue  # that is writable-place's
        # libffi's closures and Java's native libraries are files there that are deleted as soon as they are mapped
        yield Finding(
            subject=f"process {pid}",
            severity="low" if row.deleted else "medium",
            confidence="possible",
            title=f"Process {pid} ({program.comm if program else '?'}) has code from a place for temporary files",
            why=[
                "Expected: libraries are installed where only root may write.",
                f"Found: {path} is mapped at {row.start:#x} ({row.mode}){', and was deleted' if row.deleted else ''}.",
                "Java's runtime and libffi unpack code there, too."
                if row.deleted
                else "Some Java programs unpack libraries there and leave them.",
            ],
            remedy="Find out who put it there, and look for LD_PRELOAD and /etc/ld.so.preload.",
        )

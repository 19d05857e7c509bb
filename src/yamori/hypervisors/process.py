"""What ``/proc`` tells of a process: its command line, its mappings, its open files, the sockets it listens on.

The formats are those of proc(5). Nothing here changes or stops the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LISTENING = 0x10000  # __SO_ACCEPTCON, include/linux/net.h of the Linux kernel


class Mapping(NamedTuple):
    """One line of ``/proc/PID/maps``.

    Attributes:
        start: First HVA.
        end: First HVA behind it.
        perms: As in ``rw-p``; the last letter is ``s`` for a shared and ``p`` for a private mapping.
        offset: Where ``start`` lies in the mapped file.
        device: As ``os.stat`` gives it.
        inode: 0 for anonymous memory.
        path: The file's path, as ``/memfd:NAME (deleted)``, or in brackets what the kernel calls it; may be empty.
    """

    start: int
    end: int
    perms: str
    offset: int
    device: int
    inode: int
    path: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def shared(self) -> bool:
        """Whether writes go to the file, so that the file is the memory."""
        return self.perms.endswith("s")


class Listener(NamedTuple):
    """A UNIX socket that somebody listens on: its inode, and the path as it was bound, which may be relative."""

    inode: int
    path: str


def process_ids() -> Iterator[int]:
    """Yield the id of every process that can be seen."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def arguments(pid: int) -> list[str]:
    """Return the command line, empty for a kernel thread or a zombie.

    Raises:
        OSError: There is no such process, or it is hidden.
    """
    text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape")
    return text.removesuffix("\0").split("\0") if text else []


def executable(pid: int) -> str:
    """Return the path of the program, or an empty string where the kernel does not let us know."""
    try:
        return str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
    except OSError:
        return ""


def owner(pid: int) -> int:
    """Return the real user id.

    Not the owner of ``/proc/PID``: that is root for a process that is not dumpable.

    Raises:
        OSError: There is no such process, or it is hidden.
    """
    return _status(pid, "Uid:")


def parent(pid: int) -> int:
    """Return the id of the parent process.

    Raises:
        OSError: There is no such process, or it is hidden.
    """
    return _status(pid, "PPid:")


def ended(pid: int) -> bool:
    """Say whether a process has ended and is only kept until its parent asks for its exit code (a zombie).

    Raises:
        OSError: There is no such process, or it is hidden.
    """
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return stat[stat.rindex(b")") + 2 :][:1] in {b"Z", b"X"}  # the name before it may hold parentheses


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def mappings(pid: int) -> list[Mapping]:
    """Return the process's mappings in ascending order.

    Raises:
        OSError: There is no such process, or no permission.
    """
    text = Path(f"/proc/{pid}/maps").read_bytes().decode(errors="surrogateescape")
    return [_mapping(line) for line in text.splitlines()]


def _mapping(line: str) -> Mapping:
    fields = line.split(None, 5)
    start, end = fields[0].split("-")
    major, minor = fields[3].split(":")
    return Mapping(
        start=int(start, 16),
        end=int(end, 16),
        perms=fields[1],
        offset=int(fields[2], 16),
        device=os.makedev(int(major, 16), int(minor, 16)),
        inode=int(fields[4]),
        path=fields[5] if len(fields) > 5 else "",
    )


def descriptors(pid: int) -> dict[int, str]:
    """Return what each open file descriptor links to, in ascending order.

    Raises:
        OSError: There is no such process, or no permission.
    """
    directory = Path(f"/proc/{pid}/fd")
    links = {}
    for number in sorted(int(entry.name) for entry in directory.iterdir()):
        try:
            links[number] = str((directory / str(number)).readlink())
        except FileNotFoundError:
            continue  # closed since it was listed
    return links


def listeners() -> list[Listener]:
    """Return every UNIX stream socket with a path that is listened on in our network namespace."""
    found = []
    for line in Path("/proc/net/unix").read_bytes().decode(errors="surrogateescape").splitlines()[1:]:
        # Num RefCount Protocol Flags Type St Inode Path
        fields = line.split(None, 7)
        if len(fields) == 8 and int(fields[3], 16) & _LISTENING:
            found.append(Listener(int(fields[6]), fields[7]))
    return found

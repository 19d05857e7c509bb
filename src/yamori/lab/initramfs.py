"""The guest's userland: busybox and a few scripts, packed as the initramfs that the kernel unpacks at boot."""

from __future__ import annotations

import gzip
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from yamori.lab import crowd

_SCRIPTS = Path(__file__).parent / "guest"
_COMMANDS = ("truth", "spawn", "busy", "threads")
_PASSWD = b"""\
root:x:0:0::/root:/bin/sh
alice:x:1000:100::/tmp:/bin/sh
bob:x:1001:1001::/tmp:/bin/sh
nobody:x:65534:65534::/tmp:/bin/sh
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive.

    Attributes:
        path: Its path, without a leading slash.
        mode: Its type and permissions, as ``st_mode`` has them.
        data: Contents of a file, target of a symbolic link.
        device: Major and minor number of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(entries: Iterable[Entry]) -> bytes:
    """Return an archive in the ``newc`` format (Documentation/driver-api/early-userspace/buffer-format.rst).

    Every file belongs to root and has no date, so the same entries always give the same bytes.
    """
    archive = bytearray()
    trailer = Entry("TRAILER!!!", 0)
    for number, entry in enumerate([*entries, trailer], start=1):
        name = entry.path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        #         ino     mode        uid gid nlink mtime filesize     dev   rdev           namesize  check
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        archive += bytes(-len(archive) % 4)
        archive += entry.data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def build(busybox: Path, elf: str) -> bytes:
    """Return the lab's initramfs.

    Args:
        busybox: The statically linked program, for the guest's architecture.
        elf: Which machine code the guest runs, see ``Device.elf``.
    """
    directories = ("bin", "dev", "etc", "lab", "proc", "root", "run", "sys", "tmp")
    entries = [Entry(path, stat.S_IFDIR | 0o755) for path in directories]
    entries += [
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),  # the kernel opens it before /init mounts anything
        Entry("etc/passwd", stat.S_IFREG | 0o644, _PASSWD),
        Entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
        Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox"),
        Entry("init", stat.S_IFREG | 0o755, (_SCRIPTS / "init.sh").read_bytes()),
    ]
    entries += [
        Entry(f"bin/{name}", stat.S_IFREG | 0o755, (_SCRIPTS / f"{name}.sh").read_bytes()) for name in _COMMANDS
    ]
    entries += [Entry(f"lab/{kind}", stat.S_IFREG | 0o755, crowd.program(elf, kind)) for kind in crowd.KINDS]
    return gzip.compress(cpio(entries), compresslevel=1, mtime=0)

"""Memory images at rest: raw ones, and ELF cores. Other formats are recognised and refused by name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from yamori.errors import TargetError
from yamori.hypervisors.vm import Layout, RamSegment, VirtualMachine
from yamori.memory import elfcore
from yamori.memory.host import open_readonly

SCHEME = "file"
_GIB = 1 << 30

_CONVERT = "convert it to a raw image or an ELF core first"
_UNPACK = "unpack it first"
_FOREIGN = {
    b"KDUMP   ": ("a compressed kdump", "write it without compression: dump-guest-memory without -z, -l, -s"),
    b"DISKDUMP": ("a diskdump", _CONVERT),
    b"makedumpfile\0": ("a flattened kdump", _CONVERT),
    b"EMiL": ("a LiME image", "write it with format=raw or padded"),
    b"AVML": ("an AVML image", _CONVERT),
    b"PAGEDUMP": ("a Windows crash dump", "Yamori reads Linux guests"),
    b"PAGEDU64": ("a Windows crash dump", "Yamori reads Linux guests"),
    b"hibr": ("a Windows hibernation file", "Yamori reads Linux guests"),
    b"HIBR": ("a Windows hibernation file", "Yamori reads Linux guests"),
    b"\xd2\xbe\xd2\xbe": ("a VMware suspend file", _CONVERT),
    b"LibvirtQemudSave": ("a libvirt save file", "write it with `virsh dump --memory-only --format elf`"),
    b"QEVM": ("a QEMU migration stream", "write it with dump-guest-memory"),
    b"QFI\xfb": ("a qcow2 disk image", "a memory image is needed"),
    b"KDMV": ("a VMDK disk image", "a memory image is needed"),
    b"\x1f\x8b\x08": ("packed with gzip", _UNPACK),
    b"\xfd7zXZ\0": ("packed with xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", _UNPACK),
    b"\x04\x22\x4d\x18": ("packed with lz4", _UNPACK),
    b"BZh": ("packed with bzip2", _UNPACK),
    b"PK\x03\x04": ("packed with zip", _UNPACK),
}


def attach(path: str, *, ram_base: int | None = None) -> VirtualMachine:
    """Describe a memory image.

    Args:
        path: The file.
        ram_base: GPA of a raw image's first byte; an ELF core says it itself.

    Raises:
        TargetError: There is no such file, or it is not a memory image that can be read.
    """
    fd = _open(path)
    try:
        size = os.fstat(fd).st_size
        if os.pread(fd, 4, 0) == elfcore.MAGIC:
            return _core(fd, path, ram_base)
        _refuse_foreign(os.pread(fd, 16, 0), path)
    except OSError as error:
        raise TargetError(f"cannot be read: {error.strerror}", where=path) from None
    finally:
        os.close(fd)
    layouts = _raw_layouts(path, size, ram_base)
    base = "not known: the page tables will tell" if ram_base is None else f"{ram_base:#x} as the user gave it"
    return VirtualMachine(
        target=f"{SCHEME}:{path}",
        name=Path(path).name,
        pid=None,
        machine="raw image",
        layouts=layouts,
        base_known=ram_base is not None,
        notes=(f"raw image of {size} bytes", f"RAM base {base}"),
    )


def _open(path: str) -> int:
    if "\0" in path:
        raise TargetError("a file's name has no NUL in it", where=path.replace("\0", "\\0"))
    # Looked at before it is opened: a FIFO would wait for its writer.
    try:
        mode, size = Path(path).stat().st_mode, Path(path).stat().st_size
    except OSError:
        return open_readonly(path)  # which says why not
    if stat.S_ISDIR(mode):
        raise TargetError("this is a directory", where=path, hint="name the image in it")
    if not stat.S_ISREG(mode):
        raise TargetError("this is not a regular file", where=path, hint="copy the memory into one")
    if not size:
        raise TargetError("the file is empty", where=path)
    return open_readonly(path)


def _refuse_foreign(head: bytes, path: str) -> None:
    for magic, (what, hint) in _FOREIGN.items():
        if head.startswith(magic):
            raise TargetError(f"this is {what}, which Yamori does not read", where=path, hint=hint)


def _core(fd: int, path: str, ram_base: int | None) -> VirtualMachine:
    if ram_base is not None:
        raise TargetError("an ELF core says itself where its memory lies", where=path, hint="leave the RAM base out")
    core = elfcore.parse(fd, path)
    layout = tuple(RamSegment(load.gpa, load.size, path, load.offset, "image") for load in core.loads)
    total = sum(load.size for load in core.loads)
    return VirtualMachine(
        target=f"{SCHEME}:{path}",
        name=Path(path).name,
        pid=None,
        machine=f"ELF core ({core.machine})",
        layouts=(layout,),
        notes=(f"ELF core of {total} bytes of memory in {len(layout)} segments", *core.notes),
    )


def _raw_layouts(path: str, size: int, ram_base: int | None) -> tuple[Layout, ...]:
    """Place a raw image in one piece; a large one may also be a PC's RAM without the hole below 4 GiB."""
    whole = (RamSegment(ram_base or 0, size, path, 0, "image"),)
    if ram_base is not None:
        return (whole,)
    splits = [low for low in (2 * _GIB, 3 * _GIB) if size > low]
    return (whole, *(_split(path, size, low) for low in splits))


def _split(path: str, size: int, low: int) -> Layout:
    below = RamSegment(0, low, path, 0, "image")
    return below, RamSegment(4 * _GIB, size - low, path, low, "image")

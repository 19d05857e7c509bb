"""ELF cores of a guest's physical memory, as QEMU's ``dump-guest-memory`` writes them.

The format is that of elf(5): a ``PT_LOAD`` segment says which bytes of the file (``p_offset``, ``p_filesz``) lie at
which GPA (``p_paddr``). QEMU's writer is ``dump/dump.c`` in its source tree; with ``paging`` on it describes the same
bytes several times, once for each virtual address. Every number in the file is somebody else's and is checked.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from yamori.errors import TargetError

MAGIC = b"\x7fELF"
_ET_CORE = 4
_PT_LOAD = 1
_PN_XNUM = 0xFFFF
_MOST_HEADERS = 1 << 18
_ADDRESS_LIMIT = 1 << 64

_TYPES = {1: "a relocatable file", 2: "a program", 3: "a program or library"}
_MACHINES = {3: "i386", 40: "Arm", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 8: "MIPS", 20: "PowerPC", 22: "S390"}


class Load(NamedTuple):
    """A piece of guest memory in the file."""

    gpa: int
    size: int
    offset: int

    @property
    def end(self) -> int:
        """First GPA behind it."""
        return self.gpa + self.size


class Core(NamedTuple):
    """What an ELF core holds.

    Attributes:
        machine: The guest's architecture in words.
        loads: Its memory, in ascending order of GPA, not overlapping.
        notes: What was left out, one short sentence each.
    """

    machine: str
    loads: tuple[Load, ...]
    notes: tuple[str, ...]


class _Layout(NamedTuple):
    """The structures of one class and byte order: after ``e_ident``, and with the fields that are needed in order."""

    header: struct.Struct  # e_type e_machine e_phoff e_shoff e_phentsize e_phnum
    program: struct.Struct  # p_type p_offset p_vaddr p_paddr p_filesz
    section_info: int  # where sh_info lies in a section header


_LAYOUTS = {
    1: ("HH8xII6xHH6x", "IIIII12x", 28),
    2: ("HH12xQQ6xHH6x", "I4xQQQQ16x", 44),
}


def parse(fd: int, where: str) -> Core:
    """Read an ELF core's headers.

    Args:
        fd: The file.
        where: Its name, for errors.

    Raises:
        TargetError: It is not a core of a guest's memory, or its headers are cut off or contradict each other.
    """
    ident = os.pread(fd, 16, 0)
    layout = _layout(ident, where)
    fields = _read(fd, 16, layout.header.size, where)
    kind, machine, phoff, shoff, phentsize, phnum = layout.header.unpack(fields)
    if kind != _ET_CORE:
        hint = "give the kernel's own file with --vmlinux" if kind in {2, 3} else "a memory image is an ELF core"
        raise TargetError(f"this ELF file is {_TYPES.get(kind, 'no core')}, not a memory image", where=where, hint=hint)
    if phentsize != layout.program.size:
        raise TargetError(f"its ELF program headers have {phentsize} bytes each", where=where, hint="it is malformed")
    if phnum == _PN_XNUM:
        phnum = struct.unpack(layout.header.format[0] + "I", _read(fd, shoff + layout.section_info, 4, where))[0]
    if phnum > _MOST_HEADERS:
        raise TargetError(f"its ELF header tells of {phnum} segments", where=where, hint="it is malformed")
    table = _read(fd, phoff, phnum * phentsize, where)
    loads = list(_loads(layout, table))
    notes: list[str] = []
    _judge(loads, where)
    kept = tuple(_settled(_whole(loads, os.fstat(fd).st_size, where), notes))
    return Core(_MACHINES.get(machine, f"machine {machine}"), kept, tuple(notes))


def _layout(ident: bytes, where: str) -> _Layout:
    if len(ident) < 16 or ident[4] not in _LAYOUTS or ident[5] not in {1, 2}:
        raise TargetError("its ELF header is cut off or malformed", where=where)
    header, program, section_info = _LAYOUTS[ident[4]]
    sign = "<" if ident[5] == 1 else ">"
    return _Layout(struct.Struct(sign + header), struct.Struct(sign + program), section_info)


def _read(fd: int, offset: int, size: int, where: str) -> bytes:
    data = os.pread(fd, size, offset) if offset < 1 << 63 else b""
    if len(data) != size:
        raise TargetError("the file ends within its own headers", where=where, hint="it was truncated: copy it again")
    return data


def _loads(layout: _Layout, table: bytes) -> Iterator[Load]:
    for kind, offset, _, paddr, filesz in layout.program.iter_unpack(table):
        # QEMU writes an offset of all ones and no bytes where a virtual mapping leads to nothing in RAM.
        if kind == _PT_LOAD and filesz:
            yield Load(paddr, filesz, offset)


def _whole(loads: list[Load], file_size: int, where: str) -> list[Load]:
    """Return the segments, all of which must lie in the file; what is missing would read as a different guest."""
    promised = sum(load.size for load in loads)
    present = sum(min(load.size, max(file_size - load.offset, 0)) for load in loads)
    if present < promised:
        lost = f"{promised - present} of {promised} bytes of guest memory are not in the file"
        raise TargetError(lost, where=where, hint="it was truncated: copy it again")
    if any(load.end > _ADDRESS_LIMIT for load in loads):
        raise TargetError("a segment lies beyond any physical address", where=where, hint="it is malformed")
    return loads


def _settled(loads: list[Load], notes: list[str]) -> Iterator[Load]:
    """Join what is described twice, and keep the first of what contradicts itself."""
    contradictions = 0
    last: Load | None = None
    for load in sorted(loads):
        if last is None:
            last = load
            continue
        same = load.gpa - load.offset == last.gpa - last.offset
        if same and load.gpa <= last.end:
            last = last._replace(size=max(last.end, load.end) - last.gpa)
            continue
        skip = max(last.end - load.gpa, 0)
        contradictions += bool(skip)
        if skip < load.size:
            yield last
            last = Load(load.gpa + skip, load.size - skip, load.offset + skip)
    if last is not None:
        yield last
    if contradictions:
        notes.append(f"{contradictions} segments overlap others and contradict them: the first of each counts")


def _judge(loads: list[Load], where: str) -> None:
    """Refuse what is a core, but not of a guest's memory."""
    if not loads:
        raise TargetError(
            "this ELF core holds no memory", where=where, hint="QEMU's dump-guest-memory writes one that does"
        )
    if len(loads) > 1 and not any(load.gpa for load in loads):
        hint = "a guest's memory comes from QEMU's dump-guest-memory"
        raise TargetError("this ELF core has no physical addresses: it is of a process", where=where, hint=hint)

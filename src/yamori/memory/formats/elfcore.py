"""ELF cores of a guest's physical memory, as QEMU's ``dump-guest-memory`` writes them.

The format is that of elf(5): a ``PT_LOAD`` segment says which bytes of the file (``p_offset``, ``p_filesz``) lie at
which GPA (``p_paddr``). QEMU's writer is ``dump/dump.c`` in its source tree; with ``paging`` on it describes the same
bytes several times, once for each virtual address. ``makedumpfile -E`` leaves out the end of a segment, so that
``p_memsz`` is larger than ``p_filesz`` (``write_elf_pages_cyclic`` in its ``makedumpfile.c``). Every number in the file
is somebody else's and is checked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from yamori.errors import TargetError
from yamori.hypervisors.vm import Source
from yamori.memory.source import ADDRESS_LIMIT, Contents, Piece, read_exactly, settled, whole

MAGICS = (b"\x7fELF",)
_ET_CORE = 4
_PT_LOAD = 1
_PN_XNUM = 0xFFFF
_MOST_HEADERS = 1 << 18
_MOST_LEFT_OUT = 1 << 42
"""Bytes; a dump that leaves out more has numbers that mean something else."""
_NOWHERE = frozenset({(1 << 32) - 1, (1 << 64) - 1})

_TYPES = {1: "a relocatable file", 2: "a program", 3: "a program or library"}
_MACHINES = {3: "i386", 40: "Arm", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 8: "MIPS", 20: "PowerPC", 22: "S390"}


class _Layout(NamedTuple):
    """The structures of one class and byte order: after ``e_ident``, and with the fields that are needed in order."""

    header: struct.Struct  # e_type e_machine e_phoff e_shoff e_phentsize e_phnum
    program: struct.Struct  # p_type p_offset p_paddr p_filesz p_memsz
    section_info: int  # where sh_info lies in a section header


_LAYOUTS = {
    1: ("HH8xII6xHH6x", "II4xIII8x", 28),
    2: ("HH12xQQ6xHH6x", "I4xQ8xQQQ8x", 44),
}


def parse(source: Source, where: str) -> Contents:
    """Read an ELF core's headers.

    Raises:
        TargetError: It is not a core of a guest's memory, or its headers are cut off or contradict each other.
    """
    layout = _layout(source.read(16, 0), where)
    fields = read_exactly(source, layout.header.size, 16, where)
    kind, machine, phoff, shoff, phentsize, phnum = layout.header.unpack(fields)
    if kind != _ET_CORE:
        hint = "give the kernel's own file with --vmlinux" if kind in {2, 3} else "a memory image is an ELF core"
        raise TargetError(f"this ELF file is {_TYPES.get(kind, 'no core')}, not a memory image", where=where, hint=hint)
    if phentsize != layout.program.size:
        raise TargetError(f"its ELF program headers have {phentsize} bytes each", where=where, hint="it is malformed")
    if phnum == _PN_XNUM:
        info = read_exactly(source, 4, shoff + layout.section_info, where)
        phnum = struct.unpack(layout.header.format[0] + "I", info)[0]
    if phnum > _MOST_HEADERS:
        raise TargetError(f"its ELF header tells of {phnum} segments", where=where, hint="it is malformed")
    table = read_exactly(source, phnum * phentsize, phoff, where)
    pieces = [Piece(paddr, filesz, offset) for paddr, filesz, _, offset in _loads(layout, table) if filesz]
    _judge(pieces, where)
    notes: list[str] = []
    kept = settled(whole(pieces, source.size, where), notes)
    notes.insert(0, f"ELF core of {sum(piece.size for piece in kept)} bytes of memory in {len(kept)} segments")
    left_out = tuple(_left_out(layout, table, kept))
    if left_out:
        notes.append(f"{sum(piece.size for piece in left_out)} bytes are excluded from the dump")
    name = _MACHINES.get(machine, f"machine {machine}")
    return Contents(f"ELF core ({name})", source, kept, tuple(notes), left_out)


def _layout(ident: bytes, where: str) -> _Layout:
    if len(ident) < 16 or ident[4] not in _LAYOUTS or ident[5] not in {1, 2}:
        raise TargetError("its ELF header is cut off or malformed", where=where)
    header, program, section_info = _LAYOUTS[ident[4]]
    sign = "<" if ident[5] == 1 else ">"
    return _Layout(struct.Struct(sign + header), struct.Struct(sign + program), section_info)


def _loads(layout: _Layout, table: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield p_paddr, p_filesz, p_memsz and p_offset of each segment of memory."""
    for kind, offset, paddr, filesz, memsz in layout.program.iter_unpack(table):
        # QEMU writes an offset of all ones and no bytes where a virtual mapping leads to nothing in RAM.
        if kind == _PT_LOAD and (filesz or offset not in _NOWHERE):
            yield paddr, filesz, memsz, offset


def _left_out(layout: _Layout, table: bytes, kept: tuple[Piece, ...]) -> Iterator[Piece]:
    """Yield what segments have in memory but not in the file, and no other segment has."""
    ends = sorted((paddr + filesz, paddr + memsz) for paddr, filesz, memsz, _ in _loads(layout, table))
    at = number = 0
    for start, end in ends:
        at = max(at, start)
        if end - start > _MOST_LEFT_OUT or end > ADDRESS_LIMIT:
            continue
        while at < end:
            while number < len(kept) and kept[number].end <= at:
                number += 1
            until = min(kept[number].gpa, end) if number < len(kept) else end
            if at < until:
                yield Piece(at, until - at, 0)
            at = until if at < until else kept[number].end


def _judge(pieces: list[Piece], where: str) -> None:
    """Refuse what is a core, but not of a guest's memory."""
    if not pieces:
        raise TargetError(
            "this ELF core holds no memory", where=where, hint="QEMU's dump-guest-memory writes one that does"
        )
    if len(pieces) > 1 and not any(piece.gpa for piece in pieces):
        hint = "a guest's memory comes from QEMU's dump-guest-memory"
        raise TargetError("this ELF core has no physical addresses: it is of a process", where=where, hint=hint)

"""Guests for measurements: lab devices with a crowd, held still while several ways read the same rows, and copies."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yamori import lab
from yamori.address import GPA
from yamori.guest import Guest
from yamori.hypervisors.vm import RamSegment
from yamori.memory.physical import PhysicalMemory

STEP = 1 << 20
HEADERS = 1 << 16
"""Where the RAM begins in an ELF core of ours; a multiple of every page size."""

_EM = {"arm": 40, "aarch64": 183}  # elf(5), e_machine


@contextmanager
def device(kind: str, settings: dict[str, Any], crowd: int) -> Iterator[lab.Machine]:
    """Boot a device with a crowd of processes."""
    with lab.machine(kind, **settings) as vm:
        grow(vm, crowd)
        time.sleep(1)
        yield vm


def grow(vm: lab.Machine, crowd: int) -> None:
    """Start that many more processes in it."""
    if crowd:
        output, status = vm.run(["spawn", str(crowd)], timeout=300)
        assert not status, output


@contextmanager
def still(vm: lab.Machine) -> Iterator[None]:
    """Stop the guest meanwhile: then all ways read the same rows, and its emulation takes no time from them."""
    os.kill(vm.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(vm.pid, signal.SIGCONT)


def ram_of(guest: Guest) -> RamSegment:
    """Return its RAM, which lies in one piece."""
    (layout,) = guest.vm.layouts
    (segment,) = layout
    return segment


def copy(memory: PhysicalMemory, path: Path, base: int, at: int = 0) -> None:
    """Copy RAM into a file, sparsely.

    Args:
        memory: The RAM, in one region.
        path: The file.
        base: Its first GPA.
        at: Where that lies in the file.
    """
    (region,) = memory.regions
    with path.open("wb") as file:
        for part in memory.populated():
            for gpa in range(part.gpa, part.end, STEP):
                file.seek(at + gpa - base)
                file.write(memory.read(GPA(gpa), min(STEP, part.end - gpa)))
        file.truncate(at + region.size)


def write_core(guest: Guest, path: Path, maps: list[tuple[int, int]]) -> None:
    """Write the guest's RAM as an ELF core of kernel addresses.

    Args:
        guest: It.
        path: The file.
        maps: GVA at which all of RAM is mapped, and the GPA that it begins with; each becomes a ``PT_LOAD``.
    """
    ram, architecture = ram_of(guest), guest.profile.architecture
    wide = guest.kernel.machine.word_size == 8
    header, program = ("<4s5B7xHHIQQQIHHHHHH", 56) if wide else ("<4s5B7xHHIIIIIHHHHHH", 32)
    start = struct.calcsize(header)
    ident = (b"\x7fELF", 2 if wide else 1, 1, 1, 0, 0)
    parts = [struct.pack(header, *ident, 4, _EM[architecture], 1, 0, start, 0, 0, start, program, len(maps), 0, 0, 0)]
    for gva, gpa in maps:
        size, offset = ram.gpa + ram.size - gpa, HEADERS + gpa - ram.gpa
        size = min(size, (1 << (64 if wide else 32)) - gva)
        if wide:
            parts.append(struct.pack("<IIQQQQQQ", 1, 7, offset, gva, gpa, size, size, 4096))
        else:
            parts.append(struct.pack("<8I", 1, offset, gva, gpa, size, size, 7, 4096))
    copy(guest.kernel.memory, path, ram.gpa, HEADERS)
    with path.open("r+b") as file:
        file.write(b"".join(parts))

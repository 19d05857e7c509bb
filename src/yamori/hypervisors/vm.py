"""What a hypervisor tells of one virtual machine: who it is, and where on the host its RAM lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SegmentKind = Literal["shared", "process", "image"]


@dataclass(frozen=True, slots=True)
class RamSegment:
    """One piece of guest RAM that is contiguous in the guest and on the host.

    Attributes:
        gpa: Guest physical address of the first byte.
        size: Bytes.
        path: What to open read-only: a file, ``/proc/PID/fd/N``, ``/proc/PID/map_files/…`` or ``/proc/PID/mem``.
        offset: Where the first byte lies in ``path``: a file offset, or the HVA for ``/proc/PID/mem``.
        kind: ``shared`` (a live VM's file or memfd, may be mapped), ``process`` (a live VM's private memory)
            or ``image`` (a file at rest, which may be truncated under us: read, never mapped).
    """

    gpa: int
    size: int
    path: str
    offset: int
    kind: SegmentKind


Layout = tuple[RamSegment, ...]
"""A guest's RAM: segments in ascending order of GPA, not overlapping."""


@dataclass(frozen=True, slots=True)
class VirtualMachine:
    """A VM or a memory image that can be attached to.

    Attributes:
        target: What a user types to name it, such as ``qemu:1234`` or ``lab:armv7``.
        name: The name its manager gave it, or what stands in for one.
        pid: Process id of the VMM on the host, ``None`` for an image.
        machine: What runs it, in words: ``qemu-system-arm virt``, ``ELF core``.
        layouts: RAM layouts that fit what is known, the most likely first. More than one where the host's side
            alone cannot tell; the guest's page tables then decide.
        base_known: False where the layout's GPAs are only a guess and the RAM base is to be inferred
            from the guest's page tables.
        lacks: What attaching lacks, one sentence each with the next step; empty when nothing.
        notes: How the layout was learnt, one short sentence each, for ``yamori doctor``.
    """

    target: str
    name: str
    pid: int | None
    machine: str
    layouts: tuple[Layout, ...]
    base_known: bool = True
    lacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

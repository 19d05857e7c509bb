"""What a hypervisor tells of one virtual machine: who it is, and where on the host its RAM lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from yamori.errors import Fault

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


class Missing(Fault):
    """Bytes that belong to the guest's memory, but that an image, or a line to it, does not give.

    Its message is what the bytes are, as in ``excluded from the dump``.
    """


class Source(Protocol):
    """Bytes by offset that are no plain file: an unpacked image, or what is asked for over a line."""

    @property
    def size(self) -> int:
        """Bytes in all, as far as they are there."""

    def read(self, size: int, offset: int) -> bytes:
        """Return ``size`` bytes at ``offset``, fewer only where the source ends.

        Raises:
            Missing: The image does not give them.
            OSError: The host cannot read its file.
        """

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of what may be other than zeros within a range, in ascending order."""


@dataclass(frozen=True, slots=True)
class PackedSegment(RamSegment):
    """A piece of guest RAM that no file holds as it is: it is packed, or asked for.

    Attributes:
        source: What it is read from; ``offset`` counts in its bytes.
        raw: Whether the image is bare RAM, so that nothing in it says where it begins and ends.
    """

    source: Source = field(repr=False, compare=False)
    raw: bool = False


Layout = tuple[RamSegment, ...]
"""A guest's RAM: segments in ascending order of GPA, not overlapping."""


class Commands(Protocol):
    """The exported commands (``yamori export``) in a hypervisor, for one guest."""

    def run(self, command: str) -> list[str]:
        """Return the lines for programs of a command such as ``plist``.

        Raises:
            TargetError: It has not answered, or something else writes on its line.
        """


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
        slow: Whether memory comes so slowly that RAM cannot be read whole.
        commands: The exported commands in its hypervisor, if they are there.
    """

    target: str
    name: str
    pid: int | None
    machine: str
    layouts: tuple[Layout, ...]
    base_known: bool = True
    lacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    slow: bool = False
    commands: Commands | None = field(default=None, repr=False, compare=False)

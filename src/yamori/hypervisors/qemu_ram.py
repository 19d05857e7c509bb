"""Which mappings of a QEMU process are the guest's RAM, and how they make up its guest physical address space.

QEMU maps each RAM block once, at its exact size, with a guard page behind it (``qemu_ram_mmap`` in
``util/mmap-alloc.c``), so a block is found by its size and by what backs it. Several mappings may fit: flash of the
same size, or equal NUMA nodes. Then each way of choosing is a layout of its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from yamori.hypervisors.process import Mapping, descriptors
from yamori.hypervisors.qemu_boards import Placement
from yamori.hypervisors.qemu_commandline import Backend, CommandLine
from yamori.hypervisors.vm import Layout, RamSegment

_PAGE = 4096
_MOST_LAYOUTS = 6


class Block(NamedTuple):
    """A RAM block of QEMU and the mapping that holds it."""

    size: int
    mapping: Mapping


def wanted(command: CommandLine, default_size: int) -> tuple[Backend, ...]:
    """Return the blocks to look for, in the order of their GPAs.

    Args:
        command: The command line.
        default_size: Bytes of plain RAM where the command line does not say.
    """
    if command.ram:
        return command.ram
    return (Backend(id="", kind="plain", size=command.ram_size or default_size),)


def choices(blocks: Sequence[Backend], creation: Sequence[Backend], maps: Sequence[Mapping]) -> list[tuple[Block, ...]]:
    """Return the ways in which the blocks can be the process's mappings, the most likely first; empty for none.

    Args:
        blocks: What to look for, in the order of their GPAs.
        creation: The same blocks in the order QEMU made them: earlier blocks have higher HVAs or older files.
        maps: The process's mappings.
    """
    ordered = sorted(blocks, key=lambda block: creation.index(block) if block in creation else 0)
    candidates = [_candidates(block, maps) for block in ordered]
    found = []
    # The bound is on what is looked at, too: equal candidates multiply.
    for picked in itertools.islice(itertools.product(*candidates), 4096):
        if len(set(picked)) == len(picked):
            chosen = {block.id: Block(block.size, mapping) for block, mapping in zip(ordered, picked, strict=True)}
            found.append(tuple(chosen[block.id] for block in blocks))
        if len(found) == _MOST_LAYOUTS:
            break
    return found


def _candidates(block: Backend, maps: Sequence[Mapping]) -> list[Mapping]:
    """Return the mappings that can hold a block, the most likely first."""
    size = -(-block.size // _PAGE) * _PAGE
    guards = {mapping.start for mapping in maps if mapping.perms.startswith("---")}
    fitting = [m for m in maps if m.perms.startswith("rw-") and m.size == size and not m.path.startswith("[")]
    if block.kind == "file":
        named = [m for m in fitting if m.inode and _names(block.path, m.path)]
        fitting = named or [m for m in fitting if m.inode]
    elif block.kind == "memfd":
        fitting = [m for m in fitting if m.path.startswith(("/memfd:", "/anon_hugepage"))]
    # Files count up, mappings grow down; a block has a guard behind it unless another mapping hides it.
    return sorted(fitting, key=lambda m: (bool(m.inode) and m.inode, m.end not in guards, -m.start))


def _names(given: str, mapped: str) -> bool:
    """Say whether ``mem-path`` can be the mapped file: it may be relative, or a directory of unlinked files."""
    mapped = mapped.removesuffix(" (deleted)")
    return given.rpartition("/")[2] == mapped.rpartition("/")[2] or mapped.startswith(given.rstrip("/") + "/")


def join(placement: Placement, blocks: Iterable[Block], sources: Sources) -> Layout:
    """Lay blocks one behind the other into the pieces of a placement."""
    pieces = [(gpa, size) for gpa, size in placement if size]
    segments = []
    for block in blocks:
        done = 0
        while done < block.size and pieces:
            gpa, room = pieces[0]
            size = min(room, block.size - done)
            segments.append(sources.segment(gpa, size, block.mapping, done))
            done += size
            pieces[:1] = [(gpa + size, room - size)] if room > size else []
    return tuple(sorted(segments, key=lambda segment: segment.gpa))


class Sources:
    """What to open for a mapping of a process.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._files: dict[tuple[int, int], str] = {}
        for number, link in descriptors(pid).items():
            if link.startswith("/"):
                path = f"/proc/{pid}/fd/{number}"
                for identity in _identities(path):
                    self._files.setdefault(identity, path)

    def segment(self, gpa: int, size: int, mapping: Mapping, skip: int) -> RamSegment:
        """Return the segment that begins ``skip`` bytes into a mapping: its file where that is the memory itself."""
        path = self._shared(mapping)
        if path:
            return RamSegment(gpa, size, path, mapping.offset + skip, "shared")
        return RamSegment(gpa, size, f"/proc/{self._pid}/mem", mapping.start + skip, "process")

    def _shared(self, mapping: Mapping) -> str:
        if not (mapping.shared and mapping.inode):
            return ""
        file = (mapping.device, mapping.inode)
        if file in self._files:
            return self._files[file]
        path = f"/proc/{self._pid}/map_files/{mapping.start:x}-{mapping.end:x}"
        return next((p for p in (mapping.path, path) if file in _identities(p) and os.access(p, os.R_OK)), "")


def _identities(path: str) -> Iterator[tuple[int, int]]:
    try:
        status = os.stat(path)  # noqa: PTH116 - a pathlib object would add nothing but its cost, a hundred times a VM
    except OSError:
        return
    yield status.st_dev, status.st_ino

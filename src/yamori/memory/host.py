"""A guest's physical memory as the host gives it: through a mapping where that is safe, else by positioned reads.

Only what cannot shrink is mapped, because a mapped file that is truncated kills its readers with SIGBUS: a memfd sealed
with ``F_SEAL_SHRINK``, as QEMU's ``memory-backend-memfd`` is by default. And only small reads go through the mapping:
a read of a mapped hole makes the host allocate it, a positioned read does not.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Self

from yamori.address import GPA
from yamori.errors import MemoryFault, TargetError
from yamori.hypervisors.process import Mapping, mappings
from yamori.hypervisors.vm import Layout, Missing, PackedSegment, RamSegment, SegmentKind
from yamori.memory.physical import HostExtent, Region
from yamori.memory.source import file_data

_PAGE = mmap.PAGESIZE
_GAP = 16 * _PAGE
"""Holes below this are not worth a region of their own: reading them costs less than skipping them."""

_PRESENT_OR_SWAPPED = bytes(1 if value & 0xC0 else 0 for value in range(256))
"""Of the top byte of a pagemap entry: bit 63 is present, bit 62 swapped (admin-guide/mm/pagemap.rst of the kernel)."""
_TOP_BYTE = 7 if sys.byteorder == "little" else 0
_PAGEMAP_CHUNK = 1 << 16  # pages


_CUT_SHORT: dict[SegmentKind, str] = {
    "image": "the image became shorter while it was read",
    "shared": "the VM's memory was cut off while it was read",
    # mem_rw() in fs/proc/base.c of the kernel returns 0 once nobody uses the address space.
    "process": "the VM has ended",
}


def open_readonly(path: str) -> int:
    """Open guest memory: the only step that needs privileges. Whatever has the descriptor can read, and only read.

    Raises:
        TargetError: It is not there, or this user may not read it.
    """
    try:
        # Not to wait for a FIFO's writer, should the path have come to name one.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        raise TargetError("no permission to read it", where=path, hint="run as root or as its owner") from None
    except (FileNotFoundError, ProcessLookupError):
        gone = "the VM has ended" if path.startswith("/proc/") else "no such file"
        raise TargetError(gone, where=path) from None
    except OSError as error:
        raise TargetError(f"cannot be opened: {error.strerror}", where=path) from None


class _Span:
    """An open segment."""

    __slots__ = ("end", "fd", "gpa", "packed", "pread", "segment", "shift", "window")

    def __init__(self, segment: RamSegment, fd: int) -> None:
        self.packed = segment if isinstance(segment, PackedSegment) else None
        self.pread: Callable[[int, int], bytes] = self.packed.source.read if self.packed else partial(os.pread, fd)
        self.segment = segment
        self.gpa = segment.gpa
        self.end = segment.gpa + segment.size
        self.fd = fd
        self.shift = segment.offset - segment.gpa
        self.window = _window(segment, fd)


class HostMemory:
    """Guest physical memory over a layout; a ``PhysicalMemory``.

    Args:
        layout: Where the RAM lies on the host.
        pid: The VM's process, if it is a live one, so that its end is noticed.

    Raises:
        TargetError: A segment cannot be opened, or is shorter than the RAM it should hold.
    """

    def __init__(self, layout: Layout, *, pid: int | None = None) -> None:
        self._files: dict[str, int] = {}
        self._spans: list[_Span] = []
        self._process = -1
        try:
            if pid is not None:
                self._process = _watch(pid)
            for segment in layout:
                if isinstance(segment, PackedSegment):
                    self._spans.append(_Span(segment, -1))
                    continue
                if segment.path not in self._files:
                    self._files[segment.path] = open_readonly(segment.path)
                fd = self._files[segment.path]
                if pid is not None:
                    _check_identity(segment, fd, pid)
                _check_size(segment, fd)
                self._spans.append(_Span(segment, fd))
        except BaseException:
            self.close()
            raise
        self.regions = tuple(_joined((Region(segment.gpa, segment.size) for segment in layout), gap=0))
        self._last = self._spans[0] if self._spans else None

    def __enter__(self) -> Self:
        """Return the memory itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close everything."""
        self.close()

    def close(self) -> None:
        """Close everything; a second time does nothing. A mapping goes once no run of native code uses it."""
        for span in self._spans:
            close: Callable[[], object] | None = getattr(span.packed and span.packed.source, "close", None)
            if close:  # of a line: somebody else may want it
                close()
        self._spans = []
        self._last = None
        for fd in self._files.values():
            os.close(fd)
        self._files = {}
        if self._process >= 0:
            os.close(self._process)
            self._process = -1

    def check_alive(self) -> None:
        """Make sure that the VM still runs, where its process id was given.

        Shared memory can be read beyond its VM's end, so only asking shows it.

        Raises:
            TargetError: The VM has ended.
        """
        if self._process < 0:
            return
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        if poll.poll(0):
            raise TargetError("the VM has ended")

    def read(self, gpa: GPA, size: int) -> bytes:
        """Return exactly ``size`` bytes at ``gpa``.

        Raises:
            MemoryFault: Any of the bytes lies outside the guest's RAM, or the host no longer gives it.
            TargetError: The VM has ended, or its memory was cut short.
        """
        span = self._last
        if span is None or gpa < span.gpa or gpa + size > span.end:
            span = self._find(gpa, size)
            if span is None:
                return self._gather(gpa, size)
            self._last = span
        at = gpa + span.shift
        if size <= _PAGE and span.window is not None:
            data = span.window[at : at + size]
        else:
            try:
                data = span.pread(size, at)
            except (OSError, OverflowError):
                data = None
            except Missing as missing:
                raise MemoryFault(gpa, size, missing.message) from None
        if data is not None and len(data) == size:
            return data
        return self._rest(span, gpa, size, data)

    def populated(self) -> Iterator[Region]:
        """Yield the parts of the regions that may hold something other than zeros, in ascending order.

        Holes below 64 KiB are included, but for those of a packed image: what it left out cannot be read.
        """
        parts = (_joined(_extents(span), gap=0 if span.packed else _GAP) for span in self._spans)
        yield from _joined((region for part in parts for region in part), gap=0)

    def extents(self) -> tuple[HostExtent, ...] | None:
        """Say where the host keeps the guest's RAM, for native code; files are open until ``close``.

        ``None`` for a packed image, which only ``read`` can unpack.
        """
        if any(span.packed for span in self._spans):
            return None
        return tuple(
            HostExtent(
                gpa=span.gpa,
                size=span.segment.size,
                buffer=span.window,
                offset=span.segment.offset,
                fd=span.fd,
                holes=span.segment.kind == "process",
            )
            for span in self._spans
        )

    def forget(self, *, renew: bool = False) -> bool:
        """Let what is asked for over a line be asked for anew; return whether there is such a thing.

        Args:
            renew: As ``physical.forget`` has it.
        """
        slow = False
        for span in self._spans:
            drop: Callable[..., bool] | None = getattr(span.packed and span.packed.source, "forget", None)
            slow |= bool(drop and drop(renew=renew))
        return slow

    def lacks(self) -> str:
        """Say what is missing of what was asked for over a line; empty where nothing is."""
        for span in self._spans:
            tell: Callable[[], str] | None = getattr(span.packed and span.packed.source, "lacks", None)
            if tell and (said := tell()):
                return said
        return ""

    def _find(self, gpa: int, size: int) -> _Span | None:
        return next((span for span in self._spans if span.gpa <= gpa and gpa + size <= span.end), None)

    def _gather(self, gpa: int, size: int) -> bytes:
        """Read across segments that follow each other."""
        if (
            size < 0
            or not self._spans
            or not any(region.gpa <= gpa and gpa + size <= region.end for region in self.regions)
        ):
            raise self._outside(gpa, size)
        overlaps = ((max(gpa, span.gpa), min(gpa + size, span.end)) for span in self._spans)
        return b"".join(self.read(GPA(start), end - start) for start, end in overlaps if start < end)

    def _outside(self, gpa: int, size: int) -> MemoryFault:
        end = self.regions[-1].end if self.regions else 0
        raw = bool(self._spans) and _is_raw(self._spans[0])
        if not raw or gpa + size <= end:
            return MemoryFault(gpa, size)
        why = "was it cut short, or is its RAM base wrong (--ram-base)?"
        return MemoryFault(gpa, size, f"beyond the end of the image, {end:#x}: {why}")

    def _rest(self, span: _Span, gpa: int, size: int, data: bytes | None) -> bytes:
        """Handle a read that failed or came back short."""
        if size < 0:
            raise MemoryFault(gpa, size)
        where, kind = span.segment.path, span.segment.kind
        if data:  # one read gives at most 2 GiB less a page
            return data + self.read(GPA(gpa + len(data)), size - len(data))
        if data is None and kind == "process":
            raise MemoryFault(gpa, size, "no longer given by the host")
        raise TargetError("the host can no longer read it" if data is None else _CUT_SHORT[kind], where=where)


def _is_raw(span: _Span) -> bool:
    """Say whether memory is a bare image of RAM: others begin with headers that say where their memory lies."""
    return span.packed.raw if span.packed else span.segment.kind == "image" and not span.segment.offset


def _watch(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise TargetError("the VM has ended", where=f"process {pid}") from None
    except OSError:
        return -1  # a kernel without pidfd_open (before 5.3): its end then shows in the reads alone


def _check_identity(segment: RamSegment, fd: int, pid: int) -> None:
    """Make sure that a descriptor is a file that the VM maps: its number may have been given to another meanwhile.

    Raises:
        TargetError: It is not.
    """
    if segment.kind != "shared":
        return
    status = os.fstat(fd)
    try:
        mapped = any(m.shared and (m.device, m.inode) == (status.st_dev, status.st_ino) for m in mappings(pid))
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError("the VM has ended", where=f"process {pid}") from None
    except OSError as error:
        raise TargetError(f"its mappings cannot be read: {error.strerror}", where=f"process {pid}") from None
    if not mapped:
        raise TargetError("this is no longer the file that the VM has as its RAM", where=segment.path, hint="try again")


def _check_size(segment: RamSegment, fd: int) -> None:
    if segment.kind == "process":
        return
    size = os.fstat(fd).st_size
    if size < segment.offset + segment.size:
        what = f"the file has {size} bytes where {segment.offset + segment.size} are needed"
        raise TargetError(what, where=segment.path, hint="it was truncated")


def _window(segment: RamSegment, fd: int) -> mmap.mmap | None:
    """Map a segment's file up to the segment's end where it can never shrink, so that offsets are the file's own."""
    if segment.kind != "shared":
        return None
    try:
        # A huge page cannot be had for a hole when the pool is empty, which is SIGBUS, too.
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK or os.fstat(fd).st_blksize != _PAGE:
            return None
        return mmap.mmap(fd, segment.offset + segment.size, mmap.MAP_SHARED, mmap.PROT_READ)
    except (OSError, ValueError, OverflowError):
        return None


def _joined(regions: Iterable[Region], gap: int) -> Iterator[Region]:
    """Join ascending regions that are at most ``gap`` bytes apart."""
    start = end = -1
    for region in regions:
        if start >= 0 and region.gpa - end <= gap:
            end = region.end
            continue
        if start >= 0:
            yield Region(start, end - start)
        start, end = region
        end += start
    if start >= 0:
        yield Region(start, end - start)


def _extents(span: _Span) -> Iterator[Region]:
    start, limit = span.segment.offset, span.segment.offset + span.segment.size
    if span.segment.kind == "process":
        found = _process_extents(span.segment)
    elif span.packed:
        found = span.packed.source.data(start, limit)
    else:
        found = file_data(span.fd, start, limit)
    for start, end in found:
        yield Region(start - span.shift, end - start)


def _process_extents(segment: RamSegment) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the HVAs in use by what ``/proc/PID/pagemap`` says.

    What is not in a process's page table is zero only for anonymous private memory: a private mapping of a file still
    shows the file there, and a shared one what others wrote.
    """
    process = segment.path.removesuffix("/mem")
    start, end = segment.offset, segment.offset + segment.size
    try:
        anonymous = _anonymous(mappings(int(process.rpartition("/")[2])), start, end)
        pagemap = os.open(f"{process}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        yield start, end
        return
    try:
        yield from _pagemap_extents(pagemap, start, end) if anonymous else [(start, end)]
    finally:
        os.close(pagemap)


def _anonymous(maps: list[Mapping], start: int, end: int) -> bool:
    covered = (m for m in maps if m.start < end and start < m.end)
    return all(m.inode == 0 and not m.shared for m in covered)


def _pagemap_extents(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    for chunk in range(start, end, _PAGEMAP_CHUNK * _PAGE):
        pages = -(-(min(end, chunk + _PAGEMAP_CHUNK * _PAGE) - chunk) // _PAGE)
        try:
            entries = os.pread(pagemap, pages * 8, chunk // _PAGE * 8)
        except OSError:
            entries = b""
        if len(entries) != pages * 8:
            yield chunk, end
            return
        used = entries[_TOP_BYTE::8].translate(_PRESENT_OR_SWAPPED)
        at = used.find(1)
        while at >= 0:
            behind = used.find(0, at)
            behind = behind if behind >= 0 else pages
            yield chunk + at * _PAGE, min(chunk + behind * _PAGE, end)
            at = used.find(1, behind)

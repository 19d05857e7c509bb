"""Compressed kdumps, as ``makedumpfile`` and QEMU's ``dump-guest-memory -z`` (``-l``, ``-s``) write them.

The format is in makedumpfile's ``diskdump_mod.h`` and ``IMPLEMENTATION``: one block with ``disk_dump_header``, a
``kdump_sub_header``, two bitmaps with a bit for each page (first: the page is RAM; second: it is in the dump), a
``page_desc`` for each page that is in the dump, and the pages. QEMU's writer is ``dump/dump.c``, which writes the same
two bitmaps equal and the subheader of 32 bits without padding. A dump has the byte order of its guest.

On 32-bit Arm, makedumpfile counts pages from ``phys_base`` on (``ARCH_PFN_OFFSET``), elsewhere from GPA 0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from yamori.errors import TargetError
from yamori.hypervisors.vm import Missing, Source
from yamori.memory.bitmap import Bitmap
from yamori.memory.codecs import Codec, codec
from yamori.memory.lzo import DamagedError
from yamori.memory.source import Contents, Piece, read_exactly

MAGICS = (b"KDUMP   ",)

_MACHINE = slice(272, 337)  # utsname.machine: the fifth of six fields of 65 bytes from 12 on
_RELEASE = slice(142, 207)
_FIELDS = "IiiIIIIIIi"  # status block_size sub_hdr_size bitmap_blocks max_mapnr total device written cpu nr_cpus
_HEADER_PLACES = (412, 424)
"""Where ``status`` lies behind a ``timeval`` of two 32-bit words, or of two 64-bit ones."""
_NARROW = (b"arm", b"i386", b"i486", b"i586", b"i686", b"mips\0", b"ppc\0", b"riscv32")
_BLOCKS = frozenset(1 << bits for bits in range(12, 19))
_SUB_SIZE = 104
_MOST_SUB_BLOCKS = 1 << 10
_MOST_PAGES = 1 << 32
_MOST_PIECES = 1 << 10
"""A guest has a few, a large machine a hundred."""
_CACHED = 4 << 20

_METHODS = {0x1: "zlib", 0x2: "lzo", 0x4: "snappy", 0x20: "zstd"}  # DUMP_DH_COMPRESSED_*
_INCOMPLETE = 0x8
_ZERO_PAGES = 1
"""The dump level that leaves out nothing but pages of zeros (``-d`` of makedumpfile(8))."""
_CUT = "cut short: the dump ends before them"


class _Header(NamedTuple):
    """What counts of both headers. ``level`` is the dump level, ``base`` the page that bit 0 stands for."""

    order: str
    status: int
    block: int
    bitmap_at: int
    bitmap_size: int
    pages: int
    level: int
    split: bool
    base: int
    release: str


def parse(source: Source, where: str) -> Contents:
    """Read a kdump's headers and count its pages.

    Raises:
        TargetError: It is malformed, cut short, only a part, or packed with what needs a library.
    """
    head = _header(source, where)
    dump = Dump(source, head, where)
    pieces = _pieces(dump, head)
    if not pieces:
        raise TargetError("this kdump holds no memory", where=where, hint="it is malformed")
    total, dumped = dump.ram.count * head.block, dump.dumped.count * head.block
    release = head.release or "(it does not say)"
    notes = [f"kdump of {total} bytes of memory in {len(pieces)} segments, of Linux {release}"]
    if len(pieces) > _MOST_PIECES:
        pieces = pieces[:-1]
        notes.append(f"its RAM is in tatters: what lies behind GPA {pieces[-1].end:#x} is left out")
    if dumped < total:
        lost = "zeros" if head.level == _ZERO_PAGES else "excluded from the dump"
        notes.append(f"{total - dumped} bytes are {lost} (dump level {head.level})")
    if head.status & _INCOMPLETE:
        notes.append("it says of itself that it is incomplete: what was not written reads as cut short")
    return Contents("kdump", dump, pieces, tuple(notes))


class Dump:
    """The pages of a kdump; a ``Source`` whose offsets are GPAs.

    Attributes:
        ram: The pages that are RAM.
        dumped: Those that are in the dump.
        size: Of the guest's physical memory, holes included.
    """

    def __init__(self, source: Source, head: _Header, where: str) -> None:
        self._source = source
        self._where = where
        self._block = head.block
        self._base = head.base
        self._order = head.order
        self._zeros = head.level == _ZERO_PAGES
        half = head.bitmap_size // 2
        single = half < -(-head.pages // (8 * head.block)) * head.block  # as dumps without exclusion once had
        self.ram = Bitmap(source, head.bitmap_at, head.pages)
        self.dumped = self.ram if single else Bitmap(source, head.bitmap_at + half, head.pages)
        self._table = head.bitmap_at + head.bitmap_size
        self._descriptor = struct.Struct(head.order + "QII8x")
        self.size = (head.base + head.pages) * head.block
        if self._table + self.dumped.count * self._descriptor.size > source.size and not head.status & _INCOMPLETE:
            raise TargetError("its table of pages is cut off", where=where, hint="it was cut short: copy it again")
        self._codecs: dict[str, Codec] = {}
        for flag, name in _METHODS.items():
            if head.status & flag:
                self._codecs[name] = codec(name, where)
        self._page = lru_cache(maxsize=_CACHED // head.block)(self._unpacked)

    def read(self, size: int, offset: int) -> bytes:
        """Return ``size`` bytes at a GPA.

        Raises:
            Missing: Some of them were excluded, are damaged or cut short, or are no RAM.
        """
        if size <= 0:
            return b""
        first, skip = divmod(offset, self._block)
        behind = -(-(offset + size) // self._block)
        data = b"".join(self._pages(first - self._base, behind - self._base))
        return data[skip : skip + size] if len(data) != size else data

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the GPAs of what is in the dump."""
        first, behind = start // self._block - self._base, -(-end // self._block) - self._base
        for low, high in self.dumped.runs(first, behind):
            yield max((low + self._base) * self._block, start), min((high + self._base) * self._block, end)

    def _pages(self, first: int, behind: int) -> Iterator[bytes]:
        """Yield pages by number."""
        if behind - first == 1 and first in self.dumped:  # most reads are small
            yield from self._dumped(first, behind)
            return
        at = first
        for low, high in self.dumped.runs(first, behind):
            yield from self._left_out(at, low)
            yield from self._dumped(low, high)
            at = high
        yield from self._left_out(at, behind)

    def _left_out(self, first: int, behind: int) -> Iterator[bytes]:
        if first == behind:
            return
        if next(self.ram.runs(first, behind), None) != (first, behind):
            raise Missing("outside the guest's RAM")
        if not self._zeros:
            raise Missing("excluded from the dump")
        yield bytes((behind - first) * self._block)

    def _dumped(self, first: int, behind: int) -> Iterator[bytes]:
        step = self._descriptor.size
        table = self._source.read((behind - first) * step, self._table + self.dumped.before(first) * step)
        if len(table) != (behind - first) * step:
            raise Missing(_CUT)
        for offset, size, flags in self._descriptor.iter_unpack(table):
            yield self._page(offset, size, flags)

    def _unpacked(self, offset: int, size: int, flags: int) -> bytes:
        """Return the page that a descriptor stands for. Pages of zeros share one, so it is what the cache goes by."""
        if not offset:  # what makedumpfile did not come to write, for want of room
            raise Missing(_CUT)
        if size > self._block:
            raise Missing("damaged in the dump")
        data = self._source.read(size, offset)
        if len(data) != size:
            raise Missing(_CUT)
        name = next((name for flag, name in _METHODS.items() if flags & flag), "")
        if not name:
            if size != self._block:
                raise Missing("damaged in the dump")
            return data
        if name not in self._codecs:
            self._codecs[name] = codec(name, self._where)
        try:
            return self._codecs[name](data, self._block)
        except DamagedError as error:
            raise Missing(f"damaged in the dump ({error})") from None


def _header(source: Source, where: str) -> _Header:
    data = read_exactly(source, 4096, 0, where)
    for order in "<>":
        for place in _HEADER_PLACES:
            fields = struct.unpack_from(order + _FIELDS, data, place)
            if _plausible(fields):
                narrow = place == _HEADER_PLACES[0] or data[_MACHINE].startswith(_NARROW)
                sub = read_exactly(source, _SUB_SIZE, fields[1], where)
                head = _with_sub_header(data, sub, order, fields, narrow=narrow)
                return _checked(head, source, where)
    raise TargetError("its header contradicts itself", where=where, hint="it is malformed, or of a kind not known")


def _plausible(fields: tuple[int, ...]) -> bool:
    """Say whether fields of the header were read at the right place: the bitmap has room for all pages."""
    _, block, sub_blocks, bitmap_blocks, pages, *_ = fields
    return block in _BLOCKS and 0 < sub_blocks <= _MOST_SUB_BLOCKS and bitmap_blocks * block * 8 >= pages


def _with_sub_header(data: bytes, sub: bytes, order: str, fields: tuple[int, ...], *, narrow: bool) -> _Header:
    status, block, sub_blocks, bitmap_blocks, pages, *_ = fields
    (version,) = struct.unpack_from(order + "I", data, 8)
    # unsigned long phys_base; int dump_level, split. Of what comes behind only the 64-bit max_mapnr is needed, which
    # 32-bit guests can do without.
    phys_base, level, split = struct.unpack_from(order + ("Iii" if narrow else "Qii"), sub)
    if version >= 6 and not narrow:
        (pages,) = struct.unpack_from(order + "Q", sub, 96)
    counts_from_base = narrow and data[_MACHINE].startswith(b"arm")
    return _Header(
        order=order,
        status=status,
        block=block,
        bitmap_at=(1 + sub_blocks) * block,
        bitmap_size=bitmap_blocks * block,
        pages=pages,
        level=level if version >= 1 else -1,
        split=version >= 2 and split != 0,
        base=phys_base // block if counts_from_base else 0,
        release="".join(filter(str.isprintable, data[_RELEASE].split(b"\0")[0].decode("ascii", "replace"))),
    )


def _checked(head: _Header, source: Source, where: str) -> _Header:
    if head.split:
        hint = "join the parts with `makedumpfile --reassemble PARTS OUTPUT`"
        raise TargetError("this is one part of a kdump that was split", where=where, hint=hint)
    if head.pages > head.bitmap_size * 8 or head.pages > _MOST_PAGES:
        raise TargetError(f"its header tells of {head.pages} pages", where=where, hint="it is malformed")
    if head.bitmap_at + head.bitmap_size > source.size:
        raise TargetError("its bitmaps are cut off", where=where, hint="it was cut short: copy it again")
    return head


def _pieces(dump: Dump, head: _Header) -> tuple[Piece, ...]:
    """Return the RAM as far as it has a bounded number of pieces, and one more where it has more."""
    runs = islice(dump.ram.runs(0, head.pages), _MOST_PIECES + 1)
    return tuple(Piece(gpa := (head.base + low) * head.block, (high - low) * head.block, gpa) for low, high in runs)

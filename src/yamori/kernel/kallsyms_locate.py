"""Where the kernel's own symbol table lies in guest physical memory, and in which of its formats.

The kernel image is contiguous in physical memory, so nothing here is translated. Every byte is the guest's: a table
is believed only when all the arrays agree with each other.
"""

from __future__ import annotations

import operator
import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from yamori.address import GPA
from yamori.errors import MemoryFault
from yamori.kernel.kallsyms_tables import (
    BLOCK,
    MAX_LENGTH,
    MAX_PAD,
    MAX_TABLE,
    TOKENS,
    Encoding,
    Tables,
    addresses_of,
    read_tokens,
    read_words,
    walk_names,
    words_of,
)
from yamori.memory.physical import PhysicalMemory

NEEDLE = b"".join(b"%d\0" % digit for digit in range(10))
"""The tokens ``0`` to ``9`` of ``kallsyms_token_table``: the names in every kernel hold digits, so each is a token."""

_NAME = b"kallsyms_lookup_name"
PLAIN_NEEDLE = bytes([len(_NAME) + 1]) + b"T" + _NAME
"""A name as it is stored where names are not compressed, with its length and letter: this one every kallsyms has."""

_DIGIT_TOKEN = 0x30
_MAX_BLOCK = BLOCK * (MAX_LENGTH + 2)
_MAX_SYMBOLS = 1 << 19
_MAX_NAMES = 1 << 24
_MAX_TRIES = 8
_MAX_COUNTS = 512
_MAX_DISTANCE = 1 << 28
"""From .rodata to the start of the image; as a 32-bit address it is above where any kernel starts."""
_MAX_OFFSET = 1 << 30
"""From the first symbol to most others: no image is larger, and 32-bit kernels have no lower address."""
_WORD_OF_ALIGNMENT = {4: 4, 8: 8, 16: 4, 256: 8}


class Tokens(NamedTuple):
    """A token table.

    Attributes:
        start: GPA of ``kallsyms_token_table``.
        index_at: GPA of ``kallsyms_token_index``.
    """

    start: int
    index_at: int


class _Markers(NamedTuple):
    start: int
    size: int
    values: list[int]


class _Names(NamedTuple):
    count_at: int
    start: int
    size: int
    symbols: int
    big_lengths: bool


class _Addresses(NamedTuple):
    start: int
    encoding: Encoding
    word_size: int
    base: int


def locate(memory: PhysicalMemory, hit: GPA) -> Tables | None:
    """Find and check the tables around one occurrence of ``NEEDLE``.

    Args:
        memory: The guest's physical memory.
        hit: Where ``NEEDLE`` or ``PLAIN_NEEDLE`` lies.

    Returns:
        The tables, or ``None`` where the hit is not part of a whole and consistent kallsyms, as it is for other
        tables of digits, for an image that was never relocated, and for a table that was tampered with. A copy of a
        kernel image is as consistent as the live one: compare several finds through the guest's page tables.
    """
    try:
        if _read_from(memory, hit, len(PLAIN_NEEDLE)) == PLAIN_NEEDLE:
            return _locate_plain(memory, hit)
        tokens = find_tokens(memory, hit)
        if tokens is None:
            return None
        for markers in _find_markers(memory, tokens.start):
            names = _find_names(memory, markers)
            if names is not None:
                return _find_addresses(memory, names, tokens, markers, tokens.index_at + 2 * TOKENS)
    except MemoryFault:  # the tables would leave the guest's RAM
        return None
    return None


def _locate_plain(memory: PhysicalMemory, hit: int) -> Tables | None:
    """Find and check tables without tokens around one of the names.

    Raises:
        MemoryFault: They would leave the guest's RAM.
    """
    for markers in _find_markers_behind(memory, hit):
        names = _find_names(memory, markers)
        if names is not None:
            end = markers.start + markers.size * len(markers.values)
            alignment = names.start - names.count_at
            behind = -(-end // alignment) * alignment
            if tables := _find_addresses(memory, names, Tokens(behind, behind), markers, behind):
                return tables
    return None


def _find_markers_behind(memory: PhysicalMemory, name: int) -> Iterator[_Markers]:
    """Yield what may be ``kallsyms_markers`` behind the name at ``name``: names lead on to it one by one."""
    data = _read_from(memory, name, _MAX_NAMES)
    for big_lengths in (True, False):
        end = _end_of_names(data, big_lengths=big_lengths)
        for alignment in _WORD_OF_ALIGNMENT:
            at = name + end + -(name + end) % alignment
            for size in (4, 8):
                found = _read_from(memory, at, _MAX_SYMBOLS // BLOCK * size)
                values = words_of(found[: len(found) // size * size], size)
                last = 1
                while last < len(values) and _is_step(values[last] - values[last - 1]):
                    last += 1
                # What follows the markers may look like one more.
                for stop in (last, last - 1):
                    if stop > 1 and not values[0]:
                        yield _Markers(at, size, list(values[:stop]))


def _end_of_names(data: bytes, *, big_lengths: bool) -> int:
    """Return where the names that start at 0 end: at a length that is none, or where there are too many."""
    at = 0
    for count, most in ((BLOCK, _MAX_SYMBOLS // BLOCK), (1, BLOCK)):
        for _ in range(most):
            step = walk_names(data, at, count, big_lengths=big_lengths)
            if not step:
                break
            at = step[-1]
    return at


def find_tokens(memory: PhysicalMemory, hit: int) -> Tokens | None:
    """From the token ``0``, walk forward to the index, which tells where the table starts.

    Raises:
        MemoryFault: It would leave the guest's RAM.
    """
    tail = _read_from(memory, hit, MAX_TABLE + MAX_PAD + 2 * TOKENS)
    if not tail.startswith(NEEDLE):
        return None
    rest = tail.split(b"\0", TOKENS - _DIGIT_TOKEN)
    if len(rest) <= TOKENS - _DIGIT_TOKEN:
        return None
    end = len(tail) - len(rest[-1])
    padding = len(rest[-1]) - len(rest[-1].lstrip(b"\0"))
    # The index starts with a zero and goes on with the length of a string, which has a lower byte other than 0.
    index = ((hit + end + padding) & ~1) - 2
    if index % 4 or not end <= index - hit <= end + MAX_PAD:
        return None
    offsets = struct.unpack("<256H", memory.read(GPA(index), 2 * TOKENS))
    start = hit - offsets[_DIGIT_TOKEN]
    if start < 0 or start % 4 or read_tokens(memory, start, index) is None:
        return None
    return Tokens(start, index)


def _find_markers(memory: PhysicalMemory, token_table: int) -> Iterator[_Markers]:
    """Yield what may be ``kallsyms_markers``: ascending from 0, just before the token table or before the seqs."""
    window = _read_before(memory, token_table, _MAX_SYMBOLS // BLOCK * 8 + MAX_PAD)
    padding = len(window) - len(window.rstrip(b"\0"))
    for size in (4, 8):
        behind = padding // size * size
        values = words_of(window[: len(window) - behind], size)
        first = len(values) - 1
        while first > 0 and _is_step(values[first] - values[first - 1]):
            first -= 1
        found = list(values[first:])
        if len(found) > 1 and found[0] == 0:
            yield _Markers(token_table - behind - size * len(found), size, found)
    yield from islice(_find_markers_before_seqs(memory, token_table), _MAX_TRIES)


def _is_step(step: int) -> bool:
    return 2 * BLOCK <= step <= _MAX_BLOCK


def _find_markers_before_seqs(memory: PhysicalMemory, token_table: int) -> Iterator[_Markers]:
    """Yield the same for 6.2 and 6.3, where three bytes a symbol (19bd8981dc2e) lie between markers and token table."""
    words = words_of(_read_before(memory, token_table, _MAX_SYMBOLS * 3 + _MAX_SYMBOLS // BLOCK * 4), 4)
    start = len(words)
    while (start := _previous_zero(words, start)) >= 0:
        end = start + 1
        while end < len(words) and _is_step(words[end] - words[end - 1]):
            end += 1
        # The first of the seqs may look like one more marker.
        for stop in (end, end - 1):
            between = 4 * (len(words) - stop)
            count = between // 3
            if stop - start > 1 and 0 <= count - BLOCK * (stop - start - 1) <= BLOCK + MAX_PAD:
                yield _Markers(token_table - 4 * (len(words) - start), 4, list(words[start:stop]))


def _find_names(memory: PhysicalMemory, markers: _Markers) -> _Names | None:
    """Find the names before the markers by the count that stands before them, and walk all of them."""
    for names in islice(_names_candidates(memory, markers), _MAX_TRIES):
        size = _size_of_names(memory, markers, names)
        if size:
            return names._replace(size=size)
    return None


def _names_candidates(memory: PhysicalMemory, markers: _Markers) -> Iterator[_Names]:
    """Yield where the names may start: so that the first block is as long as the second marker says."""
    for count_at, start, count in islice(_count_candidates(memory, markers), _MAX_COUNTS):
        data = memory.read(GPA(start), markers.values[1])
        for big_lengths in (True, False):
            if walk_names(data, 0, BLOCK, big_lengths=big_lengths)[-1:] == [len(data)]:
                yield _Names(count_at, start, 0, count, big_lengths)


def _count_candidates(memory: PhysicalMemory, markers: _Markers) -> Iterator[tuple[int, int, int]]:
    """Yield GPA of a possible count, GPA of the names that would follow it, and the count, the last in memory first."""
    blocks, last = len(markers.values), markers.values[-1]
    if last > _MAX_NAMES or blocks * BLOCK > _MAX_SYMBOLS:
        return
    end = markers.start - last & ~3
    words = words_of(_read_before(memory, end, _MAX_BLOCK + 2 * MAX_PAD), 4)
    for at in range(len(words) - 1, -1, -1):
        if BLOCK * (blocks - 1) < words[at] <= BLOCK * blocks:
            count_at = end - 4 * (len(words) - at)
            for alignment in _WORD_OF_ALIGNMENT:
                padding = words[at + 1 : at + alignment // 4]
                if count_at % alignment == 0 and not any(padding) and count_at + alignment < end:
                    yield count_at, count_at + alignment, words[at]


def _size_of_names(memory: PhysicalMemory, markers: _Markers, names: _Names) -> int:
    """Walk all the names: every block must end at the next marker, the last one just before the markers; else 0."""
    data = memory.read(GPA(names.start), markers.start - names.start)
    end = 0
    for begin, left in zip(markers.values, range(names.symbols, 0, -BLOCK), strict=True):
        block = walk_names(data, begin, min(left, BLOCK), big_lengths=names.big_lengths)
        if not block or begin != end:
            return 0
        end = block[-1]
    return end if len(data) - end < MAX_PAD and not any(data[end:]) else 0


def _find_addresses(
    memory: PhysicalMemory, names: _Names, tokens: Tokens, markers: _Markers, behind: int
) -> Tables | None:
    alignment = names.start - names.count_at
    for candidate in _address_candidates(memory, names, behind, alignment):
        tables = Tables(
            token_table=tokens.start,
            token_index=tokens.index_at,
            names=names.start,
            names_size=names.size,
            markers=markers.start,
            marker_size=markers.size,
            addresses=candidate.start,
            count=names.symbols,
            encoding=candidate.encoding,
            word_size=candidate.word_size,
            relative_base=candidate.base,
            big_lengths=names.big_lengths,
        )
        try:
            values = addresses_of(read_words(memory, tables), tables, tables.relative_base)
        except MemoryFault:  # so it lies elsewhere
            continue
        if values is not None and _is_plausible(values, tables):
            return tables
    return None


def _address_candidates(memory: PhysicalMemory, names: _Names, behind: int, alignment: int) -> Iterator[_Addresses]:
    """Yield where the addresses may lie: behind all that is in front of them since 6.4, or before the count.

    An encoding that can be checked more strictly comes before one that would believe its bytes.
    """
    word = _WORD_OF_ALIGNMENT[alignment]
    relatives: tuple[Encoding, ...] = ("relative", "relative, absolute per-CPU") if word == 8 else ("relative",)
    before = (names.count_at - alignment - 4 * names.symbols) // alignment * alignment
    for start in (behind, before):
        end = start + 4 * names.symbols
        base_at = -(-end // alignment) * alignment
        if start < 0 or any(_read_from(memory, end, base_at - end)):
            continue
        base = int.from_bytes(_read_from(memory, base_at, word), "little")
        yield from (_Addresses(start, encoding, word, base) for encoding in relatives)
    yield _Addresses(behind, "absolute", word, 0)
    yield _Addresses((names.count_at - word * names.symbols) // alignment * alignment, "absolute", word, 0)
    if alignment == 4:
        yield _Addresses(behind, "PC-relative", 0, 0)


def _is_plausible(values: Sequence[int], tables: Tables) -> bool:
    """Whether the addresses ascend, are many, and lie where kernels lie.

    A few out of order are let pass: one entry changed by an intruder shall not cost all the symbols.
    """
    count = len(values)
    descents = sum(map(operator.gt, values, islice(values, 1, None)))
    if descents * 256 > count or len(set(values)) * 4 < count:
        return False
    if tables.encoding == "PC-relative":
        # The image starts with its text, and these tables lie in .rodata.
        return any(-_MAX_DISTANCE < value < 0 for value in values[:2])
    kernel = kernel_part(tables.word_size)
    if tables.encoding == "relative":
        # Plain addresses of 32 bits are no offsets: read as such they would be far behind the base, wherever that is.
        kernel = range(max(kernel.start, tables.relative_base), min(kernel.stop, tables.relative_base + _MAX_OFFSET))
    # Per-CPU symbols of x86-64, and the vectors of old 32-bit Arm kernels, have small values.
    return sum([value in kernel for value in values]) * 4 > count * 3


def kernel_part(word_size: int) -> range:
    """Return where three quarters of a kernel's symbols lie at least.

    On 32 bits the kernel starts at 0x40000000 at the lowest (VMSPLIT_1G); on 64 bits the widest kernel half is that of
    57 bits.
    """
    return range(0x40000000, (1 << 32) - _MAX_DISTANCE) if word_size == 4 else range(0xFF << 56, 1 << 64)


def _previous_zero(words: array[int], end: int) -> int:
    """Return the index of the last zero before ``end``, or -1."""
    return next((at for at in range(end - 1, -1, -1) if not words[at]), -1)


def _read_from(memory: PhysicalMemory, gpa: int, size: int) -> bytes:
    """Read up to ``size`` bytes at ``gpa``, fewer where the RAM region ends."""
    for region in memory.regions:
        if region.gpa <= gpa < region.end:
            return memory.read(GPA(gpa), min(size, region.end - gpa))
    return b""


def _read_before(memory: PhysicalMemory, end: int, size: int) -> bytes:
    """Read up to ``size`` bytes that end before ``end``, fewer where the RAM region starts."""
    for region in memory.regions:
        if region.gpa < end <= region.end:
            start = max(region.gpa, end - size)
            return memory.read(GPA(start), end - start)
    return b""

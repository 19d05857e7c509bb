"""The formats of the kernel's own symbol table, kallsyms, and how to read its arrays from guest physical memory.

``scripts/kallsyms.c`` writes these arrays into the kernel's ``.rodata``, each aligned, padded with zeros:

* ``kallsyms_token_table``: 256 strings, each ended by NUL; ``kallsyms_token_index``: 256 ``u16``, their offsets;
* ``kallsyms_names``: for each symbol a length and that many token numbers, which expand to type letter and name;
* ``kallsyms_markers``: the offset in ``kallsyms_names`` of every 256th symbol; ``kallsyms_num_syms``;
* ``kallsyms_addresses``, or ``kallsyms_offsets`` and ``kallsyms_relative_base``.

What changed over time (commits of the Linux kernel):

* 2213e9a66bb8 (4.6): offsets and a relative base; ``KALLSYMS_ABSOLUTE_PERCPU`` on x86-64 with SMP;
* 80ffbaa5b1bd (4.20): the count and the markers are ``unsigned int`` instead of ``unsigned long``;
* 73bbb94466fd (6.1): lengths are ULEB128 of one or two bytes;
* 60443c88f3a8 and 19bd8981dc2e (6.2, and in later 6.1 stable kernels): ``kallsyms_seqs_of_names``, three bytes a
  symbol, first between markers and token table;
* 404bad70fcf7 (6.4): num_syms, names, markers, token_table, token_index, addresses, seqs_of_names, in place of
  addresses, num_syms, names, markers, (seqs_of_names,) token_table, token_index;
* a081b5789255 (7.0): offsets count from the place where each is stored, and everything is aligned to 4 bytes;
  32-bit kernels that cannot be relocated store plain addresses in ``kallsyms_offsets``.

OpenWrt's kernels have neither token table nor token index: names are stored as they are
(``CONFIG_KALLSYMS_UNCOMPRESSED``, its patch ``203-kallsyms_uncompressed``).

The alignment is that of a word, or its square by way of ``.align`` on the architectures where that takes a power of
two (16 bytes on 32-bit Arm, 256 on arm64 and RISC-V, in old kernels).
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from yamori.address import GPA
from yamori.memory.physical import PhysicalMemory

Encoding = Literal["absolute", "relative", "relative, absolute per-CPU", "PC-relative"]
"""How the addresses are stored."""

TOKENS = 256
"""Strings of the token table."""
BLOCK = 256
"""Names from one marker to the next."""
MAX_TABLE = 8192
"""Bytes of a token table that is believed; the largest seen has 1,100."""
MAX_PAD = 256
"""Bytes of the widest alignment."""
MAX_LENGTH = 512
"""``KSYM_NAME_LEN`` of ``include/linux/kallsyms.h`` since b8a94bfb3395 (6.1), 128 before: the most that a type letter
and a name take; a compressed name is no longer."""
_MAX_TOKEN = 128
_HEAD = 1 << 24
"""Bytes from the start of the kernel's image within which its second symbol lies; 64 KiB at most seen."""
PLAIN = [chr(code) if 0x20 < code < 0x7F else "\n" for code in range(TOKENS)]
"""What bytes stand for where names are not compressed; what is no letter breaks a name, and so the count of names."""
_PRINTABLE = re.compile(rb"[!-~\0]*")


@dataclass(frozen=True, slots=True)
class Tables:
    """The arrays of one kernel's kallsyms.

    Attributes:
        token_table: GPA of ``kallsyms_token_table``; where there is none, of what follows the markers.
        token_index: GPA of ``kallsyms_token_index``; where there is none, the same as ``token_table``.
        names: GPA of ``kallsyms_names``.
        names_size: Bytes of ``kallsyms_names``.
        markers: GPA of ``kallsyms_markers``.
        marker_size: Bytes of one marker, 4 or 8.
        addresses: GPA of ``kallsyms_addresses`` or ``kallsyms_offsets``.
        count: ``kallsyms_num_syms``.
        encoding: How the addresses are stored.
        word_size: Bytes of an ``unsigned long``; 0 where the format does not tell (PC-relative).
        relative_base: ``kallsyms_relative_base``, 0 where there is none.
        big_lengths: Whether a length with bit 7 set goes on in a second byte.
    """

    token_table: int
    token_index: int
    names: int
    names_size: int
    markers: int
    marker_size: int
    addresses: int
    count: int
    encoding: Encoding
    word_size: int
    relative_base: int
    big_lengths: bool

    @property
    def entry_size(self) -> int:
        """Bytes of one entry of ``addresses``."""
        return self.word_size if self.encoding == "absolute" else 4


def read_tokens(memory: PhysicalMemory, start: int, index: int) -> list[str] | None:
    """Return the 256 tokens, or ``None`` where table and index do not agree.

    Args:
        memory: The guest's physical memory.
        start: GPA of ``kallsyms_token_table``.
        index: GPA of ``kallsyms_token_index``; the same as ``start`` where each byte stands for itself.

    Raises:
        MemoryFault: They leave the guest's RAM.
    """
    if start == index:
        return PLAIN
    if not 0 < index - start <= MAX_TABLE + MAX_PAD:
        return None
    table = memory.read(GPA(start), index - start)
    offsets = struct.unpack("<256H", memory.read(GPA(index), 2 * TOKENS))
    tokens = table.split(b"\0", TOKENS)
    if len(tokens) <= TOKENS or tokens.pop().strip(b"\0") or not _PRINTABLE.fullmatch(table):
        return None
    at = 0
    for token, offset in zip(tokens, offsets, strict=True):
        if offset != at or len(token) > _MAX_TOKEN:
            return None
        at += len(token) + 1
    return [token.decode("ascii") for token in tokens]


def walk_names(data: bytes, at: int, count: int, *, big_lengths: bool) -> list[int]:
    """Return where the lengths of ``count`` names from ``at`` on lie, and the end; empty where these are no names.

    Args:
        data: ``kallsyms_names``.
        at: Offset of a name's length.
        count: Names to pass.
        big_lengths: Whether a length with bit 7 set goes on in a second byte (ULEB128, 73bbb94466fd).
    """
    size = len(data)
    found = [at]
    for _ in range(count):
        if at >= size:
            return []
        length = data[at]
        if length > 0x7F and big_lengths:
            at += 1
            length = length & 0x7F | (data[at] << 7 if at < size else 0)
        if not 0 < length <= MAX_LENGTH:
            return []
        at += length + 1
        found.append(at)
    return found if at <= size else []


def read_words(memory: PhysicalMemory, tables: Tables) -> array[int]:
    """Return ``kallsyms_addresses`` or ``kallsyms_offsets`` as stored, in the order of the source.

    Raises:
        MemoryFault: They leave the guest's RAM.
    """
    size = tables.entry_size
    return words_of(memory.read(GPA(tables.addresses), size * tables.count), size)


def addresses_of(words: array[int], tables: Tables, base: int) -> Sequence[int] | None:
    """Return the addresses that words stand for, or ``None`` where they do not start as their encoding does.

    Follows ``kallsyms_sym_address`` of ``kernel/kallsyms.c``. One entry may be wrong, the first, too: an intruder who
    changes it shall not cost all the symbols.

    Args:
        words: What ``read_words`` returned.
        tables: Which are the tables.
        base: ``kallsyms_relative_base``; for ``PC-relative`` the GVA of ``kallsyms_offsets``, or 0, and then addresses
            count from there and may be negative.
    """
    starts = True
    if tables.encoding == "relative":
        # The base is the lowest symbol (record_relative_base of scripts/kallsyms.c).
        starts = not words[0] or words[1] < _HEAD
    elif tables.encoding == "relative, absolute per-CPU":
        signed = array("i", words.tobytes())
        starts = any(offset >= -_HEAD for offset in islice((offset for offset in signed if offset < 0), 2))
    return values_of(words, tables, base) if starts else None


def highest(tables: Tables, base: int) -> int:
    """Return the highest address that can be: where the format does not tell the word size, the place does."""
    return (1 << 32) - 1 if tables.word_size == 4 or base < 1 << 32 else (1 << 64) - 1


def values_of(words: array[int], tables: Tables, base: int) -> Sequence[int]:
    """Return what ``addresses_of`` does, of any part of the entries, without looking at how they start."""
    if tables.encoding == "absolute":
        return words
    mask = highest(tables, base)
    if tables.encoding == "relative":
        return [base + offset & mask for offset in words]
    signed = array("i", words.tobytes())
    if tables.encoding == "PC-relative":
        if not base:
            return [offset + place for offset, place in zip(signed, range(0, 4 * len(signed), 4), strict=True)]
        return [
            offset + place & mask for offset, place in zip(signed, range(base, base + len(signed) * 4, 4), strict=True)
        ]
    return [offset if offset >= 0 else base - 1 - offset & mask for offset in signed]


def read_markers(memory: PhysicalMemory, tables: Tables) -> Sequence[int]:
    """Return ``kallsyms_markers``: the offsets in the names of symbols 0, 256, 512, ...

    Raises:
        MemoryFault: They leave the guest's RAM.
    """
    count = -(-tables.count // BLOCK)
    return words_of(memory.read(GPA(tables.markers), count * tables.marker_size), tables.marker_size)


def read_names(memory: PhysicalMemory, tables: Tables) -> bytes:
    """Return ``kallsyms_names``, compressed.

    Raises:
        MemoryFault: They leave the guest's RAM.
    """
    return memory.read(GPA(tables.names), tables.names_size)


def words_of(data: bytes, size: int) -> array[int]:
    """Return the little-endian words of 4 or 8 bytes that end where ``data`` ends."""
    return array("I" if size == 4 else "Q", data[len(data) % size :])

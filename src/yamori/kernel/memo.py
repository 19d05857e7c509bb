"""Symbols and types, decoded once: what one run made of a kernel's own bytes serves every later run that meets them.

An entry is found by a digest of the guest's bytes, and it is used only where *all* the bytes that it was decoded from
are there again: to decode them would give the same. So a look-alike with other symbols or types never shares an entry,
and where the bytes lie, and in which guest, does not matter.
"""

from __future__ import annotations

import hashlib
import os
import sys
from array import array
from bisect import bisect_left
from dataclasses import replace

import msgspec

from yamori.address import GPA, GVA
from yamori.errors import Fault, MemoryFault, ProfileError
from yamori.kernel import kallsyms
from yamori.kernel.btf import BtfTypes
from yamori.kernel.btf_format import Table, header_length, read_sections, read_table
from yamori.kernel.kallsyms import Tables
from yamori.kernel.kallsyms_locate import find_tokens, kernel_part
from yamori.kernel.kallsyms_tables import BLOCK, TOKENS, highest, read_words
from yamori.kernel.store import NOWHERE, Store, unpacked
from yamori.kernel.symbols import Columns, Symbols
from yamori.memory.physical import PhysicalMemory

_WORD = 8
_ALIGNMENTS = (4, 8, 16, 256)
_ABSOLUTE = 1 << 31
"""Absolute per-CPU symbols of x86-64 lie below: they are stored in 31 bits. What moves with the image lies above."""


class _Kallsyms(msgspec.Struct, array_like=True):
    """Symbols as they were decoded once.

    Attributes:
        tables: Where the arrays lie, counted from the token table; without the relative base.
        span: From where to where they lie, likewise.
        base_at: Where the relative base lies, likewise; ``None`` where the format has none.
        digest: Of all that lies there but for the base.
        base: What the symbols' addresses were counted from.
        fixed: How many of the symbols, the lowest ones, do not move with the base.
        columns: The symbols.
    """

    tables: Tables
    span: tuple[int, int]
    base_at: int | None
    digest: bytes
    base: int
    fixed: int
    columns: Columns


class _Btf(msgspec.Struct, array_like=True):
    """Where the types of a blob of BTF start: in all, and by kind."""

    starts: bytes
    of_kind: dict[int, bytes]


class Memo:
    """What is decoded in one discovery, and what earlier ones decoded.

    Args:
        store: Where that is kept; nowhere unless told.

    Attributes:
        served: What did not need to be decoded in this run: ``kallsyms``, ``BTF``.
    """

    def __init__(self, store: Store = NOWHERE) -> None:
        self.served: set[str] = set()
        self._store = store
        self._entries: dict[Tables, tuple[str, _Kallsyms | None]] = {}
        self._parsed: list[tuple[str, Table, BtfTypes]] = []

    def locate(self, memory: PhysicalMemory, hit: GPA) -> Tables | None:
        """Return the tables of kallsyms around a hit, as ``kallsyms.locate`` does."""
        if self._store.directory is None:
            return kallsyms.locate(memory, hit)
        key, entry, tables = "", None, None
        try:
            if tokens := find_tokens(memory, hit):
                text = memory.read(GPA(tokens.start), tokens.index_at + 2 * TOKENS - tokens.start)
                key = f"kallsyms-{hashlib.sha256(text).hexdigest()[:32]}"
                entry = unpacked(self._store.load(key), _Kallsyms)
                tables = _placed(memory, entry, tokens.start) if entry else None
        except MemoryFault:  # what was next to it last time is elsewhere
            tables = None
        if tables is None:
            entry, tables = None, kallsyms.locate(memory, hit)
        if tables and key:
            self._entries[tables] = key, entry
        return tables

    def decode(self, memory: PhysicalMemory, tables: Tables, place: GVA) -> Symbols:
        """Return the symbols, as ``kallsyms.decode`` does.

        Raises:
            ProfileError: They cannot be used.
        """
        _, entry = self._entries.get(tables, ("", None))
        if entry:
            symbols = _moved(entry, _base(tables, place))
            if symbols and _agree(memory, tables, _base(tables, place), symbols):
                self.served.add("kallsyms")
                return symbols
        return kallsyms.decode(memory, tables, place)

    def keep_symbols(self, memory: PhysicalMemory, tables: Tables, place: GVA, symbols: Symbols) -> None:
        """Keep what ``decode`` returned, for the next run."""
        key, entry = self._entries.get(tables, ("", None))
        if not key or (entry and "kallsyms" in self.served):
            return
        columns = symbols.columns
        try:
            base_at, fixed, span = _base_at(memory, tables), _fixed(memory, tables, columns), _span(memory, tables)
            if fixed is None or span is None or (base_at is None and tables.encoding.startswith("relative")):
                return
            digest = _digest(memory, tables, span, base_at)
        except MemoryFault:  # it has changed meanwhile
            return
        start = tables.token_table
        kept = _Kallsyms(
            tables=replace(_shifted(tables, -start), relative_base=0),
            span=(span[0] - start, span[1] - start),
            base_at=None if base_at is None else base_at - start,
            digest=digest,
            base=_base(tables, place),
            fixed=fixed,
            columns=columns,
        )
        self._store.save(key, msgspec.msgpack.encode(kept))

    def types(self, memory: PhysicalMemory, gpa: GPA, word_size: int) -> BtfTypes | None:
        """Return the types of the blob of BTF at ``gpa``, as ``btf.locate`` does."""
        try:
            length = header_length(memory.read(gpa, 8))
            blob = memory.read(gpa, read_sections(memory.read(gpa, length)).end)
            key = f"btf-{hashlib.sha256(blob).hexdigest()[:32]}" if self._store.directory else ""
            table = self._table(key, blob) if key else None
            if table:
                self.served.add("BTF")
                return BtfTypes(table, word_size)
            table = read_table(blob)
        except (Fault, ProfileError):
            return None
        types = BtfTypes(table, word_size)
        self._parsed.append((key, table, types))
        return types

    def keep_types(self, types: BtfTypes) -> None:
        """Keep what ``types`` parsed, for the next run."""
        for key, table, parsed in self._parsed:
            if parsed is types and key:
                kinds = {kind: starts.tobytes() for kind, starts in table.of_kind.items() if starts}
                self._store.save(key, msgspec.msgpack.encode(_Btf(table.starts.tobytes(), kinds)))

    def _table(self, key: str, blob: bytes) -> Table | None:
        kept = unpacked(self._store.load(key), _Btf)
        try:
            return Table.restored(blob, kept.starts, kept.of_kind) if kept else None
        except ValueError:
            self._store.drop(key)
            return None


def _base(tables: Tables, place: GVA) -> int:
    """Return what the addresses count from."""
    return place if tables.encoding == "PC-relative" else tables.relative_base


def _shifted(tables: Tables, by: int) -> Tables:
    return replace(
        tables,
        token_table=tables.token_table + by,
        token_index=tables.token_index + by,
        names=tables.names + by,
        markers=tables.markers + by,
        addresses=tables.addresses + by,
    )


def _base_at(memory: PhysicalMemory, tables: Tables) -> int | None:
    """Return where the relative base lies: behind the offsets, aligned."""
    if not tables.encoding.startswith("relative"):
        return None
    end = tables.addresses + tables.entry_size * tables.count
    for alignment in _ALIGNMENTS:
        at = -(-end // alignment) * alignment
        if int.from_bytes(memory.read(GPA(at), tables.word_size), "little") == tables.relative_base:
            return at
    return None


def _span(memory: PhysicalMemory, tables: Tables) -> tuple[int, int] | None:
    """Return from where to where all lies that tells the symbols: the arrays, what is between, and their number."""
    for alignment in _ALIGNMENTS:
        count_at = tables.names - alignment
        if int.from_bytes(memory.read(GPA(count_at), 4), "little") == tables.count:
            ends = tables.addresses + tables.entry_size * tables.count, tables.token_index + 2 * TOKENS
            return min(count_at, tables.addresses), max(ends)
    return None


def _digest(memory: PhysicalMemory, tables: Tables, span: tuple[int, int], base_at: int | None) -> bytes:
    """Return a digest of a span but for the relative base, which the boot chooses."""
    first, last = span
    digest = hashlib.sha256()
    if base_at is not None:
        behind = base_at + tables.word_size
        for start, end in ((first, min(base_at, last)), (behind, max(behind, last))):
            digest.update(memory.read(GPA(start), end - start))
        # Padding up to the base has to be there where the base is the last of all.
        digest.update(memory.read(GPA(last), max(0, base_at - last)))
    else:
        digest.update(memory.read(GPA(first), last - first))
    return digest.digest()


def _placed(memory: PhysicalMemory, entry: _Kallsyms, start: int) -> Tables | None:
    """Return where the tables of an entry lie if their token table is at ``start``; ``None`` where others lie there."""
    tables = _shifted(entry.tables, start)
    if entry.base_at is not None:
        base = int.from_bytes(memory.read(GPA(start + entry.base_at), tables.word_size), "little")
        tables = replace(tables, relative_base=base)
    span = entry.span[0] + start, entry.span[1] + start
    base_at = None if entry.base_at is None else entry.base_at + start
    if _digest(memory, tables, span, base_at) != entry.digest:
        return None
    if tables.relative_base != entry.base and tables.encoding.startswith("relative"):
        # The base is the only thing that may be another, and has to put the symbols where a kernel's lie.
        symbols = _moved(entry, tables.relative_base)
        part = kernel_part(tables.word_size)
        if symbols is None or symbols.count_in(part) * 4 <= len(symbols) * 3:
            return None
    return tables


def _fixed(memory: PhysicalMemory, tables: Tables, columns: Columns) -> int | None:
    """Return how many of the lowest symbols do not move with the base; ``None`` where others do not, either."""
    if tables.encoding != "relative, absolute per-CPU":
        return 0
    addresses = array("Q", columns.addresses)
    fixed = sum(word < _ABSOLUTE for word in read_words(memory, tables))
    return fixed if bisect_left(addresses, _ABSOLUTE) == fixed else None


def _moved(entry: _Kallsyms, base: int) -> Symbols | None:
    """Return an entry's symbols with their addresses counted from ``base``.

    As long as none passes the end of the address space, all keep their order, and one addition of a long number does
    it.
    """
    columns, by = entry.columns, base - entry.base
    most = highest(entry.tables, base)
    if by and most != highest(entry.tables, entry.base):
        return None
    try:
        if by:
            at = entry.fixed * _WORD
            rest = columns.addresses[at:]
            if rest:
                first, last = (int.from_bytes(word, sys.byteorder) + by for word in (rest[:_WORD], rest[-_WORD:]))
                if first < (_ABSOLUTE if entry.fixed else 0) or last > most:
                    return None
                steps = int.from_bytes(abs(by).to_bytes(_WORD, sys.byteorder) * (len(rest) // _WORD), sys.byteorder)
                sum_ = int.from_bytes(rest, sys.byteorder) + (steps if by > 0 else -steps)
                columns = columns._replace(addresses=columns.addresses[:at] + sum_.to_bytes(len(rest), sys.byteorder))
        return Symbols.restored(columns, "kallsyms")
    except (ValueError, OverflowError):  # no columns that we wrote
        return None


def _agree(memory: PhysicalMemory, tables: Tables, base: int, symbols: Symbols) -> bool:
    """Look at some of the symbols, decoded from the guest's memory now."""
    number = int.from_bytes(os.urandom(4)) % -(-tables.count // BLOCK)
    try:
        some = kallsyms.decode_block(memory, tables, number, base)
    except (MemoryFault, ProfileError):
        return False
    return all(symbol in symbols.aliases(symbol.address) for symbol in some)

"""The kernel's own symbols, decoded from guest physical memory: no debug info, no symbols, any kernel version.

``kallsyms_tables`` says which formats there are, ``kallsyms_locate`` finds and checks the arrays, and this file
expands them.

The addresses are those that the memory says. In a running kernel they hold the KASLR slide; in a copy of the image
that was never relocated they do not. Which one is live is for the guest's page tables to say.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import compress, islice, pairwise

from yamori.address import GPA, GVA
from yamori.errors import MemoryFault, ProfileError
from yamori.kernel.kallsyms_anchor import infer_gva_of_offsets
from yamori.kernel.kallsyms_locate import NEEDLE, PLAIN_NEEDLE, locate
from yamori.kernel.kallsyms_tables import (
    BLOCK,
    MAX_LENGTH,
    Tables,
    addresses_of,
    read_markers,
    read_names,
    read_tokens,
    read_words,
    values_of,
    walk_names,
)
from yamori.kernel.symbols import Symbol, Symbols
from yamori.memory.physical import PhysicalMemory

__all__ = ["NEEDLE", "PLAIN_NEEDLE", "Tables", "decode", "decode_block", "locate"]

_KINDS = frozenset("ABCDGINRSTUVWabcdginrstuvw-?")
"""The letters of nm(1)."""
_MAX_TEXT = 1 << 25
_MOST_DESCENTS = 16
"""Neighbours in the wrong order. None in a whole table; two for each entry that an intruder changed."""
_LONG_RUN = 64
"""Entries of a run of equal ones that is worth a look; a page holds 512 at least."""

_BLANK = (0, (1 << 32) - 1, (1 << 64) - 1)
"""What memory holds that was wiped; a few symbols in a row at most are stored as one of these."""


def decode(memory: PhysicalMemory, tables: Tables, gva_of_offsets: GVA | None = None) -> Symbols:
    """Expand the kernel's symbol table.

    Args:
        memory: The guest's physical memory.
        tables: What ``locate`` found.
        gva_of_offsets: For the PC-relative format (Linux 7.0, a081b5789255) only: the GVA at which
            ``tables.addresses``, the array ``kallsyms_offsets``, is mapped in the kernel image. That format stores
            distances only, so the tables alone do not hold the addresses. VMCOREINFO gives it
            (``SYMBOL(kallsyms_offsets)``), and so does any GVA in the image whose GPA is known. Where it is not
            given, it is inferred from the image's pointers (``kallsyms_anchor``), on 64-bit kernels.

    Returns:
        The symbols in the order of the kernel's table, with provenance ``kallsyms``.

    Raises:
        ProfileError: The memory has changed since ``locate``, or holds names that no kernel has; or the format is
            PC-relative and its place is neither given nor could be inferred.
    """
    try:
        kinds, names = _read_symbols(memory, tables)
        base = tables.relative_base
        if tables.encoding == "PC-relative":
            base = gva_of_offsets or _infer_base(memory, tables, kinds)
        words = read_words(memory, tables)
        addresses = addresses_of(words, tables, base)
    except MemoryFault as fault:
        raise _refused("it leaves the guest's RAM") from fault
    if addresses is None:
        raise _refused("the addresses do not start at their base")
    if _is_damaged(words, addresses):
        raise _refused("the addresses are damaged")
    return Symbols.from_columns(addresses, kinds, names, "kallsyms")


def _refused(why: str) -> ProfileError:
    return ProfileError(
        f"the kernel's symbol table, kallsyms, cannot be used: {why}",
        hint="give the maker's System.map with --symbols, or vmlinux with --vmlinux",
    )


def _is_damaged(words: Sequence[int], addresses: Sequence[int]) -> bool:
    """Say whether addresses are out of order, or the same many times where that breaks their order.

    A page of zeros, or of anything else, is a long run. So are some symbols of whole kernels: 80 system calls that an
    Arm kernel does not have, 8,600 empty strings of 5.10 (``__kstrtabns_``); 7.0's distances are equal where
    symbols are four bytes apart. But those are in order.
    """
    if sum(map(operator.gt, addresses, islice(addresses, 1, None))) > _MOST_DESCENTS:
        return True
    end = 0
    for first in compress(range(len(words)), map(operator.eq, words, islice(words, _LONG_RUN, None))):
        if first < end:
            continue
        end = first + 1
        while end < len(words) and words[end] == words[first]:
            end += 1
        around = addresses[max(first - 1, 0) : first + 1], addresses[end - 1 : end + 1]
        breaks = not first or words[first] in _BLANK or any(max(pair) > pair[-1] for pair in around)
        if end - first > _LONG_RUN and breaks:
            return True
    return False


def _infer_base(memory: PhysicalMemory, tables: Tables, kinds: str) -> GVA:
    distances: Sequence[int] = addresses_of(read_words(memory, tables), tables, 0) or array("q")
    functions = (distance for distance, kind in zip(distances, kinds, strict=True) if kind in "tT")
    base = infer_gva_of_offsets(memory, tables, functions)
    if base is None:
        raise _refused("its addresses are relative to a place that is not known")
    return base


def _read_symbols(memory: PhysicalMemory, tables: Tables) -> tuple[str, list[str]]:
    """Return the type letters and the names."""
    kinds: list[str] = []
    names: list[str] = []
    total = 0
    for lines in _read_blocks(memory, tables):
        lengths = [len(line) for line in lines]
        total += sum(lengths)
        if min(lengths) < 2 or max(lengths) > MAX_LENGTH or total > _MAX_TEXT:
            raise _refused("a name is empty or too long")
        kinds += [line[0] for line in lines]
        names += [line[1:] for line in lines]
    if len(names) != tables.count:
        raise _refused("there are fewer names than the count says")
    if not _KINDS.issuperset(kinds):
        raise _refused("a letter is no type of symbol")
    return "".join(kinds), names


def _read_blocks(memory: PhysicalMemory, tables: Tables) -> Iterator[list[str]]:
    """Yield letter and name of each symbol, as many at once as there are from one marker to the next."""
    tokens = read_tokens(memory, tables.token_table, tables.token_index)
    if tokens is None:
        raise _refused("token table and token index do not agree")
    data = read_names(memory, tables)
    bounds = pairwise([*read_markers(memory, tables), tables.names_size])
    for (start, end), left in zip(bounds, range(tables.count, 0, -BLOCK), strict=True):
        yield _expand(data[start:end], min(left, BLOCK), tokens, tables)


def _expand(data: bytes, count: int, tokens: list[str], tables: Tables) -> list[str]:
    """Return letter and name of each symbol of a block."""
    lengths = walk_names(data, 0, count, big_lengths=tables.big_lengths)
    if not lengths or lengths.pop() != len(data):
        raise _refused("names and markers do not agree")
    # Every byte is expanded, the lengths too, and then these are overwritten: three times as fast as cutting the names
    # out first.
    parts = [tokens[byte] for byte in data]
    for length in lengths:
        parts[length] = "\n"
        if tables.big_lengths and data[length] > 0x7F:
            parts[length + 1] = ""
    return "".join(parts)[1:].split("\n")


def decode_block(memory: PhysicalMemory, tables: Tables, number: int, base: int) -> list[Symbol]:
    """Return the symbols from one marker to the next: enough for a look whether a whole table is of these.

    Args:
        memory: The guest's physical memory.
        tables: What ``locate`` found.
        number: Which block, from 0.
        base: ``kallsyms_relative_base``, or for the PC-relative format the GVA of ``kallsyms_offsets``.

    Raises:
        MemoryFault: They leave the guest's RAM.
        ProfileError: The memory has changed since ``locate``.
    """
    tokens = read_tokens(memory, tables.token_table, tables.token_index)
    if tokens is None:
        raise _refused("token table and token index do not agree")
    start, end = [*read_markers(memory, tables), tables.names_size][number : number + 2]
    first = number * BLOCK
    count = min(BLOCK, tables.count - first)
    if not 0 < end - start <= (MAX_LENGTH + 2) * count:
        raise _refused("names and markers do not agree")
    lines = _expand(memory.read(GPA(tables.names + start), end - start), count, tokens, tables)
    part = replace(tables, addresses=tables.addresses + first * tables.entry_size, count=count)
    # In the PC-relative format each entry counts from where it is stored.
    addresses = values_of(read_words(memory, part), part, base + 4 * first if part.encoding == "PC-relative" else base)
    return [Symbol(address, line[:1], line[1:]) for address, line in zip(addresses, lines, strict=True)]

"""XArrays, and with them IDRs and the page cache: ``lib/xarray.c``, since 4.20 (f8d5d0cc145c)."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.llview.language import Array, Struct, at, helper, local_array, stop, u8, u32, u64, ulong

CHUNK_SHIFT = 6
"""``XA_CHUNK_SHIFT``; 4 with ``CONFIG_BASE_SMALL``, which is not served."""
CHUNK = 1 << CHUNK_SHIFT
MOST_DEEP = 11
"""Nodes from the root to a leaf of 64-bit indices."""
INTERNAL = 2
"""``xa_is_internal``: the two lowest bits. Beyond ``RESERVED`` it is a node, else a sibling, zero or retry entry."""
RESERVED = 4096


class xa_node(Struct):  # noqa: N801  a name of the kernel, as all here
    """A node of ``CHUNK`` slots."""

    shift: u8
    slots: Array[ulong]


class xarray(Struct):  # noqa: N801
    """An array: one entry, or a node."""

    xa_head: ulong


@helper
def is_node(entry: ulong) -> bool:
    """Say whether an entry is a node (``xa_is_node``)."""
    return entry & 3 == INTERNAL and entry > RESERVED


@helper
def for_each_xa_entry(array: xarray) -> Iterator[tuple[int, int]]:
    """Go through (index, entry) of an XArray in order; entries are pointers or tagged values, never internal ones."""
    nodes = local_array(u64, MOST_DEEP + 1)
    places = local_array(u32, MOST_DEEP + 1)
    indices = local_array(u64, MOST_DEEP + 1)
    depth: u32 = 0
    entry: ulong = array.xa_head
    index: u64 = 0
    done = False
    while not done:
        if is_node(entry):
            if depth > MOST_DEEP:
                stop("the array is deeper than any can be, at", entry)
            nodes[depth] = entry - INTERNAL
            places[depth] = 0
            indices[depth] = index
            depth += 1
        elif entry & 3 != INTERNAL and entry != 0:
            yield index, entry
        entry = 0
        while depth > 0 and places[depth - 1] == CHUNK:
            depth -= 1
        if depth == 0:
            done = True
        else:
            node = at(xa_node, ulong(nodes[depth - 1]))
            place = places[depth - 1]
            places[depth - 1] = place + 1
            entry = node.slots[place]
            index = indices[depth - 1] + (u64(place) << node.shift)

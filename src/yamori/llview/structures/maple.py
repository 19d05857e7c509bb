"""Maple trees, which hold a process's mappings since 6.1 (d4af56c5c7c6): ``lib/maple_tree.c``.

A node is 256 bytes at a multiple of that, so the bits below say of which type it is. A node's pivots are the last
indices of its slots; those behind the last one that is used are 0, and the node's own last index counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from yamori.llview.language import (
    Array,
    Struct,
    address_of,
    at,
    helper,
    local_array,
    sizeof,
    stop,
    torn,
    u8,
    u32,
    ulong,
    word_at,
)

MOST_DEEP = 31  # MAPLE_HEIGHT_MAX
NODE_BITS = 255
TYPE_SHIFT = 3
TYPE_BITS = 15
LEAF_64, ARANGE_64 = 1, 3
"""``enum maple_type``: ``maple_leaf_64`` and ``maple_arange_64``; ``maple_dense`` is nowhere made."""
INTERNAL, TAG = 2, 3
RESERVED = 4096
"""``xa_is_node`` of what is at the top, and ``xa_is_zero`` of entries: what is no pointer lies below."""


class maple_range_64(Struct):  # noqa: N801  a name of the kernel, as all here
    """A leaf, or a node above."""

    parent: ulong
    pivot: Array[ulong]
    slot: Array[ulong]


class maple_arange_64(Struct):  # noqa: N801
    """A node of a tree that knows its gaps."""

    parent: ulong
    pivot: Array[ulong]
    slot: Array[ulong]


class maple_tree(Struct):  # noqa: N801
    """A tree: one entry, or a node."""

    ma_root: ulong


@helper
def node_of(entry: ulong) -> ulong:
    """Return where a node lies: ``mte_to_node``."""
    return entry - (entry & NODE_BITS)


@helper
def type_of(entry: ulong) -> u8:
    """Return of which type a node is: ``mte_node_type``."""
    return u8(entry >> TYPE_SHIFT & TYPE_BITS)


@helper
def pivots(entry: ulong) -> ulong:
    """Return where the pivots of a node begin."""
    node = node_of(entry)
    if type_of(entry) == ARANGE_64:
        return address_of(at(maple_arange_64, node).pivot)
    return address_of(at(maple_range_64, node).pivot)


@helper
def slots(entry: ulong) -> ulong:
    """Return where the slots of a node begin, right behind its pivots, of which there is one less."""
    node = node_of(entry)
    if type_of(entry) == ARANGE_64:
        return address_of(at(maple_arange_64, node).slot)
    return address_of(at(maple_range_64, node).slot)


@helper
def for_each_mt_entry(tree: maple_tree) -> Iterator[int]:
    """Go through the entries of a tree in order. One that has no node holds what is at 0 alone, and is taken as empty.

    What lies below a node that names another parent is left out, and the run is ``torn``.
    """
    nodes = local_array(ulong, MOST_DEEP)
    places = local_array(u32, MOST_DEEP)
    lasts = local_array(ulong, MOST_DEEP)
    top = tree.ma_root
    depth: u32 = 0
    if top & TAG == INTERNAL and top > RESERVED:
        nodes[0] = top
        places[0] = 0
        lasts[0] = ulong(0) - 1
        depth = 1
    while depth > 0:
        entry = nodes[depth - 1]
        place = places[depth - 1]
        last = lasts[depth - 1]
        first = pivots(entry)
        ways = (slots(entry) - first) // sizeof(ulong)
        pivot: ulong = 0
        if place < ways:
            pivot = word_at(first + place * sizeof(ulong))
        below = word_at(slots(entry) + place * sizeof(ulong))
        ended = place == ways or pivot == last or (pivot == 0 and place > 0)
        if ended:
            pivot = last
            depth -= 1
        else:
            places[depth - 1] = place + 1
        if below > RESERVED:
            if type_of(entry) == LEAF_64:
                yield below
            elif word_at(node_of(below)) - (word_at(node_of(below)) & NODE_BITS) != node_of(entry):
                torn("a node of a tree has another parent", below)
            else:
                if depth == MOST_DEEP:
                    stop("the tree is deeper than any can be, at", below)
                nodes[depth] = below
                places[depth] = 0
                lasts[depth] = pivot
                depth += 1

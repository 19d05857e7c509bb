"""XArrays, the radix trees before them, and with them IDRs and the page cache: ``lib/xarray.c``, ``lib/radix-tree.c``.

``struct xarray`` and ``struct xa_node`` replaced ``radix_tree_root`` and ``radix_tree_node`` in 4.20 (f8d5d0cc145c),
with other tags (3159f943aafd) and siblings (02c02bf12c5d). Trees from before 4.7, whose nodes have no ``shift``, are
not served: a program that needs them is not run. A program says ``xarray`` for both kinds.
"""

from __future__ import annotations

from collections.abc import Iterator

from yamori.llview.language import (
    Array,
    Struct,
    address_of,
    at,
    exists,
    helper,
    local_array,
    sizeof,
    stop,
    torn,
    u8,
    u32,
    u64,
    ulong,
    word_at,
)

MOST_DEEP = 16
"""Nodes from the root to a leaf of 64-bit indices, each of 16 slots (``CONFIG_BASE_SMALL``) or more."""
TAG = 3
INTERNAL = 2
"""``xa_is_internal``, 4.20 and later. Beyond ``RESERVED`` it is a node, else a sibling, zero or retry entry."""
RESERVED = 4096
RETRY = 256 << 2 | INTERNAL
OLD_INTERNAL = 1
"""``RADIX_TREE_INTERNAL_NODE``, 4.7 to 4.19: a node, a sibling (a slot of the same node), or, alone, "retry"."""


class xa_node(Struct):  # noqa: N801  a name of the kernel, as all here
    """A node: some slots, and right behind them its marks."""

    shift: u8
    offset: u8
    parent: ulong
    slots: Array[ulong]
    marks: Array[ulong]


class xarray(Struct):  # noqa: N801
    """An array: one entry, or a node."""

    xa_head: ulong


class radix_tree_node(Struct):  # noqa: N801
    """An ``xa_node`` of before 4.20."""

    shift: u8
    offset: u8
    parent: ulong
    slots: Array[ulong]
    tags: Array[ulong]


class radix_tree_root(Struct):  # noqa: N801
    """An ``xarray`` of before 4.20."""

    rnode: ulong


@helper
def head_of(array: xarray) -> ulong:
    """Return the entry at the top."""
    if exists(array.xa_head):
        return array.xa_head
    return at(radix_tree_root, address_of(array)).rnode


@helper
def shift_of(address: ulong) -> u8:
    """Return by how many bits the index of a node's slot is shifted."""
    node = at(xa_node, address)
    if exists(node.shift):
        return node.shift
    return at(radix_tree_node, address).shift


@helper
def first_slot(address: ulong) -> ulong:
    """Return where the slots of a node begin."""
    node = at(xa_node, address)
    if exists(node.slots):
        return address_of(node.slots)
    return address_of(at(radix_tree_node, address).slots)


@helper
def end_of_slots(address: ulong) -> ulong:
    """Return where the slots of a node end; how many there are is a matter of the kernel's configuration."""
    node = at(xa_node, address)
    if exists(node.marks):
        return address_of(node.marks)
    return address_of(at(radix_tree_node, address).tags)


@helper
def hangs_on(address: ulong, parent: ulong, place: u32) -> bool:
    """Say whether a node says that it hangs on that slot of that node.

    The topmost has no parent, and its ``offset`` says nothing: ``xas_alloc`` and ``xas_shrink`` (``lib/xarray.c``), and
    ``radix_tree_shrink`` before them, leave what was there.
    """
    node = at(xa_node, address)
    if exists(node.parent):
        return node.parent == parent and (parent == 0 or node.offset == place)
    old = at(radix_tree_node, address)
    return old.parent == parent and (parent == 0 or old.offset == place)


@helper
def is_internal(array: xarray, entry: ulong) -> bool:
    """Say whether an entry belongs to the array itself."""
    if exists(array.xa_head):
        return entry & TAG == INTERNAL
    return entry & TAG == OLD_INTERNAL


@helper
def is_retry(array: xarray, entry: ulong) -> bool:
    """Say whether an entry stands where something was moved away meanwhile."""
    if exists(array.xa_head):
        return entry == RETRY
    return entry == OLD_INTERNAL


@helper
def is_node(array: xarray, entry: ulong, parent: ulong) -> bool:
    """Say whether an internal entry of a node is a node: ``xa_is_node``, and none that ``is_sibling_entry``."""
    if exists(array.xa_head):
        return entry > RESERVED
    return entry < first_slot(parent) or entry >= end_of_slots(parent)


@helper
def for_each_xa_entry(array: xarray) -> Iterator[tuple[int, int]]:
    """Go through (index, entry) of an array in order; entries are pointers or tagged values, never internal ones.

    What lies below a node that does not name the slot it hangs on is left out, and the run is ``torn``: so no node is
    looked at twice, whatever the guest has made of it. An entry of several indices is given once, with its first.
    """
    nodes = local_array(ulong, MOST_DEEP)
    places = local_array(u32, MOST_DEEP)
    indices = local_array(u64, MOST_DEEP)
    span = end_of_slots(0) - first_slot(0)
    depth: u32 = 0
    entry = head_of(array)
    index: u64 = 0
    node: ulong = 0
    place: u32 = 0
    done = False
    while not done:
        if not is_internal(array, entry):
            if entry != 0:
                yield index, entry
        elif is_retry(array, entry):
            torn("an array was changed while it was read, at", node)
        elif is_node(array, entry, node):
            below = entry - (entry & TAG)
            if not hangs_on(below, node, place):
                torn("a node of an array does not name the slot it hangs on", below)
            else:
                if depth == MOST_DEEP:
                    stop("the array is deeper than any can be, at", below)
                nodes[depth] = below
                places[depth] = 0
                indices[depth] = index
                depth += 1
        entry = 0
        while depth > 0 and places[depth - 1] * sizeof(ulong) >= span:
            depth -= 1
        if depth == 0:
            done = True
        else:
            node = nodes[depth - 1]
            place = places[depth - 1]
            places[depth - 1] = place + 1
            entry = word_at(first_slot(node) + place * sizeof(ulong))
            if entry != 0:
                index = indices[depth - 1] + (u64(place) << shift_of(node))

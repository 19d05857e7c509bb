"""Red-black trees: ``include/linux/rbtree.h``, ``lib/rbtree.c``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from yamori.llview.language import (
    NULL,
    Ptr,
    Struct,
    address_of,
    at,
    container_of,
    helper,
    stop,
    torn,
    u32,
    ulong,
)

T = TypeVar("T")

MOST_DEEP = 128
"""A tree of 2^64 nodes is no deeper: twice the logarithm."""


class rb_node(Struct):  # noqa: N801  a name of the kernel, as all here
    """A node. The two lowest bits of ``__rb_parent_color`` are no part of the address."""

    __rb_parent_color: ulong
    rb_right: Ptr[rb_node]
    rb_left: Ptr[rb_node]


class rb_root(Struct):  # noqa: N801
    """A tree. Of an ``rb_root_cached`` (4.14) it is the member ``rb_root``."""

    rb_node: Ptr[rb_node]


@helper
def parent_of(node: rb_node) -> rb_node:
    """Return ``rb_parent(node)``."""
    return at(rb_node, node.__rb_parent_color >> 2 << 2)  # noqa: SLF001  the kernel's name


@helper
def leftmost(top: rb_node, above: ulong) -> rb_node:
    """Return the first node of the tree below one whose parent is at an address."""
    node = top
    parent: ulong = above
    depth: u32 = 0
    while True:
        if address_of(parent_of(node)) != parent:
            torn("a node of a tree has another parent", node)
        left = node.rb_left
        if left == NULL:
            return node
        parent = address_of(node)
        node = left
        depth += 1
        if depth > MOST_DEEP:
            stop("the tree is deeper than any can be, at", node)


@helper
def rb_next(start: rb_node) -> rb_node:
    """Return the node after one in order, or one at address 0."""
    right = start.rb_right
    if right != NULL:
        return leftmost(right, address_of(start))
    node = start
    above = parent_of(node)
    depth: u32 = 0
    while above != NULL:
        if above.rb_right != node:
            if above.rb_left != node:
                torn("a node of a tree is no child of its parent", node)
            return above
        node = above
        above = parent_of(node)
        depth += 1
        if depth > MOST_DEEP:
            stop("the tree is deeper than any can be, at", node)
    return above


@helper
def for_each_rb_entry(root: rb_root, entry: type[T], member: str) -> Iterator[T]:
    """Go through the structures of a tree in order.

    A node and its parent that do not name each other make the run ``torn``: the tree is being turned, or lies. One that
    leads back is left at the second look at a node that was marked; the marks get rarer (Brent).
    """
    node = root.rb_node
    if node != NULL:
        node = leftmost(node, 0)
    count: u32 = 0
    mark: ulong = 0
    while node != NULL:
        if address_of(node) == mark:
            stop("the tree leads back to", node)
        if count & (count + 1) == 0:
            mark = address_of(node)
        count += 1
        yield container_of(node, entry, member)
        node = rb_next(node)

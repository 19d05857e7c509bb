"""Red-black trees: ``include/linux/rbtree.h``, ``lib/rbtree.c``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from yamori.llview.language import Ptr, Struct, address_of, at, container_of, helper, stop, torn, u32, ulong

T = TypeVar("T")

MOST_DEEP = 128
"""A tree of 2^64 nodes is no deeper: twice the logarithm."""


class rb_node(Struct):  # noqa: N801  a name of the kernel, as all here
    """A node. The two lowest bits of ``__rb_parent_color`` are no part of the address."""

    __rb_parent_color: ulong
    rb_right: Ptr[rb_node]
    rb_left: Ptr[rb_node]


class rb_root(Struct):  # noqa: N801
    """A tree."""

    rb_node: Ptr[rb_node]


@helper
def parent_of(node: rb_node) -> rb_node:
    """Return ``rb_parent(node)``."""
    return at(rb_node, node.__rb_parent_color >> 2 << 2)  # noqa: SLF001  the kernel's name


@helper
def leftmost(start: rb_node) -> rb_node:
    """Return the first node of the tree below one."""
    node = start
    depth: u32 = 0
    while address_of(node.rb_left) != 0:
        node = node.rb_left
        depth += 1
        if depth > MOST_DEEP:
            stop("the tree is deeper than any can be, at", node)
    return node


@helper
def rb_next(start: rb_node) -> rb_node:
    """Return the node after one in order, or one at address 0."""
    node = start
    if address_of(node.rb_right) != 0:
        return leftmost(node.rb_right)
    above = parent_of(node)
    depth: u32 = 0
    while address_of(above) != 0 and address_of(above.rb_right) == address_of(node):
        node = above
        above = parent_of(node)
        depth += 1
        if depth > MOST_DEEP:
            stop("the tree is deeper than any can be, at", node)
    return above


@helper
def for_each_rb_entry(root: rb_root, entry: type[T], member: str) -> Iterator[T]:
    """Go through the structures of a tree in order.

    A child whose parent is another makes the run ``torn``: the tree is being turned, or lies. A tree that leads back is
    left at the second look at a node that was marked; the marks get rarer (Brent).
    """
    node = root.rb_node
    if address_of(node) != 0:
        node = leftmost(node)
    count: u32 = 0
    mark: ulong = 0
    while address_of(node) != 0:
        if address_of(node) == mark:
            stop("the tree leads back to", node)
        if count & (count + 1) == 0:
            mark = address_of(node)
        count += 1
        right = node.rb_right
        if address_of(right) != 0 and address_of(parent_of(right)) != address_of(node):
            torn("a node of a tree has another parent", right)
        yield container_of(node, entry, member)
        node = rb_next(node)

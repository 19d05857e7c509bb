"""``struct list_head``: walked so that a hostile or changing list neither traps nor lies unnoticed.

``include/linux/list.h``. A deleted entry (``list_del_rcu``) keeps its ``next`` for readers and has ``LIST_POISON2``
as ``prev``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from yamori.llview.language import Ptr, Struct, address_of, attempt, container_of, helper, stop, torn, u32, ulong

T = TypeVar("T")


class list_head(Struct):  # noqa: N801  a name of the kernel
    """A node of a doubly linked list, or its head."""

    next: Ptr[list_head]
    prev: Ptr[list_head]


@helper
def is_linked(node: list_head) -> bool:
    """Say whether both neighbours of a node point to it: not so once it was deleted."""
    return node.next.prev == node and node.prev.next == node


@helper
def holds(node: list_head) -> bool:
    """Say whether both neighbours of a node point to it, and not where that cannot be read."""
    linked = False
    with attempt():
        linked = is_linked(node)
    return linked  # noqa: RET504  an attempt may end early


@helper
def was_deleted(node: list_head) -> bool:
    """Say whether no entry leads to the one that a node names as the one before it."""
    led_to = False
    with attempt():
        led_to = node.prev.next == node
    return not led_to


@helper
def was_passed(head: list_head, node: list_head, count: u32) -> bool:
    """Say whether a node is one of the first ``count`` of a list, its head included."""
    passed = head
    for _ in range(count):
        if passed == node:
            return True
        passed = passed.next
    return False


@helper
def for_each_entry(head: list_head, entry: type[T], member: str) -> Iterator[T]:
    """Go through the structures that are linked through ``member`` into the list at ``head``.

    Each node must link back to the one before it. Where it does not

    * somebody put another entry between them, or took this one off, between two loads: the walk goes on from where the
      list leads now;
    * or the entry before was taken off after it was given out, and its ``next`` still leads back into the list;
    * or the list leads back into its middle: it is left there;
    * or it lies, and the run is ``torn``.

    A guest that lies so often that it loops unnoticed is caught when it comes to the same place again.
    """
    previous = head
    node = head.next
    count: u32 = 1
    oddities: u32 = 0
    suspect: ulong = 0
    while node != head:
        if node.prev != previous:
            now = previous.next
            if now != node:
                node = now
                continue
            if address_of(node) == suspect:
                stop("the list loops without coming back to its head, at", node)
            if not was_deleted(previous):
                if was_passed(head, node, count):
                    stop("the list loops without coming back to its head, at", node)
                torn("an entry of a list does not link back to the one before it", node)
            oddities += 1
            if oddities & (oddities - 1) == 0:  # of more and more of them, the latest (Brent's way to find a cycle)
                suspect = address_of(node)
        elif address_of(node) == suspect:
            stop("the list loops without coming back to its head, at", node)
        yield container_of(node, entry, member)
        previous = node
        node = node.next
        count += 1

"""``struct hlist_head`` and hash tables of them: ``include/linux/list.h``, ``list_nulls.h``, ``hashtable.h``.

A deleted node (``hlist_del_rcu``) keeps its ``next`` for readers and has ``LIST_POISON2`` or 0 as ``pprev``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from yamori.llview.language import (
    Ptr,
    Struct,
    address_of,
    at,
    attempt,
    container_of,
    helper,
    named,
    sizeof,
    stop,
    torn,
    u32,
    ulong,
    word_at,
)

T = TypeVar("T")


class hlist_node(Struct):  # noqa: N801  a name of the kernel, as all here
    """A node; ``pprev`` is where the pointer to it lies. ``hlist_nulls_node`` is laid out alike."""

    next: Ptr[hlist_node]
    pprev: ulong
    link: ulong = named("next")


class hlist_head(Struct):  # noqa: N801
    """A head of one pointer."""

    first: Ptr[hlist_node]
    link: ulong = named("first")


@helper
def was_unhashed(node: hlist_node) -> bool:
    """Say whether the pointer that should lead to a node does not."""
    led_to = False
    with attempt():
        led_to = word_at(node.pprev) == address_of(node)
    return not led_to


@helper
def for_each_hlist_entry(head: hlist_head, entry: type[T], member: str) -> Iterator[T]:
    """Go through the structures on one list; it ends with NULL, or, with "nulls", in an odd number.

    Each node must name the pointer that led to it. Where it does not, and the pointer still leads there, and the entry
    before was not taken off after it was given out, the run is ``torn``. A list that loops is left at the second look
    at a node that was marked; the marks get rarer (Brent).
    """
    start = address_of(head.link)
    link = start
    previous = head.first
    node = previous
    count: u32 = 0
    mark: ulong = 0
    while address_of(node) != 0 and address_of(node) & 1 == 0:
        if node.pprev != link:
            now = word_at(link)
            if now != address_of(node):  # changed between two loads: go on from where the list leads now
                node = at(hlist_node, now)
                continue
            if link == start or not was_unhashed(previous):
                torn("an entry of a hash list does not name what leads to it", node)
        if address_of(node) == mark:
            stop("the list loops at", node)
        if count & (count + 1) == 0:
            mark = address_of(node)
        count += 1
        yield container_of(node, entry, member)
        previous = node
        link = address_of(previous.link)
        node = previous.next


@helper
def for_each_hash_entry(table: ulong, buckets: u32, entry: type[T], member: str) -> Iterator[T]:
    """Go through a hash table: an array of ``buckets`` heads at the address ``table``."""
    for bucket in range(u32(buckets)):  # a number in the source has no width of its own
        head = at(hlist_head, table + bucket * sizeof(ulong))
        for found in for_each_hlist_entry(head, entry, member):  # noqa: UP028  the language has no `yield from`
            yield found

"""``struct hlist_head`` and hash tables of them: ``include/linux/list.h``, ``list_nulls.h``, ``hashtable.h``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from yamori.llview.language import Ptr, Struct, address_of, at, container_of, helper, sizeof, stop, u32, ulong

T = TypeVar("T")


class hlist_node(Struct):  # noqa: N801  a name of the kernel, as all here
    """A node; ``pprev`` is where the pointer to it lies."""

    next: Ptr[hlist_node]
    pprev: ulong


class hlist_head(Struct):  # noqa: N801
    """A head of one pointer."""

    first: Ptr[hlist_node]


@helper
def for_each_hlist_entry(head: hlist_head, entry: type[T], member: str) -> Iterator[T]:
    """Go through the structures on one list; it ends with NULL, or, with "nulls", in an odd number.

    A list that loops is left at the second look at a node that was marked; the marks get rarer (Brent).
    """
    node = head.first
    count: u32 = 0
    mark: ulong = 0
    while address_of(node) != 0 and address_of(node) & 1 == 0:
        if address_of(node) == mark:
            stop("the list loops at", node)
        if count & (count + 1) == 0:
            mark = address_of(node)
        count += 1
        yield container_of(node, entry, member)
        node = node.next


@helper
def for_each_hash_entry(table: ulong, buckets: u32, entry: type[T], member: str) -> Iterator[T]:
    """Go through a hash table: an array of ``buckets`` heads at the address ``table``."""
    for bucket in range(buckets):
        head = at(hlist_head, table + bucket * sizeof(ulong))
        for found in for_each_hlist_entry(head, entry, member):  # noqa: UP028  the language has no `yield from`
            yield found

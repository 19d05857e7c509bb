"""``struct list_head``: walked so that a hostile or changing list neither traps nor lies unnoticed."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.errors import Fault
from yamori.kernel.kernel import Kernel, Struct

MOST_NODES = 1 << 17
MOST_LOADS = 1 << 23
"""Loads that one run may spend before no further list is walked, about ten seconds: a hostile guest can hang one long
list on every one of a hundred thousand processes."""

ATTEMPTS = 4
"""A list that changes while it is walked is walked again. A hundred nodes take about a millisecond."""


def for_each_entry(kernel: Kernel, head: int, struct: str, member: str) -> Iterator[Struct]:
    """Yield each ``struct`` linked through ``member`` into the list at ``head``.

    The nodes are gathered first, and again where ``node->prev`` does not lead back (somebody changed the list between
    two loads). Where that does not settle, what was reached is yielded and the run is marked incomplete.

    Args:
        kernel: The guest's kernel.
        head: GVA of the ``list_head`` that is not itself in an entry.
        struct: C structure of the entries.
        member: Their ``list_head``.
    """
    offset = kernel.member(struct, member).offset
    nodes, reason = _gather(kernel, head)
    for _ in range(ATTEMPTS - 1):
        if not reason:
            break
        kernel.space.clear()
        nodes, reason = _gather(kernel, head)
    if reason:
        kernel.trouble(f"list of {struct}.{member} at {head:#x}: {reason}")
    for node in nodes:
        yield Struct(kernel, struct, node - offset)


def reachable(kernel: Kernel, head: int, struct: str, member: str) -> set[int]:
    """Return the addresses of the entries that the list at ``head`` leads to now, wherever it ends."""
    offset = kernel.member(struct, member).offset
    kernel.space.clear()
    return {node - offset for node in _gather(kernel, head)[0]}


def still_linked(kernel: Kernel, node: int) -> bool:
    """Say whether the neighbours of ``node`` still point to it: false once the entry was deleted.

    Asked more than once, since a neighbour may be deleted between two loads. A guest can make it false for an entry
    that is on its list all the same: ask ``reachable`` before it is left out.
    """
    return any(_linked(kernel, node) for _ in range(ATTEMPTS))


def _linked(kernel: Kernel, node: int) -> bool:
    word = kernel.profile.init.word_size
    try:
        after, before = kernel.pointer(node), kernel.pointer(node + word)
        return kernel.pointer(after + word) == node == kernel.pointer(before)
    except Fault:
        return False


def _gather(kernel: Kernel, head: int) -> tuple[list[int], str]:
    """Return the nodes, and why the walk did not end well (empty when it did)."""
    word = kernel.profile.init.word_size
    nodes: list[int] = []
    seen: set[int] = {head}
    previous = head
    torn = ""
    if kernel.space.loads > MOST_LOADS:
        return nodes, "too much has been read already"
    try:
        node = kernel.pointer(head)
        while node != head:
            if not kernel.is_pointer(node):
                return nodes, f"{previous:#x} links to {node:#x}, which is no kernel address"
            if node in seen:
                return nodes, f"it loops at {node:#x} without coming back to its head"
            if len(nodes) >= MOST_NODES:
                return nodes, f"it is longer than {MOST_NODES} entries"
            if kernel.pointer(node + word) != previous:
                torn = f"{node:#x} does not link back to {previous:#x}"
            nodes.append(node)
            seen.add(node)
            previous, node = node, kernel.pointer(node)
    except Fault as fault:
        return nodes, str(fault)
    return nodes, torn

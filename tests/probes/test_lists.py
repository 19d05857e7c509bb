"""``list_head`` under attack: every walk ends, and says so unless it was a whole list."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.synthetic import ARM, Guest, build

from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel
from yamori.probes.lists import for_each_entry, reachable

NODES = 12


@cache
def known() -> tuple[Guest, Kernel]:
    guest = build(ARM)
    return guest, discover(guest.memory())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, NODES - 1), min_size=2 * NODES, max_size=2 * NODES))
def test_any_graph_of_nodes_ends(links: list[int]) -> None:
    guest, kernel = known()
    kernel.begin()
    offset = kernel.member("task_struct", "tasks").offset
    nodes = [guest.linear(0x10000 + 16 * index) for index in range(NODES)]
    for node, after, before in zip(nodes, links[::2], links[1::2], strict=True):
        guest.words(node, nodes[after], nodes[before])
    found = [entry.gva + offset for entry in for_each_entry(kernel, nodes[0], "task_struct", "tasks")]
    whole = [nodes[0], *found]
    assert len(whole) == len(set(whole))
    assert all(guest.word(before) == after for before, after in pairwise(whole))
    back = all(guest.word(after + 4) == before for before, after in pairwise(whole))
    assert (back and guest.word(whole[-1]) == nodes[0]) == (not kernel.troubles)
    assert {entry + offset for entry in reachable(kernel, nodes[0], "task_struct", "tasks")} == set(found)


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(1, NODES)))
def test_whole_list_is_walked_in_order(order: list[int]) -> None:
    guest, kernel = known()
    kernel.begin()
    offset = kernel.member("task_struct", "tasks").offset
    nodes = [guest.linear(0x10000 + 16 * index) for index in (0, *order)]
    guest.ring(*nodes)
    found = [entry.gva + offset for entry in for_each_entry(kernel, nodes[0], "task_struct", "tasks")]
    assert found == nodes[1:]
    assert kernel.troubles == []

"""XArrays and the radix trees before them: sound and spoiled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llview.structures.world import World, member, quick, was_noticed, words

from yamori.llview.language import Kernel, at, emit, probe, u64, ulong
from yamori.llview.machine import SlotFill
from yamori.llview.structures.xarray import for_each_xa_entry, xarray
from yamori.records import Row

RETRY, ZERO = 256 << 2 | 2, 257 << 2 | 2
SLOTS = 16
"""Where the slots of a node begin."""

kinds = pytest.mark.parametrize("old", [False, True], ids=["xarray", "radix"])


class Pair(Row, frozen=True):
    index: int
    entry: int


@probe(row=Pair)
def arrayed(kernel: Kernel, array: ulong) -> None:
    for index, entry in for_each_xa_entry(at(xarray, array)):
        if index == 2:
            continue
        emit(index=index, entry=u64(entry))


def fills(word: int, bits: int, *, old: bool) -> dict[str, SlotFill]:
    node, marks, head = (
        ("radix_tree_node", "tags", "radix_tree_root.rnode") if old else ("xa_node", "marks", "xarray.xa_head")
    )
    return {
        head: member(word, word),
        f"{node}.shift": member(0, 1),
        f"{node}.offset": member(1, 1),
        f"{node}.parent": member(8, word),
        f"{node}.slots": member(SLOTS, word << bits, word),
        f"{node}.{marks}": member(SLOTS + (word << bits), 3 * word, word),
    }


@dataclass
class Tree:
    """An array at the base of a world, as the kernel builds it: as many levels as the largest index needs."""

    world: World
    bits: int
    tag: int
    entries: dict[int, int]
    nodes: list[int] = field(default_factory=list)
    free: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        self.free = count(self.world.base + 0x400, 0x300)
        shift = 0
        while max(self.entries, default=0) >> shift >> self.bits:
            shift += self.bits
        top = self.entries.get(0, 0) if set(self.entries) <= {0} else self.node(0, shift, 0, 0)
        self.world.words(self.world.base + self.world.word, top)

    def node(self, index: int, shift: int, parent: int, offset: int) -> int:
        """Lay out a node; return the entry that leads to it."""
        address = next(self.free)
        self.nodes.append(address)
        self.world.put(address, bytes((shift, offset)))
        self.world.words(address + 8, parent)
        for place in range(1 << self.bits):
            first = index + (place << shift)
            within = [one for one in self.entries if first <= one < first + (1 << shift)]
            if within:
                entry = self.node(first, shift - self.bits, address, place) if shift else self.entries[first]
                self.world.words(self.slot(address, place), entry)
        return address | self.tag

    def slot(self, node: int, place: int) -> int:
        """Return where a slot lies."""
        return node + SLOTS + place * self.world.word


pointers = st.integers(0x1000, 1 << 28).map(lambda number: number << 2)
arrays = st.dictionaries(st.integers(0, 70) | st.integers(0, (1 << 30) - 1), pointers, max_size=5)


@words
@kinds
@given(arrays, st.sampled_from([4, 6]))
@quick
def test_every_entry_is_found_in_order(word: int, old: bool, entries: dict[int, int], bits: int) -> None:
    world = World(word)
    Tree(world, bits, 1 if old else 2, entries)
    outcome = world.run(arrayed, world.base, fills=fills(word, bits, old=old))
    assert outcome.rows == [pair for pair in sorted(entries.items()) if pair[0] != 2]
    assert (outcome.faults, outcome.troubles, outcome.ended) == (0, [], None)


@words
@kinds
def test_siblings_and_values(word: int, old: bool) -> None:
    world = World(word)
    value = 0x2223 & ~1 if old else 0x2221  # an exceptional entry; a value
    tree = Tree(world, 6, 1 if old else 2, {8: 0x1110, 63: value})
    sibling = tree.slot(tree.nodes[0], 8) | 1 if old else 8 << 2 | 2
    for place in (9, 10, 11):
        world.words(tree.slot(tree.nodes[0], place), sibling)
    if not old:
        world.words(tree.slot(tree.nodes[0], 20), ZERO)
    outcome = world.run(arrayed, world.base, fills=fills(word, 6, old=old))
    assert outcome.rows == [(8, 0x1110), (63, value)]
    assert (outcome.troubles, outcome.ended) == ([], None)


@words
@kinds
def test_entry_that_was_moved_away_is_noticed(word: int, old: bool) -> None:
    world = World(word)
    tree = Tree(world, 6, 1 if old else 2, {8: 0x1110, 63: 0x2220})
    world.words(tree.slot(tree.nodes[0], 9), 1 if old else RETRY)
    outcome = world.run(arrayed, world.base, fills=fills(word, 6, old=old))
    assert outcome.rows == [(8, 0x1110), (63, 0x2220)]
    assert outcome.torn


@words
@kinds
@given(st.data())
@quick
def test_node_that_hangs_elsewhere_is_left_out_and_noticed(word: int, old: bool, data: st.DataObject) -> None:
    world = World(word)
    tree = Tree(world, 4, tag := 1 if old else 2, {7: 0x1110, 0x77: 0x2220, 0x777: 0x3330})
    for _ in range(data.draw(st.integers(1, 30))):
        slot = tree.slot(data.draw(st.sampled_from(tree.nodes)), data.draw(st.integers(0, 15)))
        world.words(slot, data.draw(st.sampled_from(tree.nodes)) | tag)
    outcome = world.run(arrayed, world.base, fills=fills(word, 4, old=old))
    whole = outcome.rows == [(7, 0x1110), (0x77, 0x2220), (0x777, 0x3330)]
    assert whole or was_noticed(outcome)
    assert outcome.loads < 1000


@words
@kinds
@given(st.data())
@quick
def test_any_word_may_lie(word: int, old: bool, data: st.DataObject) -> None:
    world = World(word)
    tree = Tree(world, 4, tag := 1 if old else 2, {7: 0x1110, 0x77: 0x2220, 0x777: 0x3330})
    for _ in range(data.draw(st.integers(1, 8))):
        node = data.draw(st.sampled_from(tree.nodes))
        inside = data.draw(st.integers(0, 64)) * 4 + node | tag
        lie = data.draw(st.just(inside) | st.integers(0, (1 << 8 * word) - 1))
        world.words(node + word * data.draw(st.integers(0, 19)), lie)
    outcome = world.run(arrayed, world.base, fills=fills(word, 4, old=old))
    assert outcome.loads < 1000
    assert len(outcome.rows) <= 16 * len(tree.nodes)


@words
def test_node_that_stands_in_itself_is_left_out(word: int) -> None:
    world = World(word)
    tree = Tree(world, 4, 2, {7: 0x1110, 0x77: 0x2220})
    top = tree.nodes[0]
    for place in range(16):
        world.words(tree.slot(top, place), top | 2)
    outcome = world.run(arrayed, world.base, fills=fills(word, 4, old=False))
    assert outcome.rows == []
    assert outcome.torn
    assert outcome.loads < 100


@words
def test_array_that_is_too_deep_is_left(word: int) -> None:
    world = World(word)
    nodes = [world.base + 0x400 + 0x300 * index for index in range(40)]
    for node, below in pairwise(nodes):
        world.words(node + SLOTS, below | 2)
        world.words(below + 8, node)
    world.words(world.base + word, nodes[0] | 2)
    outcome = world.run(arrayed, world.base, fills=fills(word, 4, old=False))
    assert was_noticed(outcome)
    assert outcome.ended

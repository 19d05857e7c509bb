"""Maple trees, laid out as lib/maple_tree.c does: sound and spoiled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.llview.structures.world import World, is_part, numbers, quick, was_noticed, words

from yamori.llview.language import Kernel, at, emit, probe, ulong
from yamori.llview.structures.maple import for_each_mt_entry, maple_tree
from yamori.records import Address, Row

LEAF, RANGE, ARANGE = 1, 2, 3
NODE = 256


class Entry(Row, frozen=True):
    entry: Address


@probe(row=Entry)
def entries(kernel: Kernel, tree: ulong) -> None:
    for found in for_each_mt_entry(at(maple_tree, tree)):
        emit(entry=found)


class Tree:
    """A tree whose ``ma_root`` lies at the base, of nodes of a few slots; entries are pointers, or 0 for a gap.

    Attributes:
        nodes: Where its nodes lie.
    """

    def __init__(self, world: World, found: list[int], ways: int, above: int) -> None:
        self.world = world
        self.nodes: list[int] = []
        self.ways = ways
        self.slots = {LEAF: 128 // world.word, RANGE: 128 // world.word, ARANGE: {4: 21, 8: 10}[world.word]}
        most = (1 << 8 * world.word) - 1
        # Each entry covers 16 indices; the last one of all ends with the last index there is.
        level = [(16 * index + 15, entry) for index, entry in enumerate(found)]
        level[-1] = most, level[-1][1]
        kind = LEAF
        while kind == LEAF or len(level) > 1:
            level = [self.node(level[first : first + ways], kind) for first in range(0, len(level), ways)]
            kind = above
        world.words(world.base, level[0][1] | 2)
        world.words(self.nodes[-1], world.base | 1)

    def node(self, part: list[tuple[int, int]], kind: int) -> tuple[int, int]:
        """Lay out a node; return its last index, and the slot that leads to it."""
        world, slots = self.world, self.slots[kind]
        place = world.base + NODE * (1 + len(self.nodes))
        self.nodes.append(place)
        # Pivots behind the last used slot are 0; so is the last used slot's own, unless it is wanted.
        pivots = [last for last, _ in part[:-1]]
        if len(part) < slots and len(part) % 2:
            pivots.append(part[-1][0])
        entries = [entry for _, entry in part]
        stale = [place + 0x3000] * (slots - len(part))  # what was there before
        world.words(place, 0, *pivots, *[0] * (slots - 1 - len(pivots)), *entries, *stale)
        if kind != LEAF:
            for _, entry in part:
                world.words(entry & ~0xFF, place | 6)
        return part[-1][0], place | kind << 3 | 4


def pointers(world: World, shape: list[bool]) -> list[int]:
    return [world.base + 0x4000 + 64 * index if there else 0 for index, there in enumerate(shape)]


SHAPES = st.lists(st.booleans(), min_size=2, max_size=60)


@words
@given(SHAPES, st.integers(2, 10), st.sampled_from([RANGE, ARANGE]))
@quick
def test_entries_come_in_order(word: int, shape: list[bool], ways: int, above: int) -> None:
    world = World(word)
    found = pointers(world, shape)
    Tree(world, found, ways, above)
    outcome = world.run(entries, world.base)
    assert (outcome.faults, outcome.troubles, outcome.ended) == (0, [], None)
    assert numbers(outcome) == [entry for entry in found if entry]


@words
def test_full_nodes(word: int) -> None:
    world = World(word)
    found = pointers(world, [True] * (128 // word) * 2)
    Tree(world, found, 128 // word, RANGE)
    assert numbers(world.run(entries, world.base)) == found


@words
def test_tree_without_a_node_is_empty(word: int) -> None:
    world = World(word)
    for top in (0, world.base + 0x4000):
        world.words(world.base, top)
        assert numbers(world.run(entries, world.base)) == []


@words
def test_node_of_another_tree_is_left_out(word: int) -> None:
    world = World(word)
    found = pointers(world, [True] * 12)
    tree = Tree(world, found, 4, ARANGE)
    world.words(tree.nodes[1], tree.nodes[0] | 6)
    outcome = world.run(entries, world.base)
    assert numbers(outcome) == found[:4] + found[8:]
    assert [(trouble.value & ~0xFF, trouble.torn) for trouble in outcome.troubles] == [(tree.nodes[1], True)]


@words
@given(SHAPES, st.integers(2, 10), st.data())
@quick
def test_any_word_may_lie(word: int, shape: list[bool], ways: int, data: st.DataObject) -> None:
    world = World(word)
    found = pointers(world, shape)
    tree = Tree(world, found, ways, ARANGE)
    places = st.sampled_from([world.base, *(node + word * at for node in tree.nodes for at in range(24))])
    lie = st.sampled_from([0, 4, world.base | 30]) | st.sampled_from(tree.nodes).map(lambda node: node | 28)
    world.words(data.draw(places), data.draw(lie | st.integers(0, (1 << 8 * word) - 1)))
    outcome = world.run(entries, world.base)
    sound = [entry for entry in found if entry]
    assert outcome.loads < 10_000
    assert was_noticed(outcome) or len(outcome.rows) <= len(sound) + 32 or is_part(numbers(outcome), sound)


@words
@given(st.data())
@quick
def test_tree_of_lies_ends(word: int, data: st.DataObject) -> None:
    world = World(word)
    tree = Tree(world, pointers(world, [True] * 30), 4, ARANGE)
    leads = st.sampled_from([0, *(node | kind << 3 | 4 for node in tree.nodes for kind in (LEAF, RANGE, ARANGE))])
    for node in tree.nodes:
        for at_word in range(1, 22):
            if data.draw(st.booleans()):
                world.words(node + word * at_word, data.draw(leads))
    assert world.run(entries, world.base).loads < 100_000

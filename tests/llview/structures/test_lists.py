"""``list_head``: sound, spoiled, and changed while it is read."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llview.structures.world import ITEM, Number, World, is_part, item, numbers, quick, was_noticed, words

from yamori.llview.faults import Code
from yamori.llview.language import Kernel, at, emit, probe, u32, ulong
from yamori.llview.structures.lists import for_each_entry, is_linked, list_head

POISON = 0x122
"""``LIST_POISON2`` of ``include/linux/poison.h``: no address of the kernel."""


@probe(row=Number)
def listed(kernel: Kernel, head: ulong) -> None:
    for found in for_each_entry(at(list_head, head), item, "node"):
        emit(number=found.number)


@probe(row=Number)
def some(kernel: Kernel, head: ulong) -> None:
    for found in for_each_entry(at(list_head, head), item, "node"):
        if found.number == 2:
            continue
        if found.number == 5:
            break
        emit(number=found.number)


@probe(row=Number)
def linked(kernel: Kernel, node: ulong) -> None:
    known: u32 = 0
    if is_linked(at(list_head, node)):
        known = 1
    emit(number=known)


class Ring:
    """A list in a mixed order, its items numbered from 1 on, that can be changed as the kernel does."""

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        places = [world.base + ITEM * (2 + index) for index in range(2 * count)]
        random.Random(count).shuffle(places)
        self.head, self.nodes, self.spare = world.base, [place + world.word for place in places[:count]], places[count:]
        around = [self.head, *self.nodes, self.head]
        for index, node in enumerate(self.nodes, 1):
            world.words(node - world.word, index, around[index + 1], around[index - 1])
        world.words(self.head, around[1], around[-2])

    def remove(self, node: int) -> None:
        """``list_del_rcu``."""
        word = self.world.word
        after, before = self.world.get(node), self.world.get(node + word)
        self.world.words(after + word, before)
        self.world.words(before, after)
        self.world.words(node + word, POISON)

    def insert(self, before: int, number: int) -> None:
        """``list_add_rcu``."""
        place, after, word = self.spare.pop(), self.world.get(before), self.world.word
        self.world.words(place, number, after, before)
        self.world.words(before, place + word)
        self.world.words(after + word, place + word)


@words
@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_list(word: int, count: int) -> None:
    world = World(word)
    outcome = world.run(listed, Ring(world, count).head)
    assert numbers(outcome) == list(range(1, count + 1))
    assert (outcome.faults, outcome.troubles, outcome.ended) == (0, [], None)


@words
def test_continue_and_break(word: int) -> None:
    world = World(word)
    assert numbers(world.run(some, Ring(world, 9).head)) == [1, 3, 4]


@words
def test_linked(word: int) -> None:
    world = World(word)
    ring = Ring(world, 3)
    assert numbers(world.run(linked, ring.nodes[1])) == [1]
    ring.remove(ring.nodes[1])
    assert world.run(linked, ring.nodes[1]).ended is None
    assert numbers(world.run(linked, ring.nodes[1])) == [0]


@words
@pytest.mark.parametrize("target", [0, 3, 9])
def test_list_that_leads_back_is_left(word: int, target: int) -> None:
    world = World(word)
    ring = Ring(world, 12)
    world.words(ring.nodes[9], ring.nodes[target])
    outcome = world.run(listed, ring.head)
    assert numbers(outcome) == list(range(1, 11))
    assert outcome.ended
    assert outcome.ended.code == Code.PROGRAM
    assert outcome.loads < 100


@words
@pytest.mark.parametrize("lie", [0, 1, 3, POISON, 0xC0FF_FFF8])
def test_prev_that_lies_is_noticed_and_the_rest_is_read(word: int, lie: int) -> None:
    world = World(word)
    ring = Ring(world, 12)
    world.words(ring.nodes[5] + word, lie)
    outcome = world.run(listed, ring.head)
    assert numbers(outcome) == list(range(1, 13))
    assert outcome.ended is None
    assert outcome.torn


@words
@given(st.data())
@quick
def test_any_pointer_may_lie(word: int, data: st.DataObject) -> None:
    world = World(word)
    ring = Ring(world, 12)
    nodes = st.sampled_from(ring.nodes)
    for _ in range(data.draw(st.integers(1, 4))):
        lie = data.draw(st.sampled_from([0, 1, ring.head]) | nodes | st.integers(0, (1 << 8 * word) - 1))
        world.words(data.draw(nodes) + data.draw(st.sampled_from([0, word])), lie)
    outcome = world.run(listed, ring.head)
    assert was_noticed(outcome) or is_part(numbers(outcome), list(range(1, 13)))
    assert outcome.loads < 1000


@words
@given(st.data())
@quick
def test_what_stays_on_a_changing_list_is_found(word: int, data: st.DataObject) -> None:
    world = World(word)
    ring = Ring(world, 12)
    edits = data.draw(st.dictionaries(st.integers(0, 60), st.tuples(st.booleans(), st.integers(0, 11)), max_size=6))
    gone: set[int] = set()

    def meanwhile(reads: int) -> None:
        if reads not in edits:
            return
        removes, index = edits[reads]
        if index in gone:
            return
        if removes:
            gone.add(index)
            ring.remove(ring.nodes[index])
        else:
            ring.insert(ring.nodes[index], 100)

    outcome = world.run(listed, ring.head, meanwhile=meanwhile)
    found = [number for number in numbers(outcome) if number != 100]
    assert outcome.ended is None
    assert len(edits) > 1 or not outcome.troubles
    assert is_part(found, list(range(1, 13)))
    assert outcome.torn or {index + 1 for index in range(12)} - {index + 1 for index in gone} <= set(found)

"""``hlist_head`` and hash tables: sound, spoiled, and changed while they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llview.structures.world import ITEM, Number, World, is_part, item, numbers, quick, was_noticed, words

from yamori.llview.faults import Code
from yamori.llview.language import Kernel, at, emit, probe, u32, ulong
from yamori.llview.structures.hlist import for_each_hash_entry, for_each_hlist_entry, hlist_head

POISON = 0x122


@probe(row=Number)
def hashed(kernel: Kernel, table: ulong, buckets: u32) -> None:
    for found in for_each_hash_entry(table, buckets, item, "hashed"):
        emit(number=found.number)


@probe(row=Number)
def chained(kernel: Kernel, head: ulong) -> None:
    for found in for_each_hlist_entry(at(hlist_head, head), item, "hashed"):
        emit(number=found.number)


@probe(row=Number)
def some(kernel: Kernel, table: ulong) -> None:
    for found in for_each_hash_entry(table, 2, item, "hashed"):
        if found.number == 2:
            continue
        if found.number == 5:
            break
        emit(number=found.number)


def chain(world: World, head: int, values: list[int], places: int, end: int = 0) -> list[int]:
    """Lay out one hlist; return its nodes."""
    nodes = [places + ITEM * index + world.word for index in range(len(values))]
    leads = [head, *nodes]
    for index, value in enumerate(values):
        world.words(leads[index], nodes[index])
        world.words(nodes[index] - world.word, value, end, leads[index])
    if not values:
        world.words(head, end)
    return nodes


@words
@given(st.lists(st.integers(0, 5), max_size=5), st.sampled_from([0, 1, 7]))
@quick
def test_hash_table(word: int, lengths: list[int], nulls: int) -> None:
    world, number = World(word), 0
    for bucket, length in enumerate(lengths):
        values = list(range(number, number + length))
        chain(world, world.base + word * bucket, values, world.base + 0x100 + ITEM * number, nulls)
        number += length
    outcome = world.run(hashed, world.base, len(lengths))
    assert numbers(outcome) == list(range(number))
    assert (outcome.faults, outcome.troubles, outcome.ended) == (0, [], None)


@words
def test_break_and_continue_in_nested_generators(word: int) -> None:
    world = World(word)
    chain(world, world.base, [1, 2, 3], world.base + 0x100)
    chain(world, world.base + word, [4, 5, 6], world.base + 0x400)
    assert numbers(world.run(some, world.base)) == [1, 3, 4]


@words
@pytest.mark.parametrize("target", [0, 1, 2])
def test_list_that_loops_is_left(word: int, target: int) -> None:
    world = World(word)
    nodes = chain(world, world.base, [1, 3, 4], world.base + 0x100)
    world.words(nodes[2], nodes[target])
    outcome = world.run(chained, world.base)
    assert outcome.ended
    assert outcome.ended.code == Code.PROGRAM
    assert len(outcome.rows) < 10
    assert outcome.torn


@words
@pytest.mark.parametrize("lie", [0, 1, 3, POISON, 0xC0FF_FFF8])
def test_pprev_that_lies_is_noticed_and_the_rest_is_read(word: int, lie: int) -> None:
    world = World(word)
    nodes = chain(world, world.base, list(range(6)), world.base + 0x100)
    for node in nodes[0], nodes[3]:
        world.words(node + word, lie)
        outcome = world.run(chained, world.base)
        assert numbers(outcome) == list(range(6))
        assert outcome.ended is None
        assert outcome.torn
        chain(world, world.base, list(range(6)), world.base + 0x100)


@words
@given(st.data())
@quick
def test_any_pointer_may_lie(word: int, data: st.DataObject) -> None:
    world = World(word)
    nodes = chain(world, world.base, list(range(12)), world.base + 0x100)
    for _ in range(data.draw(st.integers(1, 4))):
        lie = data.draw(st.just(0) | st.sampled_from(nodes) | st.integers(0, (1 << 8 * word) - 1))
        world.words(data.draw(st.sampled_from(nodes)) + data.draw(st.sampled_from([0, word])), lie)
    outcome = world.run(chained, world.base)
    assert was_noticed(outcome) or is_part(numbers(outcome), list(range(12)))
    assert outcome.loads < 1000


@words
@given(st.dictionaries(st.integers(0, 40), st.integers(0, 7), max_size=6))
@quick
def test_what_stays_on_a_changing_list_is_found(word: int, edits: dict[int, int]) -> None:
    world = World(word)
    nodes = chain(world, world.base, list(range(8)), world.base + 0x100)
    gone: set[int] = set()

    def meanwhile(reads: int) -> None:
        """``hlist_del_rcu``."""
        index = edits.get(reads)
        if index is None or index in gone:
            return
        gone.add(index)
        after, link = world.get(nodes[index]), world.get(nodes[index] + word)
        world.words(link, after)
        if after:
            world.words(after + word, link)
        world.words(nodes[index] + word, POISON)

    outcome = world.run(chained, world.base, meanwhile=meanwhile)
    assert outcome.ended is None
    assert len(edits) > 1 or not outcome.troubles
    assert is_part(numbers(outcome), list(range(8)))
    assert outcome.torn or set(range(8)) - gone <= set(numbers(outcome))

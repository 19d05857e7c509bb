"""Red-black trees: sound and spoiled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llview.structures.world import ITEM, Number, World, is_part, item, numbers, quick, was_noticed, words

from yamori.llview.faults import Code
from yamori.llview.language import Kernel, at, emit, probe, ulong
from yamori.llview.structures.rbtree import MOST_DEEP, for_each_rb_entry, rb_root


@probe(row=Number)
def ordered(kernel: Kernel, root: ulong) -> None:
    for found in for_each_rb_entry(at(rb_root, root), item, "sorted"):
        emit(number=found.number)


@probe(row=Number)
def some(kernel: Kernel, root: ulong) -> None:
    for found in for_each_rb_entry(at(rb_root, root), item, "sorted"):
        if found.number == 2:
            continue
        if found.number == 5:
            break
        emit(number=found.number)


def tree(world: World, order: list[int]) -> list[int]:
    """Lay out the tree whose root lies at the base and that comes of inserting numbers in an order; return its nodes.

    It is not balanced, which the walk need not care about.
    """
    count = len(order)
    nodes = [world.base + ITEM * (2 + index) + world.word for index in range(count)]
    children: dict[int, list[int | None]] = {number: [None, None] for number in order}  # right, left
    parents: dict[int, int] = {}
    for number in order[1:]:
        place = order[0]
        while (below := children[place][side := int(number < place)]) is not None:
            place = below
        children[place][side] = number
        parents[number] = place
    for number in order:
        parent = nodes[parents[number]] if number in parents else 0
        below_it = [nodes[child] if child is not None else 0 for child in children[number]]
        world.words(nodes[number] - world.word, number, parent | number & 1, *below_it)
    world.words(world.base, nodes[order[0]] if order else 0)
    return nodes


@words
@given(st.integers(0, 40).flatmap(lambda count: st.permutations(range(count))))
@quick
def test_tree_is_gone_through_in_order(word: int, order: list[int]) -> None:
    world = World(word)
    tree(world, order)
    outcome = world.run(ordered, world.base)
    assert numbers(outcome) == list(range(len(order)))
    assert (outcome.faults, outcome.troubles, outcome.ended) == (0, [], None)


@words
def test_continue_and_break(word: int) -> None:
    world = World(word)
    tree(world, [4, 2, 6, 1, 3, 5, 0, 7])
    assert numbers(world.run(some, world.base)) == [0, 1, 3, 4]


@words
@pytest.mark.parametrize("step", [1, -1])
def test_tree_that_is_too_deep_is_left(word: int, step: int) -> None:
    world = World(word)
    tree(world, list(range(MOST_DEEP + 2))[::step])
    outcome = world.run(ordered, world.base)
    assert outcome.ended
    assert outcome.ended.code == Code.PROGRAM


@words
def test_parent_that_lies_is_noticed_on_the_way_down_and_up(word: int) -> None:
    world = World(word)
    nodes = tree(world, [3, 1, 5, 0, 2, 4, 6])
    world.words(nodes[2], nodes[5])
    outcome = world.run(ordered, world.base)
    assert [(trouble.value, trouble.torn) for trouble in outcome.troubles] == [(nodes[2], True)] * 2
    assert numbers(outcome) == [0, 1, 2, 5, 6]


@words
@given(st.permutations(range(15)), st.data())
@quick
def test_any_pointer_may_lie(word: int, order: list[int], data: st.DataObject) -> None:
    world = World(word)
    nodes = tree(world, order)
    lie = data.draw(st.sampled_from([0, 4, world.base]) | st.sampled_from(nodes) | st.integers(0, (1 << 8 * word) - 1))
    world.words(data.draw(st.sampled_from(nodes)) + word * data.draw(st.integers(0, 2)), lie)
    outcome = world.run(ordered, world.base)
    assert was_noticed(outcome) or is_part(numbers(outcome), list(range(15)))
    assert outcome.loads < 5000


@words
@given(st.permutations(range(15)), st.data())
@quick
def test_tree_of_lies_ends(word: int, order: list[int], data: st.DataObject) -> None:
    world = World(word)
    nodes = tree(world, order)
    for node in nodes:
        for index in range(3):
            if data.draw(st.booleans()):
                world.words(node + word * index, data.draw(st.sampled_from([0, *nodes])))
    outcome = world.run(ordered, world.base)
    assert was_noticed(outcome) or len(outcome.rows) <= len(nodes)
    assert outcome.loads < 10_000

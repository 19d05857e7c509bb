"""Helpers for the kernel's structures: what they find in sound ones, and how they end in spoiled ones."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from tests.llview.structures.world import World, member

from yamori.llview.faults import Code
from yamori.llview.language import Kernel, Struct, at, emit, probe, u32, u64, ulong
from yamori.llview.machine import SlotFill
from yamori.llview.structures import bitmap as maps
from yamori.llview.structures.bitmap import for_each_set_bit
from yamori.llview.structures.hlist import for_each_hash_entry, for_each_hlist_entry, hlist_head, hlist_node
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.llview.structures.percpu import PerCpu, per_cpu
from yamori.llview.structures.rbtree import for_each_rb_entry, rb_node, rb_root
from yamori.llview.structures.xarray import CHUNK, for_each_xa_entry, xarray
from yamori.records import Row

words = pytest.mark.parametrize("word", [4, 8])
ITEM = 64
"""Bytes between the items that tests lay out; the number is the first word, the node follows."""


class item(Struct):  # noqa: N801  as the kernel would name it
    number: ulong
    node: list_head
    hashed: hlist_node
    sorted: rb_node


class Number(Row, frozen=True):
    number: int


class Pair(Row, frozen=True):
    index: int
    entry: int


@probe(row=Number)
def listed(kernel: Kernel, head: ulong) -> None:
    for found in for_each_entry(at(list_head, head), item, "node"):
        emit(number=found.number)


@probe(row=Number)
def hashed(kernel: Kernel, table: ulong, buckets: u32) -> None:
    for found in for_each_hash_entry(table, buckets, item, "hashed"):
        emit(number=found.number)


@probe(row=Number)
def chained(kernel: Kernel, head: ulong) -> None:
    for found in for_each_hlist_entry(at(hlist_head, head), item, "hashed"):
        if found.number == 2:
            continue
        if found.number == 5:
            break
        emit(number=found.number)


@probe(row=Number)
def ordered(kernel: Kernel, root: ulong) -> None:
    for found in for_each_rb_entry(at(rb_root, root), item, "sorted"):
        emit(number=found.number)


@probe(row=Pair)
def arrayed(kernel: Kernel, array: ulong) -> None:
    for index, entry in for_each_xa_entry(at(xarray, array)):
        emit(index=index, entry=u64(entry))


@probe(row=Number)
def bits(kernel: Kernel, bitmap: ulong, size: u32) -> None:
    for number in for_each_set_bit(bitmap, size):
        if maps.test_bit(bitmap, number):
            emit(number=number)


@probe(row=Number)
def percpu(kernel: PerCpu, variable: ulong, cpu: u32) -> None:
    emit(number=per_cpu(kernel, variable, cpu))


def slots(word: int) -> Mapping[str, SlotFill]:
    return {
        "item.number": member(0, word),
        "item.node": member(word, 2 * word),
        "item.hashed": member(word, 2 * word),
        "item.sorted": member(word, 3 * word),
        "list_head.next": member(0, word),
        "list_head.prev": member(word, word),
        "hlist_head.first": member(0, word),
        "hlist_node.next": member(0, word),
        "rb_root.rb_node": member(0, word),
        "rb_node.__rb_parent_color": member(0, word),
        "rb_node.rb_right": member(word, word),
        "rb_node.rb_left": member(2 * word, word),
        "xarray.xa_head": member(0, word),
        "xa_node.shift": member(0, 1),
        "xa_node.slots": member(16, CHUNK * word, word),
        "__per_cpu_offset": SlotFill(exists=True, offset=0xC000_0100 if word == 4 else 0xFFFF_8880_0000_0100),
    }


def ring(world: World, count: int) -> tuple[int, list[int]]:
    """Lay out a list in a mixed order; return its head and nodes."""
    places = [world.base + ITEM * (2 + index) for index in range(count)]
    random.Random(count).shuffle(places)
    head, nodes = world.base, [place + world.word for place in places]
    around = [head, *nodes, head]
    for index, node in enumerate(nodes, 1):
        world.words(node - world.word, index, around[index + 1], around[index - 1])
    world.words(head, around[1], around[-2])
    return head, nodes


@words
@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_list(word: int, count: int) -> None:
    world = World(word)
    head, _ = ring(world, count)
    outcome = world.run(listed, head, slots=slots(word))
    assert outcome.rows == [(number,) for number in range(1, count + 1)]
    assert (outcome.faults, outcome.troubles, outcome.ended) == (0, [], None)


@words
@pytest.mark.parametrize("target", [0, 3, 9])
def test_list_that_leads_back_is_left(word: int, target: int) -> None:
    world = World(word)
    head, nodes = ring(world, 12)
    world.words(nodes[9], nodes[target])
    outcome = world.run(listed, head, slots=slots(word))
    assert outcome.rows == [(number,) for number in range(1, 11)]
    assert outcome.ended
    assert outcome.ended.code == Code.PROGRAM


@words
def test_any_pointer_of_a_list_may_lie(word: int) -> None:
    for seed in range(120):
        world, chance = World(word), random.Random(seed)
        head, nodes = ring(world, 12)
        for _ in range(chance.randrange(1, 5)):
            lie = chance.choice([0, 1, head, chance.choice(nodes), chance.getrandbits(8 * word)])
            world.words(chance.choice(nodes) + chance.choice([0, word]), lie)
        outcome = world.run(listed, head, slots=slots(word))
        assert outcome.loads < 20_000
        whole = outcome.rows == [(number,) for number in range(1, 13)]
        assert whole or outcome.ended or outcome.troubles or len(outcome.rows) < 12


def chain(world: World, head: int, numbers: list[int], places: int, end: int = 0) -> None:
    """Lay out one hlist."""
    at = head
    for index, number in enumerate(numbers):
        place = places + ITEM * index
        world.words(at, place + world.word)
        world.words(place, number, end, at)
        at = place + world.word


@words
@pytest.mark.parametrize("nulls", [0, 1, 7])
def test_hash_table(word: int, nulls: int) -> None:
    world = World(word)
    for bucket, numbers in enumerate([[1, 2, 3], [], [4], [5, 6]]):
        world.words(world.base + word * bucket, nulls)
        chain(world, world.base + word * bucket, numbers, world.base + 0x100 + ITEM * 8 * bucket, nulls)
    outcome = world.run(hashed, world.base, 4, slots=slots(word))
    assert [row[0] for row in outcome.rows] == [1, 2, 3, 4, 5, 6]
    assert outcome.ended is None


@words
def test_break_and_continue_in_a_generator(word: int) -> None:
    world = World(word)
    chain(world, world.base, [1, 2, 3, 4, 5, 6], world.base + 0x100)
    assert [row[0] for row in world.run(chained, world.base, slots=slots(word)).rows] == [1, 3, 4]


@words
def test_hlist_that_loops_is_left(word: int) -> None:
    world = World(word)
    chain(world, world.base, [1, 3, 4], world.base + 0x100)
    world.words(world.base + 0x100 + 2 * ITEM + word, world.base + 0x100 + ITEM + word)
    outcome = world.run(chained, world.base, slots=slots(word))
    assert outcome.ended
    assert outcome.ended.code == Code.PROGRAM
    assert len(outcome.rows) < 10


def tree(world: World, count: int) -> list[int]:
    """Lay out a balanced tree whose root lies at the base; return its nodes in order."""
    nodes = [world.base + ITEM * (2 + index) + world.word for index in range(count)]

    def below(low: int, high: int, parent: int) -> int:
        if low >= high:
            return 0
        middle = (low + high) // 2
        node = nodes[middle]
        left, right = below(low, middle, node), below(middle + 1, high, node)
        world.words(node - world.word, middle, parent | middle & 1, right, left)
        return node

    world.words(world.base, below(0, count, 0))
    return nodes


@words
@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_tree_is_gone_through_in_order(word: int, count: int) -> None:
    world = World(word)
    tree(world, count)
    outcome = world.run(ordered, world.base, slots=slots(word))
    assert outcome.rows == [(number,) for number in range(count)]
    assert (outcome.troubles, outcome.ended) == ([], None)


@words
def test_any_pointer_of_a_tree_may_lie(word: int) -> None:
    ends = 0
    for seed in range(60):
        world, chance = World(word), random.Random(seed)
        nodes = tree(world, 15)
        lie = chance.choice([1, world.base, chance.choice(nodes), chance.getrandbits(8 * word)])
        world.words(chance.choice(nodes) + word * chance.randrange(3), lie)
        outcome = world.run(ordered, world.base, slots=slots(word))
        ends += outcome.ended is not None
        assert outcome.loads < 60_000
    assert ends


@words
def test_xarray(word: int) -> None:
    world = World(word)
    inner, leaves = world.base + 0x400, [world.base + 0x1000, world.base + 0x2000]
    empty = bytes(16 + CHUNK * word)
    for node in (inner, *leaves):
        world.data[world.pages + node - world.base :][: len(empty)] = empty
    world.data[world.pages + inner - world.base] = 6
    world.words(inner + 16, leaves[0] | 2)
    world.words(inner + 16 + 3 * word, leaves[1] | 2)
    world.words(leaves[0] + 16 + 5 * word, 0x1110)
    world.words(leaves[1] + 16, 0x2221)
    world.words(leaves[1] + 16 + 63 * word, 0x3330)
    world.words(leaves[1] + 16 + 62 * word, 0x102)  # a sibling: internal, and no node
    world.words(world.base, inner | 2)
    outcome = world.run(arrayed, world.base, slots=slots(word))
    assert outcome.rows == [(5, 0x1110), (192, 0x2221), (255, 0x3330)]
    world.words(world.base, 0x4440)
    assert world.run(arrayed, world.base, slots=slots(word)).rows == [(0, 0x4440)]
    world.words(world.base, inner | 2)
    world.words(inner + 16, inner | 2)
    looped = world.run(arrayed, world.base, slots=slots(word))
    assert looped.ended
    assert looped.ended.code == Code.PROGRAM


@words
def test_bitmap(word: int) -> None:
    world = World(word)
    wanted = [0, 1, 31, 32, 63, 64, 99]
    value = sum(1 << number for number in [*wanted, 100])
    world.words(world.base, *(value >> 8 * word * index for index in range(4)))
    assert world.run(bits, world.base, 100, slots=slots(word)).rows == [(number,) for number in wanted]


@words
def test_per_cpu(word: int) -> None:
    world = World(word)
    world.words(world.base + 0x100, 0x10, 0x2000, 0x3000)
    assert world.run(percpu, 0x1000, 2, slots=slots(word)).rows == [(0x4000,)]

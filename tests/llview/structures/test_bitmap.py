"""Bitmaps and per-CPU variables."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.llview.structures.world import Number, World, numbers, quick, words

from yamori.llview.faults import Code
from yamori.llview.language import Kernel, emit, probe, u32, ulong
from yamori.llview.structures import bitmap as maps
from yamori.llview.structures.bitmap import for_each_set_bit
from yamori.llview.structures.percpu import PerCpu, per_cpu


@probe(row=Number)
def bits(kernel: Kernel, bitmap: ulong, size: u32) -> None:
    for number in for_each_set_bit(bitmap, size):
        if number == 3:
            continue
        emit(number=number)


@probe(row=Number)
def tested(kernel: Kernel, bitmap: ulong, size: u32) -> None:
    for number in range(size):
        if maps.test_bit(bitmap, number):
            emit(number=number)


@probe(row=Number)
def fixed(kernel: Kernel, bitmap: ulong) -> None:
    if maps.test_bit(bitmap, 70):
        for number in for_each_set_bit(bitmap, 80):
            emit(number=number)


@probe(row=Number)
def percpu(kernel: PerCpu, variable: ulong, cpu: u32) -> None:
    emit(number=per_cpu(kernel, variable, cpu))


@words
@given(st.sets(st.integers(0, 300)), st.integers(0, 300))
@quick
def test_set_bits(word: int, wanted: set[int], size: int) -> None:
    world = World(word)
    value = sum(1 << number for number in wanted)
    world.words(world.base, *(value >> 8 * word * index for index in range(320 // word // 8)))
    expected = sorted(number for number in wanted if number < size)
    assert numbers(world.run(tested, world.base, size)) == expected
    outcome = world.run(bits, world.base, size)
    assert numbers(outcome) == [number for number in expected if number != 3]
    assert outcome.loads == -(-size // (8 * word))
    assert outcome.ended is None


@words
def test_numbers_in_the_source(word: int) -> None:
    world = World(word)
    value = 1 << 70 | 1 << 79 | 1 << 80 | 1
    world.words(world.base, *(value >> 8 * word * index for index in range(4)))
    assert numbers(world.run(fixed, world.base)) == [0, 70, 79]


@words
def test_a_map_of_zeros_is_read_by_the_word(word: int) -> None:
    world = World(word)
    outcome = world.run(bits, world.base, 100_000, budget=100_000 // (8 * word) + 100)
    assert (outcome.rows, outcome.ended) == ([], None)


@words
def test_a_map_that_leads_out_of_memory_faults(word: int) -> None:
    world = World(word)
    outcome = world.run(bits, world.base, 0xFFFF_FFFF)
    assert outcome.ended
    assert outcome.ended.code in {Code.UNMAPPED, Code.BUDGET}


@words
def test_per_cpu(word: int) -> None:
    world = World(word)
    world.words(world.base + 0x100, 0x10, 0x2000, 0x3000)
    assert numbers(world.run(percpu, 0x1000, 2)) == [0x4000]

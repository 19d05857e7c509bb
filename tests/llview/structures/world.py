"""Guest memory in which tests lay out structures, and programs that go through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import settings
from tests.llview.native_programs import BASE, KERNEL, PAGE, PAGES, flat_walker, machine, ram

from yamori.address import GPA
from yamori.llview.faults import Code
from yamori.llview.frontend import compile_probe
from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import Program
from yamori.llview.language import Probe, Struct, ulong
from yamori.llview.machine import Outcome, SlotFill
from yamori.llview.needs import needed
from yamori.llview.structures.hlist import hlist_node
from yamori.llview.structures.lists import list_head
from yamori.llview.structures.rbtree import rb_node
from yamori.llview.translate import translate
from yamori.llview.verify import verify
from yamori.memory.physical import BytesMemory
from yamori.records import Row

WALKER = flat_walker()
SIZE = PAGES * PAGE
ITEM = 64
"""Bytes between the items that tests lay out; the number is the first word, the node follows."""

words = pytest.mark.parametrize("word", [4, 8])
quick = settings(max_examples=40, deadline=None)


class item(Struct):  # noqa: N801  as the kernel would name it
    number: ulong
    node: list_head
    hashed: hlist_node
    sorted: rb_node


class Number(Row, frozen=True):
    number: int


def member(offset: int, size: int, stride: int = 0) -> SlotFill:
    return SlotFill(exists=True, offset=offset, size=size, stride=stride)


def slots(word: int) -> dict[str, SlotFill]:
    return {
        "item.number": member(0, word),
        "item.node": member(word, 2 * word),
        "item.hashed": member(word, 2 * word),
        "item.sorted": member(word, 3 * word),
        "list_head.next": member(0, word),
        "list_head.prev": member(word, word),
        "hlist_head.first": member(0, word),
        "hlist_node.next": member(0, word),
        "hlist_node.pprev": member(word, word),
        "rb_root.rb_node": member(0, word),
        "rb_node.__rb_parent_color": member(0, word),
        "rb_node.rb_right": member(word, word),
        "rb_node.rb_left": member(2 * word, word),
        "maple_tree.ma_root": member(0, word),
        **{
            f"maple_{kind}.{name}": member(offset, size, stride=word)
            for kind, ways in (("range_64", 128 // word), ("arange_64", {4: 21, 8: 10}[word]))
            for name, offset, size in (("pivot", word, (ways - 1) * word), ("slot", ways * word, ways * word))
        },
        "__per_cpu_offset": SlotFill(exists=True, offset=KERNEL[word] + 0x100),
    }


@cache
def compiled(probe: Probe, word: int) -> Program:
    return verify(translate(compile_probe(probe, word)))


class Watched(BytesMemory):
    """Memory that says when it is read: before each read ``meanwhile`` is called with the number of reads so far."""

    def __init__(self, blocks: dict[int, bytes | bytearray], meanwhile: Callable[[int], None]) -> None:
        super().__init__(blocks)
        self.meanwhile = meanwhile
        self.reads = 0

    def read(self, gpa: GPA, size: int) -> bytes:
        self.meanwhile(self.reads)
        self.reads += 1
        return super().read(gpa, size)


class World:
    """``PAGES`` pages of guest memory, mapped one after the other.

    Args:
        word: Bytes of a word of the guest.
    """

    def __init__(self, word: int) -> None:
        self.word = word
        self.base = KERNEL[word]
        self.data = bytearray(ram(word)[0])
        self.pages = len(self.data) - SIZE  # what lies before them is the table
        self.data[self.pages :] = bytes(SIZE)

    def words(self, gva: int, *values: int) -> None:
        """Write words of the guest's size."""
        mask = (1 << 8 * self.word) - 1
        self.put(gva, b"".join((value & mask).to_bytes(self.word, "little") for value in values))

    def put(self, gva: int, data: bytes) -> None:
        """Write bytes."""
        at = self.pages + gva - self.base
        self.data[at : at + len(data)] = data

    def get(self, gva: int) -> int:
        """Read a word."""
        at = self.pages + gva - self.base
        return int.from_bytes(self.data[at : at + self.word], "little")

    def run(
        self,
        probe: Probe,
        *arguments: int,
        fills: Mapping[str, SlotFill] | None = None,
        budget: int = 20_000,
        meanwhile: Callable[[int], None] = lambda _: None,
    ) -> Outcome:
        """Run a probe; ``fills`` are slots by names such as ``item.node``; what is missing does not exist."""
        program = compiled(probe, self.word)
        memory = Watched({BASE: self.data}, meanwhile)
        guest = replace(machine(b"", self.word, WALKER), memory=memory)
        filled = slots(self.word) | dict(fills or {})
        chosen = [filled.get(str(spec), SlotFill(exists=False)) for spec in program.slots]
        assert all(chosen[slot].exists for slot in needed(program.body, chosen))
        return Interpreter().run(program, guest, chosen, arguments, budget=budget)


def numbers(outcome: Outcome) -> list[Any]:
    """Return the only field of each row."""
    return [row[0] for row in outcome.rows]


def was_noticed(outcome: Outcome) -> bool:
    """Say whether a run said that something is wrong, otherwise than by having read too much."""
    if outcome.ended is not None:
        assert outcome.ended.code != Code.BUDGET
    return outcome.ended is not None or bool(outcome.troubles)


def is_part(found: list[Any], whole: list[Any]) -> bool:
    """Say whether a list is another one, from which something may be left out."""
    rest = iter(whole)
    return all(any(one == other for other in rest) for one in found)

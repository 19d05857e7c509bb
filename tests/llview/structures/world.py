"""Guest memory in which tests lay out structures, and programs that go through them."""

from __future__ import annotations

from collections.abc import Mapping

from tests.llview.native_programs import KERNEL, PAGE, PAGES, flat_walker, machine, ram

from yamori.llview.frontend import compile_probe
from yamori.llview.interpreter import Interpreter
from yamori.llview.language import Probe
from yamori.llview.machine import Outcome, SlotFill
from yamori.llview.translate import translate
from yamori.llview.verify import verify

WALKER = flat_walker()
SIZE = PAGES * PAGE


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
        at = self.pages + gva - self.base
        mask = (1 << 8 * self.word) - 1
        data = b"".join((value & mask).to_bytes(self.word, "little") for value in values)
        self.data[at : at + len(data)] = data

    def run(self, probe: Probe, *arguments: int, slots: Mapping[str, SlotFill], budget: int = 20_000) -> Outcome:
        """Run a probe; ``slots`` by names such as ``item.node``."""
        program = verify(translate(compile_probe(probe, self.word)))
        guest = machine(bytes(self.data), self.word, WALKER)
        fills = [slots[str(spec)] for spec in program.slots]
        return Interpreter().run(program, guest, fills, arguments, budget=budget)


def member(offset: int, size: int, stride: int = 0) -> SlotFill:
    return SlotFill(exists=True, offset=offset, size=size, stride=stride)

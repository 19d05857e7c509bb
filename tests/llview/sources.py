"""Programs as source text: compiled, and run by the interpreter on a small guest."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tests.llview.native_programs import BASE, KERNEL, PAGE, PAGES, flat_walker, machine

from yamori.llview.frontend import compile_probe
from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import Program
from yamori.llview.machine import Outcome, SlotFill
from yamori.llview.translate import translate
from yamori.llview.verify import verify

PRELUDE = """\
from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from yamori.llview import language
from yamori.llview.language import (
    NULL, Array, CharArray, Kernel, Ptr, Struct, address_of, at, attempt, container_of, emit, exists, helper,
    local_array, named, phys_u32, phys_u64, physical, probe, s8, s16, s32, s64, sizeof, slong, stop, text, torn,
    trouble, u8, u16, u32, u64, ulong, user_text, user_word, walker, word_at,
)

LIMIT = 5
MASK = 0xF0
NAMES = ("a", "b")


class Colour(enum.IntEnum):
    RED = 3


class Pair(NamedTuple):
    one: int
    two: bool


class inner(Struct):
    left: u32
    right: s16


class item(Struct):
    next: Ptr[item]
    number: s32
    small: u8
    flag: bool
    word: ulong
    name: CharArray
    inside: inner
    table: Array[u32]
    insides: Array[inner]
    links: Array[Ptr[item]]
    numbers: Ptr[u32]
    twice: Ptr[Ptr[item]]
    __state: u32
    renamed: u8 = named("inside.left")


class Globals(Kernel):
    first: item
    pointer: Ptr[item]
    handler: ulong


class Row(msgspec.Struct):
    a: int
    b: int | None = None
    c: str | None = None
    d: bool | None = None


@helper
def double(x: u32) -> u32:
    return x * 2


@helper
def each(start: item) -> Iterator[item]:
    node = start
    while node != NULL:
        yield node
        node = node.next


def plain(x: int) -> int:
    return x


"""
_numbers = itertools.count()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def module(text: str) -> ModuleType:
    """Import a source text, behind the prelude, from a file of its own."""
    name = f"llview_source_{next(_numbers)}"
    path = Path(_folder().name) / f"{name}.py"
    path.write_text(PRELUDE + text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of odd programs, which are meant to be odd
        spec.loader.exec_module(found)
    return found


def program(text: str, word_size: int = 8, name: str = "run") -> Program:
    """Compile, translate and verify the probe of a source text."""
    return verify(translate(compile_probe(getattr(module(text), name), word_size)))


def probe(body: str, parameters: str = "") -> str:
    """The text of a probe of some statements."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    return f"@probe(row=Row)\ndef run(kernel: Globals{parameters}) -> None:\n{lines}"


class Guest(NamedTuple):
    """RAM, where things lie in it, and how items are laid out."""

    data: bytearray
    word_size: int
    fills: dict[str, SlotFill]

    @property
    def kernel(self) -> int:
        """GVA of the first byte."""
        return KERNEL[self.word_size]

    def put(self, gva: int, value: int, size: int) -> None:
        at = PAGE + gva - self.kernel
        self.data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


ITEM = 256
"""Bytes of an item."""


def guest(word_size: int = 8, count: int = 4) -> Guest:
    """Items behind each other, each linked to the next; item 0 is the symbol ``first``."""
    word = word_size
    offsets = {
        "next": (0, word), "number": (8, 4), "small": (12, 1), "flag": (13, 1), "word": (16, word), "name": (24, 16),
        "inside": (40, 8), "table": (48, 16), "insides": (64, 32), "links": (96, 2 * word), "numbers": (112, word),
        "twice": (120, word), "__state": (128, 4), "inside.left": (40, 1),
    }  # fmt: skip
    strides = {"table": 4, "insides": 8, "links": word}
    fills = {
        f"item.{name}": SlotFill(
            exists=True, offset=offset, size=size, signed=name == "number", stride=strides.get(name, 0)
        )
        for name, (offset, size) in offsets.items()
    }
    base = KERNEL[word_size]
    fills |= {
        "inner.left": SlotFill(exists=True, offset=0, size=4),
        "inner.right": SlotFill(exists=True, offset=4, size=2, signed=True),
        "first": SlotFill(exists=True, offset=base),
        "pointer": SlotFill(exists=True, offset=base + 0x1000),
        "handler": SlotFill(exists=True, offset=base + 0x1008),
        "item": SlotFill(exists=True, size=ITEM),
        "inner": SlotFill(exists=True, size=8),
    }
    data = bytearray((PAGES + 1) * PAGE)
    found = Guest(data, word_size, fills)
    for page in range(PAGES):
        data[page * 8 : page * 8 + 8] = ((page + 1) * PAGE | 1).to_bytes(8, "little")
    for index in range(count):
        item = base + index * ITEM
        found.put(item, item + ITEM if index + 1 < count else 0, word)
        found.put(item + 8, -index, 4)
        found.put(item + 12, 200 + index, 1)
        found.put(item + 13, index & 1, 1)
        found.put(item + 16, 1000 + index, word)
        at = PAGE + index * ITEM + 24
        data[at : at + 16] = f"item {index}".encode().ljust(16, b"\0")
        found.put(item + 40, 7 + index, 4)
        found.put(item + 44, -7 - index, 2)
        for n in range(4):
            found.put(item + 48 + 4 * n, 10 * index + n, 4)
            found.put(item + 64 + 8 * n, 100 * index + n, 4)
        for n in range(2):
            found.put(item + 96 + n * word, base + n * ITEM, word)
        found.put(item + 112, item + 48, word)
        found.put(item + 120, item + 96, word)
        found.put(item + 128, index, 4)
    found.put(base + 0x1000, base + ITEM, word)
    found.put(base + 0x1008, base + 0x1234, word)
    return found


ABSENT = SlotFill(exists=False)


def execute(
    given: Program, where: Guest | None = None, arguments: tuple[int, ...] = (), budget: int = 100_000
) -> Outcome:
    """Run a program on a guest."""
    place = where or guest(given.word_size)
    slots = [place.fills.get(str(spec), ABSENT) for spec in given.slots]
    target = machine(place.data, place.word_size, _walker())
    return Interpreter().run(given, target, slots, arguments, budget=budget, trace=True)


@cache
def _walker() -> Program:
    return flat_walker()


def numbers(body: str, *arguments: int, parameters: str = "", before: str = "", word_size: int = 8) -> list[int]:
    """Run statements that ``emit(a=...)``, and return what they gave."""
    outcome = execute(program(before + probe(body, parameters), word_size), arguments=arguments)
    assert outcome.ended is None, outcome.ended
    return [row[0] for row in outcome.rows if isinstance(row[0], int)]


__all__ = ["BASE", "ITEM", "Guest", "execute", "guest", "module", "numbers", "probe", "program"]

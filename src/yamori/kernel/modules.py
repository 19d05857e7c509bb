"""``modules`` and ``struct module`` without debug info.

``struct module`` begins, since before 3.10, with ``state``, ``list`` and ``name[MODULE_NAME_LEN]`` of 64 bytes less a
word (``include/linux/module.h``). The head ``modules`` lies in the kernel's data: kallsyms names it only with
``CONFIG_KALLSYMS_ALL``; otherwise it is what functions that print it use, or the one list in that data whose
entries have names of modules behind them.

Where a module's code lies has had three forms, told apart by what must hold of every module on the list: the ``struct
module`` itself lies in the module's own data.

* ``module_core``, and ``init_size``, ``core_size`` behind it, before 4.5;
* ``core_layout``: ``base``, ``size``, ``text_size`` (7523e4dc5057, 4.5);
* ``mem[]``, one ``struct module_memory`` for each kind of memory, that of the code first (ac3b43283923, 6.4).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from yamori.address import GVA
from yamori.kernel.deferred import Finder, Found
from yamori.kernel.init_task import InitTask
from yamori.kernel.sample import Object, Reader
from yamori.kernel.types import Member
from yamori.translation.space import AddressSpace

NAME_BYTES = 64
"""``MODULE_NAME_LEN`` and the word of its own that it leaves."""

MODULE_BYTES = 1024
"""Bytes of ``struct module`` among which its memory is described; it has up to 1.5 KB."""

MOST_MODULES = 1024
LARGEST = 64 << 20
"""Bytes of one module: the area of modules has 16 MB on 32-bit Arm, up to 2 GB elsewhere, amdgpu about 20."""

REACH = (4 << 20, 12 << 20)
"""Bytes before and behind ``init_task`` in which the kernel's data is looked through, the nearest first."""

PIECE = 1 << 20
PAGE = 4096
BELOW_LINEAR = 16 << 20
"""Bytes below ``PAGE_OFFSET`` that modules have on 32-bit Arm (``arch/arm/include/asm/memory.h``)."""

FARTHEST_MOD = 256
"""Bytes from ``kobj`` to ``mod`` at the most: a ``struct kobject`` with debugging of its release has 200."""

FARTHEST_ELEMENT = 16
"""Words of ``struct module_memory`` at the most: two pointers, a size, and ``mod_tree_node`` of seven."""

MEMBERS = (
    ("module", "state"), ("module", "list"), ("module", "name"), ("module", "module_core"), ("module", "core_size"),
    ("module", "core_layout.base"), ("module", "core_layout.size"), ("module", "mem"), ("module_memory", "base"),
    ("module_memory", "size"), ("module", "mkobj.kobj"), ("module_kobject", "kobj"), ("module_kobject", "mod"),
    ("kobject", "entry"), ("kobject", "kset"), ("kset", "list"),
)  # fmt: skip

_NAME = re.compile(rb"[0-9A-Za-z_.+-]{1,55}\0")


def modules(space: AddressSpace, init: InitTask, address: Callable[[str], int | None]) -> Finder:
    """Return what finds the list of modules.

    Args:
        space: The kernel's address space.
        init: ``init_task``.
        address: The GVA of a symbol, by what names symbols.
    """
    return Finder(MEMBERS, ("modules",), lambda: _Modules(space, init, address("modules")).find())


class Memory(NamedTuple):
    """Where a module's memory is described: offsets in ``struct module`` of a pointer and of an ``unsigned int``."""

    base: int
    size: int


class _Modules:
    def __init__(self, space: AddressSpace, init: InitTask, head: int | None) -> None:
        self.reader = Reader(space, init)
        self.init = init
        self.head = head
        self.word = init.word_size
        self.found = Found({}, {}, {})

    def find(self) -> Found:
        heads = [self.head] if self.head else self.heads()
        listed = next(((head, nodes) for head in heads if (nodes := self.ring(head))), None)
        word, members = self.word, self.found.members
        if self.head or listed:
            members["module", "state"] = Member(0, 4)
            members["module", "list"] = Member(word, 2 * word)
            members["module", "name"] = Member(3 * word, NAME_BYTES - word)
        if listed is None:
            self.found.unknown["modules"] = "no list of modules is in the kernel's data, or nothing is on it"
            return self.found
        head, nodes = listed
        self.found.addresses["modules"] = head
        whole = [found for node in nodes if (found := self.reader.object(node - word, MODULE_BYTES))]
        self.memory(whole)
        self.objects(whole)
        return self.found

    def heads(self) -> Iterator[int]:
        """Yield what may be the head: a list in the kernel's data whose first entry is a module.

        Modules are mapped page by page, away from the image, and on 32-bit Arm from the linear map, which the image is
        a part of there: an address that is one of these is not followed.
        """
        word = self.word
        lowest, highest = self.reader.space.geometry.kernel
        linear = [
            range(region.gpa + self.init.image_offset, region.end + self.init.image_offset)
            for region in self.reader.space.memory.regions
        ]
        if word == 4:
            lowest = max(lowest, min(region.start for region in linear) - BELOW_LINEAR)
        unmapped: set[int] = set()
        for start, data in self.data():
            for index, (after, before) in enumerate(pairwise(memoryview(data).cast("Q" if word == 8 else "I"))):
                if not lowest <= after <= highest or not lowest <= before <= highest or after % word:
                    continue
                if after // PAGE in unmapped or any(after in region for region in linear):
                    continue
                if self.is_node(start + index * word, after):
                    yield start + index * word
                elif self.reader.pointer(after) is None:
                    unmapped.add(after // PAGE)

    def data(self) -> Iterator[tuple[int, bytes]]:
        """Yield (GVA, bytes) of what is mapped around ``init_task``, which lies in the kernel's data."""
        first = (self.init.gva - REACH[0]) // PIECE * PIECE
        pieces = range(first, self.init.gva + REACH[1], PIECE)
        for piece in sorted(pieces, key=lambda piece: abs(piece + PIECE // 2 - self.init.gva)):
            whole = self.reader.read(piece, PIECE)
            if whole is not None:
                yield piece, whole
                continue
            for page in range(piece, piece + PIECE, PAGE):
                if (one := self.reader.read(page, PAGE)) is not None:
                    yield page, one

    def is_node(self, previous: int, node: int) -> bool:
        """Say whether a module is at ``node``, and follows ``previous``."""
        found = self.reader.read(node, 2 * self.word + NAME_BYTES - self.word)
        if found is None or int.from_bytes(found[self.word : 2 * self.word], "little") != previous:
            return False
        name = _NAME.match(found, 2 * self.word)
        return name is not None and not any(found[name.end() :])

    def ring(self, head: int) -> list[int]:
        """Return the entries of the list, or none if one of them is no module or it does not close."""
        nodes: list[int] = []
        previous, node = head, self.reader.pointer(head)
        while node is not None and node != head and len(nodes) < MOST_MODULES:
            if not self.reader.is_address(node) or not self.is_node(previous, node):
                return []
            nodes.append(node)
            previous, node = node, self.reader.pointer(node)
        return nodes if node == head else []

    def memory(self, listed: Sequence[Object]) -> None:
        """State where modules say what memory they have."""
        word, members = self.word, self.found.members
        own = [place for place in self.places() if all(self.holds(module, place, itself=True) for module in listed)]
        if not listed or not own:
            self.found.unknown["module.mem"] = "nothing describes the modules' memory"
            return
        place = own[0]
        strides = (
            stride
            for stride in range(2 * word, FARTHEST_ELEMENT * word, word)
            if all(self.holds(module, Memory(place.base - stride, place.size - stride)) for module in listed)
        )
        # That of 4.5 has sizes behind it, and before it that of the code that is run only once, which is freed.
        if stride := next(strides, 0):
            members["module", "mem"] = Member(place.base - stride, 0, stride=stride)
            members["module_memory", "base"] = Member(0, word)
            members["module_memory", "size"] = Member(place.size - place.base, 4)
        elif place.size - place.base == word:
            members["module", "core_layout.base"] = Member(place.base, word)
            members["module", "core_layout.size"] = Member(place.size, 4)
        else:
            members["module", "module_core"] = Member(place.base, word)
            members["module", "core_size"] = Member(place.size, 4)

    def objects(self, listed: Sequence[Object]) -> None:
        """State where modules keep the object that sysfs shows: ``mkobj``, with the module's own name and address.

        ``struct kobject`` begins with ``name``, ``entry``, ``parent``, ``kset`` (``include/linux/kobject.h``), ``struct
        kset`` with ``list``, and ``struct module_kobject`` with ``kobj``, which ``mod`` follows.
        """
        word, members = self.word, self.found.members
        reach = range(3 * word, MODULE_BYTES - FARTHEST_MOD, word)
        place = next((at for at in reach if listed and all(self.is_object(one, at) for one in listed)), None)
        if place is None:
            self.found.unknown["module.mkobj"] = "no offset passes"
            return
        behind = range(5 * word, FARTHEST_MOD, word)
        mod = next((at for at in behind if all(one.word(place + at) == one.gva for one in listed)), None)
        if mod is not None:
            members["module", "mkobj.kobj"] = Member(place, mod)
            members["module_kobject", "kobj"] = Member(0, mod)
            members["module_kobject", "mod"] = Member(mod, word)
            members["kobject", "entry"] = Member(word, 2 * word)
            members["kobject", "kset"] = Member(4 * word, word)
            members["kset", "list"] = Member(0, 2 * word)

    def is_object(self, module: Object, offset: int) -> bool:
        """Say whether a ``kobject`` with the module's name is there, on a list."""
        own = module.data[3 * self.word : 2 * self.word + NAME_BYTES].partition(b"\0")[0]
        name = module.word(offset)
        if not own or not self.reader.is_address(name) or self.reader.read(name, len(own) + 1) != own + b"\0":
            return False
        entry = module.gva + offset + self.word
        return self.reader.pointer(module.word(offset + self.word) + self.word) == entry

    def places(self) -> Iterator[Memory]:
        for base in range(2 * self.word + NAME_BYTES, MODULE_BYTES - 4 * self.word, self.word):
            yield Memory(base, base + self.word)
            yield Memory(base, base + self.word + 4)

    def holds(self, module: Object, place: Memory, *, itself: bool = False) -> bool:
        """Say whether a page-aligned piece of memory is described there, one that the ``struct module`` lies in."""
        base, size = module.word(place.base), module.u32(place.size)
        if base % PAGE or not base or not 0 < size <= LARGEST or not self.reader.space.geometry.canonical(GVA(base)):
            return False
        return base <= module.gva < base + size if itself else not base <= module.gva < base + size

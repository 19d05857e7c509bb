"""Inference of what programs have: made-up objects, in the layouts that compilers give them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.heap import SIZE, Heap

from yamori.kernel.dentries import Dentries, Shape
from yamori.kernel.programs import BOUNDS, _Programs
from yamori.kernel.sample import Object, Reader, Sample
from yamori.kernel.types import Member

MM, EXE, PATH = 0x80, 0x3A0, 0x98
"""Where ``task->mm``, ``mm->exe_file`` and ``file->f_path.dentry`` are here, but for alignment."""


@dataclass
class Filesystem(Heap):
    """A heap with what programs and their files have in it; ``padded`` where 64-bit numbers are aligned to 8."""

    padded: bool = False

    @property
    def reader(self) -> Reader:
        return Reader(self.space, self.init)

    # the kernel's objects

    @property
    def shape(self) -> Shape:
        pad = self.word if self.padded else 0
        parent = 8 + 2 * self.word
        name = parent + self.word + pad + 8
        return Shape(parent, name, name + self.word + pad)

    def dentry(self, name: bytes, parent: int = 0, *, hashed: bool = True) -> int:
        entry, shape = self.new(192), self.shape
        self.put(entry + shape.parent, parent or entry)
        self.put(entry + shape.parent - self.word, self.base + 0x40 if hashed else 0)
        self.put(entry + shape.name - 4, len(name), 4)
        inline = entry + shape.inode + self.word
        place = inline if len(name) < 32 else self.new(256)
        self.text(place, name)
        self.put(entry + shape.name, place)
        self.put(entry + shape.inode, self.base + 0x80 + random.Random(name).randrange(64) * self.word)
        return entry

    def mount(self, root: int, point: int = 0, above: int = 0) -> int:
        """Return the ``vfsmount`` inside of a new mount."""
        around = self.new(32 * self.word)
        for at, value in enumerate((above - 4 * self.word if above else around, point or root, root), 2):
            self.put(around + at * self.word, value)
        return around + 4 * self.word

    def file(self, dentry: int, vfsmount: int) -> int:
        opened = self.new(232)
        path = PATH if self.word == 8 else 0x14
        self.put(opened + path - self.word, vfsmount)
        self.put(opened + path, dentry)
        inode = int.from_bytes(self.read(dentry + self.shape.inode, self.word), "little")
        self.put(opened + path + self.word, inode)
        return opened

    def mm(self, exe: int, *, number: int = 0) -> int:
        memory = self.new(1100 if self.word == 8 else 512)
        values = (0x10000, 0x20000, 0x21000, 0x22000, 0x30000, 0x31000, 0x7FF0, 0x7FF8, 0x7FFA, 0x7FFA, 0x7FFF)
        for index, value in enumerate(values):
            self.put(memory + self.bounds + index * self.word, value + (number << 20))
        self.put(memory + self.exe, exe)
        return memory

    @property
    def bounds(self) -> int:
        return 0x100 if self.word == 8 else 0x88

    @property
    def exe(self) -> int:
        return EXE if self.word == 8 else 0x190


def heap(kind: str) -> Filesystem:
    return Filesystem(8 if kind == "64" else 4, padded=kind == "arm")


def look(memory: Filesystem, places: list[int]) -> _Programs:
    """Return what is found of programs whose ``mm_struct`` are at ``places``."""
    tasks = [Object(0, bytes(MM) + place.to_bytes(memory.word, "little"), memory.word) for place in places]
    reader = memory.reader
    reader.gather = lambda _: Sample([], tasks)  # type: ignore[method-assign, assignment]  # tasks have a test of their own
    known = {"mm": Member(MM, memory.word), "real_parent": Member(0, memory.word)}
    found = _Programs(reader, lambda _, name: known.get(name))
    found.find()
    return found


def system(memory: Filesystem, count: int = 6) -> list[int]:
    """Make programs that run files of a root filesystem and of one that is mounted on /usr/lib."""
    root = memory.dentry(b"/")
    usr = memory.dentry(b"usr", root)
    point = memory.dentry(b"lib", usr)
    other = memory.dentry(b"/")
    below, above = memory.mount(root), 0
    above = memory.mount(other, point, below)
    files = [
        memory.file(memory.dentry(b"sh", usr), below),
        memory.file(memory.dentry(b"a-name-that-is-too-long-to-lie-inside-of-it", usr), below),
        memory.file(memory.dentry(b"daemon", other, hashed=False), above),
        memory.file(memory.dentry(b"busybox", root), below),
    ]
    return [memory.mm(files[number % len(files)], number=number) for number in range(count)]


KINDS = pytest.mark.parametrize("kind", ["64", "arm", "i386"])


@KINDS
@pytest.mark.parametrize("count", [1, 2, 6])
def test_found(kind: str, count: int) -> None:
    memory = heap(kind)
    found = look(memory, system(memory, count)).found
    offsets = {place: member.offset for place, member in found.members.items()}
    assert offsets["mm_struct", "start_code"] == memory.bounds
    assert offsets["mm_struct", "env_end"] == memory.bounds + 10 * memory.word
    assert offsets["mm_struct", "exe_file"] == memory.exe
    path = PATH if memory.word == 8 else 0x14
    assert offsets["file", "f_path.dentry"] == path
    assert offsets["file", "f_path.mnt"] == path - memory.word
    shape = memory.shape
    assert offsets["dentry", "d_parent"] == shape.parent
    assert offsets["dentry", "d_hash.pprev"] == shape.parent - memory.word
    assert offsets["dentry", "d_name.name"] == shape.name
    assert offsets["dentry", "d_inode"] == shape.inode
    assert offsets["mount", "mnt"] == 4 * memory.word
    assert set(found.unknown) == {"mm_struct.pgd"}  # there are no page tables here


def test_nothing_without_programs() -> None:
    assert look(heap("64"), []).found.members == {}


@KINDS
def test_executables_are_not_guessed(kind: str) -> None:
    """Where files are not to be seen, the bounds are known all the same."""
    memory = heap(kind)
    found = look(memory, [memory.mm(memory.new(256), number=number) for number in range(4)]).found
    assert len(found.members) == len(BOUNDS)
    assert found.unknown["mm_struct.exe_file"] == "no offset passes"


@KINDS
def test_mounts_are_not_guessed(kind: str) -> None:
    memory = heap(kind)
    opened = memory.file(memory.dentry(b"sh", memory.dentry(b"/")), memory.new(256))
    found = look(memory, [memory.mm(opened, number=number) for number in range(4)]).found
    assert ("mount", "mnt") not in found.members
    assert "mount" in found.unknown
    assert found.members["mm_struct", "exe_file"].offset == memory.exe


@KINDS
@pytest.mark.parametrize("wrong", ["length", "loop", "parent", "away"])
def test_no_dentry(kind: str, wrong: str) -> None:
    memory = heap(kind)
    root = memory.dentry(b"/")
    middle = memory.dentry(b"usr", root)
    entry = memory.dentry(b"sh", middle)
    dentries, shape = Dentries(memory.reader), memory.shape
    assert list(Dentries(memory.reader).shapes(entry)) == [shape]
    match wrong:
        case "length":
            memory.put(entry + shape.name - 4, 3, 4)
        case "loop":
            memory.put(root + shape.parent, middle)
        case "parent":
            memory.put(middle + shape.parent, memory.base + 0x40)
        case "away":
            memory.put(middle + shape.name, 0x1234 << 4)
    assert list(dentries.shapes(entry)) == []


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["64", "arm", "i386"]), st.data())
def test_spoiled_memory_raises_nothing(kind: str, data: st.DataObject) -> None:
    memory = heap(kind)
    places = system(memory)
    for _ in range(data.draw(st.integers(1, 40))):
        at = data.draw(st.integers(0, SIZE - memory.word)) // memory.word * memory.word
        value = data.draw(st.sampled_from([0, memory.base + at, memory.base + 8 * memory.word, (1 << 31) - 1]))
        memory.put(memory.base + at, value)
    found = look(memory, places).found
    assert all(0 <= member.offset < 2048 for member in found.members.values())

"""Inference of the list of modules: made-up kernels' data, in the three forms that ``struct module`` has had."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.heap import SIZE, Heap

from yamori.kernel import modules as inference
from yamori.kernel.deferred import Found

BASE = 0x180
"""Where ``struct module`` describes its memory here."""
OBJECT, MOD = 0x60, 9
"""Where ``struct module`` has its object, and that its module: bytes, words."""
FORMS = {
    "before 4.5": {("module", "module_core"): BASE, ("module", "core_size"): BASE},
    "4.5": {("module", "core_layout.base"): BASE, ("module", "core_layout.size"): BASE},
    "6.4": {("module", "mem"): BASE, ("module_memory", "base"): 0, ("module_memory", "size"): 0},
}


class Kernel(Heap):
    """The head lies in the data; each module has two pages, the second of which holds its ``struct module``."""

    head = 0

    def load(self, names: list[bytes], form: str) -> None:
        self.free = 0x2000
        self.head = self.base + 0x840
        nodes = [self.head]
        for number, name in enumerate(names):
            page = self.base + 0x4000 + number * 0x3000
            module = page + 0x1100
            nodes.append(module + self.word)
            self.text(module + 3 * self.word, name)
            self.text(page + 0x40, name)
            self.put(module + OBJECT, page + 0x40)
            self.put(module + OBJECT + 4 * self.word, self.base + 0x900)
            self.put(module + OBJECT + MOD * self.word, module)
            self.describe(module, page, form)
        self.ring(nodes)
        self.ring([self.base + 0x900, *(node + OBJECT for node in nodes[1:])])

    def ring(self, nodes: list[int]) -> None:
        for node, after in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
            self.put(node, after)
            self.put(after + self.word, node)

    def describe(self, module: int, page: int, form: str) -> None:
        at = module + BASE
        match form:
            case "before 4.5":
                self.put(at, page)
                self.put(at + self.word + 4, 0x2000, 4)  # behind init_size
            case "4.5":
                self.put(at, page)
                self.put(at + self.word, 0x2000, 4)
                self.put(at + self.word + 4, 0x1000, 4)
            case _:
                stride = 9 * self.word
                self.put(at, page)
                self.put(at + self.word, 0x1000, 4)
                self.put(at + stride, page + 0x1000)
                self.put(at + stride + self.word, 0x1000, 4)


def kernel(word: int) -> Kernel:
    return Kernel(word)


def find(memory: Heap, head: int | None = None) -> Found:
    return inference.modules(memory.space, memory.init, lambda _: head).find()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "REACH", (SIZE, 0))
    monkeypatch.setattr(inference, "PIECE", SIZE)


@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("named", [False, True])
def test_found(word: int, form: str, *, named: bool) -> None:
    memory = kernel(word)
    memory.load([b"nf_tables", b"a", b"x" * 40], form)
    found = find(memory, memory.head if named else None)
    assert found.unknown == {}
    assert found.addresses == {"modules": memory.head}
    offsets = {place: member.offset for place, member in found.members.items()}
    assert offsets["module", "list"] == word
    assert offsets["module", "name"] == 3 * word
    for place, offset in FORMS[form].items():
        size = "size" in place[1]
        extra = (word + 4 if form == "before 4.5" else word) if size else 0
        assert offsets[place] == offset + extra
    assert offsets["module", "mkobj.kobj"] == OBJECT
    assert offsets["module_kobject", "mod"] == MOD * word
    assert offsets["kobject", "kset"] == 4 * word
    assert len(offsets) == 9 + len(FORMS[form])
    if form == "6.4":
        assert found.members["module", "mem"].stride == 9 * word


@pytest.mark.parametrize("wrong", ["name", "entry", "mod"])
def test_objects_are_not_guessed(wrong: str) -> None:
    memory = kernel(8)
    memory.load([b"one", b"two"], "4.5")
    module = memory.base + 0x4000 + 0x1100
    match wrong:
        case "name":
            memory.text(memory.base + 0x4000 + 0x40, b"other")
        case "entry":
            memory.put(memory.pointer(module + OBJECT + 8) + 8, memory.base + 0x40)
        case "mod":
            memory.put(module + OBJECT + MOD * 8, 0)
    found = find(memory)
    assert ("module_kobject", "mod") not in found.members
    assert ("module", "core_layout.base") in found.members


@pytest.mark.parametrize("word", [4, 8])
def test_empty(word: int) -> None:
    memory = kernel(word)
    memory.load([], "4.5")
    assert find(memory).addresses == {}
    assert ("module", "list") not in find(memory).members
    assert ("module", "list") in find(memory, memory.head).members
    assert "nothing is on it" in find(memory).unknown["modules"]


@pytest.mark.parametrize("wrong", ["name", "prev", "loop", "away"])
def test_what_is_no_list_of_modules(wrong: str) -> None:
    memory = kernel(8)
    memory.load([b"one", b"two"], "4.5")
    second = memory.base + 0x4000 + 0x3000 + 0x1100
    match wrong:
        case "name":
            memory.text(second + 24, b"no name\n")
        case "prev":
            memory.put(second + 16, memory.base + 0x40)
        case "loop":
            memory.put(second + 8, second + 8)
        case "away":
            memory.put(second + 8, memory.base + SIZE + 0x1000)
    assert find(memory).addresses == {}
    assert find(memory, memory.head).addresses == {}


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([4, 8]), st.sampled_from(list(FORMS)), st.data())
def test_spoiled_memory_raises_nothing(word: int, form: str, data: st.DataObject) -> None:
    memory = kernel(word)
    memory.load([b"one", b"two", b"three"], form)
    for _ in range(data.draw(st.integers(1, 30))):
        at = data.draw(st.integers(0, SIZE // word - 1)) * word
        memory.put(memory.base + at, data.draw(st.sampled_from([0, memory.base + at, memory.head, memory.base])))
    found = find(memory, data.draw(st.sampled_from([None, memory.head])))
    assert all(0 <= member.offset < inference.MODULE_BYTES for member in found.members.values())

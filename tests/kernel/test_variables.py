"""Variables that no symbol names, told by machine code that a compiler made, and by what lies there."""

from __future__ import annotations

from typing import cast

import pytest
from tests.kernel import test_code
from tests.kernel.test_code import COMPILERS, built

from yamori.address import GPA, GVA
from yamori.errors import Fault
from yamori.kernel.functions import Functions
from yamori.kernel.init_task import InitTask
from yamori.kernel.symbols import Symbol, Symbols
from yamori.kernel.variables import Variables
from yamori.translation.format import Mapping
from yamori.translation.space import AddressSpace

NAMES = {"hands_on_a_variable": "__request_module", "of_a_table": "get_kprobe"}
WORD = {"arm": 4, "thumb": 4}


class Space(test_code.Text):
    """A text, and variables that may be written unless told otherwise."""

    def __init__(self, machine: str) -> None:
        super().__init__(built(machine).text)
        self.word = WORD.get(machine, 8)
        self.data: dict[int, bytes] = {}
        self.writable = True

    def read(self, gva: GVA, size: int) -> bytes:
        for start, data in self.data.items():
            if start - 1 <= gva < start + len(data):
                return (b"\0" + data)[gva - start + 1 :][:size].ljust(size, b"\0")
        if not test_code.AT <= gva < test_code.AT + len(self.text):
            raise Fault("not mapped")
        return super().read(gva, size)

    def pointer(self, gva: GVA) -> int:
        return int.from_bytes(self.read(gva, self.word), "little")

    def translate(self, gva: GVA) -> Mapping:
        self.read(gva, 1)
        in_text = gva < test_code.AT + len(self.text)
        return Mapping(GPA(gva), 4096, self.writable and not in_text, in_text, user=False)


def address(machine: str, space: Space, name: str) -> int | None:
    functions = built(machine).functions
    symbols = Symbols([Symbol(text.start, "T", NAMES.get(ours, ours)) for ours, text in functions.items()], "kallsyms")
    of = Functions(cast("AddressSpace", space), "arm" if machine == "thumb" else machine, [symbols])
    init = InitTask(gva=0, gpa=0, image_offset=0, comm=0, word_size=space.word, votes=0)
    return Variables(cast("AddressSpace", space), init, of).address(name)


@pytest.fixture(params=COMPILERS)
def machine(request: pytest.FixtureRequest) -> str:
    built(request.param)
    return str(request.param)


def test_a_text(machine: str) -> None:
    space, place = Space(machine), built(machine).variables["text"]
    assert address(machine, space, "modprobe_path") is None
    space.data[place] = b"/sbin/modprobe\0"
    assert address(machine, space, "modprobe_path") == place
    space.writable = False
    assert address(machine, space, "modprobe_path") is None


@pytest.mark.parametrize("text", [b"", b"sbin/modprobe\0", b"/sbin/\xff\0", b"/" * 300])
def test_what_is_no_text(machine: str, text: bytes) -> None:
    space = Space(machine)
    space.data[built(machine).variables["text"]] = text
    assert address(machine, space, "modprobe_path") is None


def test_a_table(machine: str) -> None:
    space, place = Space(machine), built(machine).variables["table"]
    space.data[place] = bytes(64 * space.word)
    assert address(machine, space, "kprobe_table") == place
    node = place + 0x1000
    space.data[place] = node.to_bytes(space.word, "little") + bytes(63 * space.word)
    assert address(machine, space, "kprobe_table") is None  # no entry that links back is there
    space.data[node] = bytes(space.word) + place.to_bytes(space.word, "little")
    assert address(machine, space, "kprobe_table") == place


def test_what_no_function_uses_is_not_known(machine: str) -> None:
    assert address(machine, Space(machine), "core_pattern") is None
    assert address(machine, Space(machine), "init_task") is None

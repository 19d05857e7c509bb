"""BTF, against an encoder that is written from the format's description and shares nothing with the parser."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.address import GPA
from yamori.errors import ProfileError
from yamori.kernel import btf
from yamori.kernel.btf import BtfTypes
from yamori.kernel.types import Member, Types
from yamori.memory.physical import BytesMemory

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
FUNC, PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)


class Field(NamedTuple):
    name: str
    type_id: int
    bit: int
    width: int = 0


class Blob:
    """An encoder of BTF."""

    def __init__(self) -> None:
        self.types = b""
        self.count = 0
        self.strings = b"\0"

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text.encode()) - 1

    def add(
        self, kind: int, name: str = "", size: int = 0, words: Sequence[int] = (), *, vlen: int = 0, flag: bool = False
    ) -> int:
        info = flag << 31 | kind << 24 | vlen
        self.types += struct.pack(f"<{3 + len(words)}I", self.name(name), info, size, *words)
        self.count += 1
        return self.count

    def integer(self, name: str, size: int, *, signed: bool = False, bits: int = 0, offset: int = 0) -> int:
        return self.add(INT, name, size, [signed << 24 | offset << 16 | (bits or size * 8)])

    def struct(self, name: str, size: int, *fields: Field, kind: int = STRUCT, flag: bool = False) -> int:
        words: list[int] = []
        for field in fields:
            words += (self.name(field.name), field.type_id, field.width << 24 | field.bit)
        return self.add(kind, name, size, words, vlen=len(fields), flag=flag)

    def enum(self, name: str, *, signed: bool = False, **values: int) -> int:
        words = [word for key, value in values.items() for word in (self.name(key), value & 0xFFFFFFFF)]
        return self.add(ENUM, name, 4, words, vlen=len(values), flag=signed)

    def array(self, type_id: int, count: int) -> int:
        return self.add(ARRAY, words=[type_id, 0, count])

    def build(self, *, extra_header: bytes = b"", layout: bytes = b"", gap: int = 0) -> bytes:
        fields = [0, len(self.types), len(self.types) + gap, len(self.strings)]
        body = self.types + bytes(gap) + self.strings
        if layout:
            body += bytes(-len(body) % 4)
            extra_header = struct.pack("<2I", len(body), len(layout)) + extra_header
            body += layout
        header = struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24 + len(extra_header), *fields)
        return header + extra_header + body

    def parse(self, word_size: int | None = None) -> BtfTypes:
        return btf.parse(self.build(), word_size)


def kernel(long_size: int = 8) -> Blob:
    """Return a little kernel: ``task_struct`` and what belongs to it."""
    blob = Blob()
    ulong = blob.integer("long unsigned int", long_size)
    integer = blob.integer("int", 4, signed=True)
    char = blob.integer("char", 1, signed=True)
    unsigned = blob.integer("unsigned int", 4)
    pid_t = blob.add(TYPEDEF, "pid_t", integer)
    pointer = blob.add(PTR, size=0)
    list_head = blob.struct(
        "list_head", 2 * long_size, Field("next", pointer, 0), Field("prev", pointer, 8 * long_size)
    )
    entity = blob.struct(
        "sched_entity", 3 * long_size, Field("load", ulong, 0), Field("node", list_head, 8 * long_size)
    )
    volatile = blob.add(CONST, size=blob.add(VOLATILE, size=blob.add(TYPE_TAG, "rcu", pointer)))
    inner = blob.struct("", 8, Field("a", unsigned, 0), Field("b", unsigned, 32))
    union = blob.struct("", 8, Field("", inner, 0), Field("whole", blob.array(char, 8), 0), kind=UNION)
    blob.struct(
        "task_struct",
        256,
        Field("se", entity, 64),
        Field("mm", volatile, 512),
        Field("pid", pid_t, 640),
        Field("comm", blob.array(char, 16), 672),
        Field("", union, 832),
        Field("lists", blob.array(list_head, 3), 960),
        Field("first", unsigned, 1600, 1),
        Field("second", integer, 1601, 5),
        Field("rest", blob.array(unsigned, 0), 2048),
        flag=True,
    )
    blob.add(TYPEDEF, "task_t", blob.count)
    blob.enum("pid_type", PIDTYPE_PID=0, PIDTYPE_TGID=1)
    blob.enum("hrtimer_mode", signed=True, MODE_BAD=-1)
    return blob


@pytest.fixture
def types() -> BtfTypes:
    return kernel().parse()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("se", Member(8, 24)),
        ("se.node", Member(16, 16)),
        ("se.node.prev", Member(24, 8)),
        ("mm", Member(64, 8)),
        ("pid", Member(80, 4, signed=True)),
        ("comm", Member(84, 16, stride=1)),
        ("a", Member(104, 4)),
        ("b", Member(108, 4)),
        ("whole", Member(104, 8, stride=1)),
        ("lists", Member(120, 48, stride=16)),
        ("lists.prev", Member(128, 8)),
        ("first", Member(200, 4, bits=1)),
        ("second", Member(200, 4, signed=True, shift=1, bits=5)),
        ("rest", Member(256, 0, stride=4)),
    ],
)
def test_member(types: BtfTypes, path: str, expected: Member) -> None:
    source: Types = types
    assert source.member("task_struct", path) == expected._replace(provenance="btf")
    assert types.member("task_t", path) == types.member("task_struct", path)


@pytest.mark.parametrize("path", ["", "nope", "se.nope", "mm.anything", "pid.x", ".", "se.", ".se", "first.x", "a.b"])
def test_member_that_is_not_there(types: BtfTypes, path: str) -> None:
    assert types.member("task_struct", path) is None
    assert types.member("no_such_struct", path) is None
    assert types.member("", path) is None


def test_sizes_and_words(types: BtfTypes) -> None:
    assert types.size("task_struct") == types.size("task_t") == 256
    assert types.size("pid_t") == 4
    assert types.size("task") is None
    assert types.size("") is None
    assert types.word_size == 8
    assert kernel(4).parse().member("task_struct", "mm") == Member(64, 4, provenance="btf")


def test_without_a_word_size_pointers_are_not_known() -> None:
    blob = Blob()
    blob.struct("s", 16, Field("p", blob.add(PTR), 0), Field("q", blob.integer("int", 4), 64))
    assert blob.parse().word_size is None
    assert blob.parse().member("s", "p") is None
    assert blob.parse().member("s", "q") == Member(8, 4, provenance="btf")
    assert blob.parse(word_size=4).member("s", "p") == Member(0, 4, provenance="btf")


def test_bit_fields_before_kind_flag() -> None:
    blob = Blob()
    plain = blob.integer("int", 4, signed=True)
    narrow = blob.integer("int", 1, bits=3)
    shifted = blob.integer("int", 4, bits=4, offset=2)
    blob.struct("s", 8, Field("x", plain, 0), Field("y", narrow, 37), Field("z", shifted, 40))
    types = blob.parse()
    assert types.member("s", "x") == Member(0, 4, signed=True, provenance="btf")
    assert types.member("s", "y") == Member(4, 1, shift=5, bits=3, provenance="btf")
    assert types.member("s", "z") == Member(4, 4, shift=10, bits=4, provenance="btf")


def test_bit_field_packed_across_two_units() -> None:
    blob = Blob()
    integer = blob.integer("unsigned int", 4)
    blob.struct("s", 8, Field("x", integer, 30, 5), Field("y", integer, 0, 33), Field("z", blob.add(PTR), 7), flag=True)
    types = blob.parse(word_size=8)
    assert types.member("s", "x") == Member(3, 2, shift=6, bits=5, provenance="btf")
    assert types.member("s", "y") is None  # wider than its type
    assert types.member("s", "z") is None  # starts within a byte and is no bit-field


def test_enumerations() -> None:
    blob = kernel()
    low_high = [blob.name("BIG"), 5, 1, blob.name("LESS"), 0xFFFFFFFE, 0xFFFFFFFF]
    state = blob.add(ENUM64, "big", 8, low_high, vlen=2, flag=True)
    blob.enum("one", SAME=3, UNSIGNED=0xFFFFFFFF)
    blob.enum("two", SAME=4)
    blob.struct("holder", 16, Field("big", state, 0), Field("real", blob.add(FLOAT, "double", 8), 64))
    types = blob.parse()
    assert types.enumerator("PIDTYPE_TGID") == 1
    assert types.enumerator("MODE_BAD") == -1
    assert types.enumerator("BIG") == 0x100000005
    assert types.enumerator("LESS") == -2
    assert types.enumerator("UNSIGNED") == 0xFFFFFFFF
    assert types.enumerator("SAME") is None  # two answers
    assert types.enumerator("PIDTYPE") is None
    assert types.member("holder", "big") == Member(0, 8, signed=True, provenance="btf")
    assert types.member("holder", "real") == Member(8, 8, provenance="btf")


def test_enumerators_are_signed_where_nothing_marks_them() -> None:
    blob = Blob()
    blob.enum("e", MINUS=-22)
    assert blob.parse().enumerator("MINUS") == -22


def test_per_cpu_variables_and_functions() -> None:
    blob = kernel()
    variable = blob.add(VAR, "runqueues", 1, [0])
    other = blob.add(VAR, "jiffies", 1, [0])
    blob.add(DATASEC, ".data..percpu", 4096, [0, 8, 8, variable, 640, 8], vlen=2)
    blob.add(DATASEC, ".data", 4096, [other, 64, 8], vlen=1)
    blob.add(FUNC, "x64_sys_call", blob.add(PROTO, "", 1, [blob.name("regs"), 6], vlen=1))
    blob.add(DECL_TAG, "bpf_kfunc", blob.count, [0xFFFFFFFF])
    types = blob.parse()
    assert types.percpu_offset("runqueues") == 640
    assert types.percpu_offset("jiffies") is None
    assert types.has_function("x64_sys_call")
    assert not types.has_function("sys_call")
    assert len(types) == blob.count


def test_namesakes_answer_only_what_they_agree_on() -> None:
    blob = Blob()
    integer = blob.integer("int", 4)
    blob.struct("s", 8, Field("same", integer, 0), Field("moved", integer, 32))
    blob.struct("s", 12, Field("same", integer, 0), Field("moved", integer, 64), Field("new", integer, 32))
    blob.add(FWD, "s")
    types = blob.parse()
    assert types.member("s", "same") == Member(0, 4, provenance="btf")
    assert types.member("s", "moved") is None
    assert types.member("s", "new") is None
    assert types.size("s") is None


def test_names_are_not_mixed_up_with_their_tails() -> None:
    blob = Blob()
    integer = blob.integer("int", 4)
    blob.struct("my_task", 4, Field("umm", integer, 0))
    types = blob.parse()
    assert types.size("task") is None
    assert types.member("my_task", "mm") is None


def test_endless_chains() -> None:
    blob = Blob()
    blob.add(TYPEDEF, "loop", 2)
    blob.add(CONST, size=1)
    blob.array(3, 2)
    blob.struct("s", 4, Field("loop", 1, 0), Field("array", 3, 0), Field("", 4, 0), Field("self", 4, 0))
    types = blob.parse(word_size=8)
    assert types.member("s", "loop") is None
    assert types.member("s", "array") is None
    assert types.member("s", "nope") is None
    assert types.size("loop") is None
    assert types.member("s", ".".join(["self"] * 50)) == Member(0, 4, provenance="btf")


def test_anonymous_structures_that_double_at_each_level() -> None:
    blob = Blob()
    blob.integer("int", 4)
    for level in range(1, 2001):
        blob.struct("top" if level == 2000 else "", 4, Field("", level, 0), Field("", level, 0))
    assert blob.parse().member("top", "nope") is None


def test_locate() -> None:
    data = kernel().build()
    memory = BytesMemory({0x1000: b"\0" * 16 + data + b"tail", 0x100000: data[:-1]})
    found = btf.locate(memory, GPA(0x1010))
    assert found is not None
    assert found.size("task_struct") == 256
    assert btf.locate(memory, GPA(0x1014)) is None
    assert btf.locate(memory, GPA(0x100000)) is None  # runs out of its region
    assert btf.locate(memory, GPA(0x5000)) is None
    assert data.startswith(btf.MAGIC)


def test_split_btf_is_refused() -> None:
    module = Blob()
    module.struct("module_state", 8, Field("base", 90_000, 0))
    with pytest.raises(ProfileError, match="split"):
        module.parse()
    module = Blob()
    module.types = struct.pack("<3I", 1_500_000, PTR << 24, 0)
    with pytest.raises(ProfileError, match="split"):
        module.parse()


def _patched(at: int, data: bytes) -> bytes:
    blob = kernel().build()
    return blob[:at] + data + blob[at + len(data) :]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "not a BTF header"),
        (b"\x7fELF" + bytes(100), "not a BTF header"),
        (_patched(2, b"\x02"), "not a BTF header"),
        (_patched(3, b"\x01"), "not a BTF header"),
        (_patched(4, b"\x10"), "not a BTF header"),
        (_patched(4, b"\x19"), "not a BTF header"),
        (_patched(7, b"\x10"), "not a BTF header"),
        (_patched(12, bytes(4)), "empty"),
        (_patched(15, b"\x40"), "too large"),
        (_patched(23, b"\xff"), "too large"),
        (_patched(12, b"\x10"), "gaps|aligned"),
        (_patched(28, b"\xff\xff\xff\x7f"), "fill their section"),
        (kernel().build(gap=4), "gaps"),
        (kernel().build()[:-1], "cut short"),
        (kernel().build()[:30], "cut short"),
        (kernel().build()[:-1] + b"x", "NUL"),
        (kernel().build(extra_header=bytes(8) + b"\1\0\0\0"), "fields that are not known"),
    ],
)
def test_malformed(blob: bytes, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        btf.parse(blob)
    assert btf.locate(BytesMemory({0: blob}), GPA(0)) is None


def test_header_that_is_longer_with_nothing_in_it() -> None:
    assert btf.parse(kernel().build(extra_header=bytes(16))).size("task_struct") == 256


LAYOUT = [(0, 0), (4, 0), (0, 0), (12, 0), (0, 12), (0, 12), (0, 8), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]
LAYOUT += [(0, 8), (4, 0), (0, 12), (0, 0), (4, 0), (0, 0), (0, 12)]


def _layout(*more: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<BBH", info, element, 0) for info, element in [*LAYOUT, *more])


def test_unknown_kinds_need_a_layout() -> None:
    blob = kernel()
    blob.add(20, "new", 0, range(1000, 1011), vlen=3)
    with pytest.raises(ProfileError, match="fill their section"):
        btf.parse(blob.build())
    assert btf.parse(blob.build(layout=_layout((8, 12)))).size("task_struct") == 256
    with pytest.raises(ProfileError, match="fill their section"):
        btf.parse(blob.build(layout=_layout((4, 12))))
    with pytest.raises(ProfileError, match="kind 20"):
        btf.parse(blob.build(layout=_layout((7, 12))))
    with pytest.raises(ProfileError, match="too large"):
        btf.parse(blob.build(layout=_layout(*[(4, 0)] * 128)))


def test_layout_that_contradicts_what_is_known() -> None:
    assert btf.parse(kernel().build(layout=_layout())).size("task_struct") == 256
    changed = bytearray(_layout())
    changed[4 * STRUCT + 1] = 16
    with pytest.raises(ProfileError, match="kind 4"):
        btf.parse(kernel().build(layout=bytes(changed)))


def test_more_members_than_sixteen_bits_count() -> None:
    blob = Blob()
    integer = blob.integer("int", 4)
    word = struct.pack("<3I", blob.name("filler"), integer, 0)
    last = struct.pack("<3I", blob.name("last"), integer, 64)
    blob.types += struct.pack("<3I", blob.name("wide"), STRUCT << 24 | 70_001, 8) + word * 70_000 + last
    assert btf.parse(blob.build()).member("wide", "last") == Member(8, 4, provenance="btf")


names = st.text("abcdefgh_", min_size=1, max_size=6)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(names, st.integers(0, 3), st.integers(0, 200), st.integers(0, 5)),
        max_size=12,
        unique_by=lambda x: x[0],
    ),
    st.booleans(),
)
def test_round_trip(members: list[tuple[str, int, int, int]], anonymous: bool) -> None:
    blob = Blob()
    integers = [blob.integer(f"int{1 << power}", 1 << power, signed=power % 2 == 1) for power in range(4)]
    fields, expected = [], {}
    for name, power, slot, count in members:
        size = 1 << power
        type_id = blob.array(integers[power], count) if count else integers[power]
        fields.append(Field(name, type_id, slot * size * 8))
        expected[name] = Member(
            slot * size, size * (count or 1), power % 2 == 1 and not count, stride=size if count else 0
        )
    inner = blob.struct("" if anonymous else "inner", 4096, *fields)
    blob.struct("outer", 8192, Field("" if anonymous else "in", inner, 1024))
    types = blob.parse()
    for name, member in expected.items():
        found = types.member("outer", name if anonymous else f"in.{name}")
        assert found == member._replace(offset=member.offset + 128, provenance="btf")


def _ask_everything(types: BtfTypes) -> None:
    for name in ("task_struct", "task_t", "list_head", "pid_t", "sched_entity"):
        types.size(name)
        for path in ("se.node.prev", "comm", "second", "whole", "lists.next", "mm", "nope"):
            types.member(name, path)
    for name in ("PIDTYPE_TGID", "MODE_BAD", "runqueues"):
        types.enumerator(name)
        types.percpu_offset(name)
        types.has_function(name)


def _check_hostile(blob: bytes) -> None:
    located = btf.locate(BytesMemory({0: blob}), GPA(0))
    try:
        _ask_everything(btf.parse(blob))
    except ProfileError:
        assert located is None
    else:
        assert located is not None


KERNEL = kernel().build(layout=_layout((4, 4)))


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(KERNEL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes(changes: list[tuple[int, int]]) -> None:
    blob = bytearray(KERNEL)
    for at, value in changes:
        blob[at] = value
    _check_hostile(bytes(blob))


@settings(max_examples=60)
@given(st.integers(0, len(KERNEL)))
def test_truncated(size: int) -> None:
    _check_hostile(KERNEL[:size])


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_random(data: bytes) -> None:
    _check_hostile(data)
    _check_hostile(btf.MAGIC + data)
    words = data[: len(data) // 4 * 4]
    _check_hostile(btf.MAGIC + struct.pack("<5I", 24, 0, len(words), len(words), 1) + words + b"\0")

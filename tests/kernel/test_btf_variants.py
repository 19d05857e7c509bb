"""BTF as kernels since 4.18 write it: every kind, both headers, and blobs that are not those of ``vmlinux``.

``docs/variants.md`` says which kernels these are of.
"""

from __future__ import annotations

import struct

import pytest
from tests.kernel.test_btf import (
    ARRAY,
    CONST,
    DATASEC,
    DECL_TAG,
    ENUM,
    ENUM64,
    FLOAT,
    FUNC,
    FWD,
    PROTO,
    PTR,
    TYPE_TAG,
    TYPEDEF,
    UNION,
    VAR,
    VOLATILE,
    Blob,
    Field,
    kernel,
)

from yamori.address import GPA
from yamori.errors import ProfileError
from yamori.kernel import btf
from yamori.kernel.types import Member
from yamori.memory.physical import BytesMemory

RESTRICT = 11


def every_kind() -> tuple[Blob, dict[int, int]]:
    """Return a blob with a type of each kind, 1 to 19, and the id of each."""
    blob = Blob()
    ids = {1: blob.integer("int", 4, signed=True)}
    ids[PTR] = blob.add(PTR, size=ids[1])
    ids[ARRAY] = blob.array(ids[1], 4)
    ids[4] = blob.struct("node", 16, Field("value", ids[1], 0), Field("next", ids[PTR], 64))
    ids[UNION] = blob.struct("either", 8, Field("a", ids[1], 0), Field("b", ids[PTR], 0), kind=UNION)
    ids[ENUM] = blob.enum("colour", RED=1, GREEN=2)
    ids[FWD] = blob.add(FWD, "opaque", flag=True)
    for kind in (TYPEDEF, VOLATILE, CONST, RESTRICT):
        ids[kind] = blob.add(kind, "number" if kind == TYPEDEF else "", ids[1])
    ids[PROTO] = blob.add(PROTO, "", ids[1], [blob.name("argument"), ids[1]], vlen=1)
    ids[FUNC] = blob.add(FUNC, "function", ids[PROTO], vlen=1)  # vlen is the linkage: no elements follow
    ids[VAR] = blob.add(VAR, "variable", ids[1], [1])
    ids[DATASEC] = blob.add(DATASEC, ".data..percpu", 64, [ids[VAR], 32, 4], vlen=1)
    ids[FLOAT] = blob.add(FLOAT, "double", 8)
    ids[DECL_TAG] = blob.add(DECL_TAG, "tagged", ids[4], [0])
    ids[TYPE_TAG] = blob.add(TYPE_TAG, "user", ids[1])
    ids[ENUM64] = blob.add(ENUM64, "wide", 8, [blob.name("HUGE"), 0, 1], vlen=1)
    return blob, ids


MEMBERS = {
    1: Member(8, 4, signed=True),
    PTR: Member(8, 8),
    ARRAY: Member(8, 16, stride=4),
    4: Member(8, 16),
    UNION: Member(8, 8),
    ENUM: Member(8, 4),
    FWD: None,
    TYPEDEF: Member(8, 4, signed=True),
    VOLATILE: Member(8, 4, signed=True),
    CONST: Member(8, 4, signed=True),
    RESTRICT: Member(8, 4, signed=True),
    FUNC: None,
    PROTO: None,
    VAR: None,
    DATASEC: None,
    FLOAT: Member(8, 8),
    DECL_TAG: None,
    TYPE_TAG: Member(8, 4, signed=True),
    ENUM64: Member(8, 8),
}
"""What a member of a type of each kind is; what has no size is no member."""


@pytest.mark.parametrize("kind", MEMBERS)
def test_member_of_a_type_of_each_kind(kind: int) -> None:
    blob, ids = every_kind()
    assert ids.keys() == MEMBERS.keys() == set(range(1, 20))
    blob.struct("holder", 64, Field("it", ids[kind], 64), Field("behind", ids[1], 256))
    types = blob.parse(word_size=8)
    expected = MEMBERS[kind]
    assert types.member("holder", "it") == (expected and expected._replace(provenance="btf"))
    assert types.member("holder", "behind") == Member(32, 4, signed=True, provenance="btf")


def test_what_other_kinds_tell() -> None:
    types = every_kind()[0].parse(word_size=8)
    assert (types.enumerator("GREEN"), types.enumerator("HUGE")) == (2, 1 << 32)
    assert types.has_function("function")
    assert types.percpu_offset("variable") == 32
    assert types.member("node", "next") == Member(8, 8, provenance="btf")


@pytest.mark.parametrize("kind", [TYPE_TAG, DECL_TAG, FWD])
def test_flag_of_tags_that_are_attributes(kind: int) -> None:
    """``kind_flag`` of tags means an attribute of any name since 6.15 (ea70faa1f244), that of FWD always a union."""
    blob = kernel()
    integer = blob.integer("int", 4)
    tag = blob.add(kind, "address_space(1)", integer, [0] if kind == DECL_TAG else (), flag=True)
    blob.struct("holder", 8, Field("it", tag, 0), Field("behind", integer, 32))
    types = blob.parse()
    found = types.member("holder", "it")
    assert found == (Member(0, 4, provenance="btf") if kind == TYPE_TAG else None)
    assert types.member("holder", "behind") == Member(4, 4, provenance="btf")


def strings_first(blob: Blob) -> bytes:
    """Return a blob whose strings lie before its types: the header says where each section is."""
    strings = blob.strings + bytes(-len(blob.strings) % 4)
    header = struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, len(strings), len(blob.types), 0, len(strings))
    return header + strings + blob.types


def test_strings_before_types() -> None:
    """As ``btf_check_sec_info`` of ``kernel/bpf/btf.c`` allows: sections in any order, with no gaps or overlaps."""
    assert btf.parse(strings_first(kernel())).member("task_struct", "pid") == kernel().parse().member(
        "task_struct", "pid"
    )


def test_big_endian_is_refused() -> None:
    blob = kernel()
    words = struct.unpack(f"<{len(blob.types) // 4}I", blob.types)
    header = struct.pack(">HBBI4I", 0xEB9F, 1, 0, 24, 0, len(blob.types), len(blob.types), len(blob.strings))
    data = header + struct.pack(f">{len(words)}I", *words) + blob.strings
    with pytest.raises(ProfileError, match="not a BTF header"):
        btf.parse(data)
    assert btf.locate(BytesMemory({0: data}), GPA(0)) is None


@pytest.mark.parametrize("magic", [b"\x9f\xeb\x02\x00", b"\x9f\xeb\x01\x01"])
def test_other_version_or_flags_are_refused(magic: bytes) -> None:
    with pytest.raises(ProfileError, match="not a BTF header"):
        btf.parse(magic + kernel().build()[4:])


@pytest.mark.parametrize("known", [0, 4])
def test_distilled_base_of_a_module_has_no_members(known: int) -> None:
    """``.BTF.base`` (6.11, 58e185a0dc35) is whole by itself: names and sizes of what a module uses, without members."""
    base = Blob()
    base.integer("int", 4)
    base.struct("task_struct", 9792 if known else 0)
    types = base.parse()
    assert types.size("task_struct") == (9792 if known else 0)
    assert types.member("task_struct", "comm") is None


def test_types_of_a_module_that_go_on_from_those_of_vmlinux_are_refused() -> None:
    """Split BTF (5.11, 951bb64621b8): ids and names count on from the base blob, even of a module with one type."""
    base = kernel()
    module = Blob()
    module.types = struct.pack("<3I", len(base.strings), TYPEDEF << 24, base.count)
    with pytest.raises(ProfileError, match="split"):
        module.parse()


def test_members_of_zero_width_and_offsets_beyond_24_bits() -> None:
    """Without ``kind_flag`` all 32 bits are the offset; with it 8 of them are the width of a bit-field."""
    blob = Blob()
    integer = blob.integer("int", 4)
    blob.struct("plain", 1 << 28, Field("far", integer, 1 << 30))
    blob.struct("flagged", 1 << 20, Field("near", integer, 1 << 22), flag=True)
    types = blob.parse()
    assert types.member("plain", "far") == Member(1 << 27, 4, provenance="btf")
    assert types.member("flagged", "near") == Member(1 << 19, 4, provenance="btf")

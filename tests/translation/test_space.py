"""An address space over hand-made x86-64 tables: loads, page crossings, the TLB, faults and counters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.address import GPA, GVA
from yamori.errors import Fault, MemoryFault, TranslationFault
from yamori.llview.faults import TLB_ENTRIES
from yamori.memory.physical import BytesMemory
from yamori.translation import space as space_module
from yamori.translation.aarch64 import AArch64
from yamori.translation.arm_short import ArmShort
from yamori.translation.space import AddressSpace
from yamori.translation.x86_64 import X86Paging

PAGE = 4096
KERNEL = GVA(0xFFFF_8000_0000_0000)
# The kernel's first pages, by where they lie: turned round, in two regions, one missing, one outside RAM.
FIRST, SECOND, THIRD, NOWHERE = 0x10_5000, 0x10_4000, 0x90_0000, 0x500_0000
CONTENT = bytes((i * 7 + i // PAGE) % 255 + 1 for i in range(3 * PAGE))


def kernel_memory() -> tuple[BytesMemory, bytearray]:
    """Return memory with the pages 0, 1 and 2 at KERNEL mapped, 3 not, 4 outside RAM; and its region of tables."""
    tables = bytearray(0x10_6000 - 0x10_0000)
    for table, index, entry in (
        (0, 256, 0x10_1003),
        (1, 0, 0x10_2003),
        (2, 0, 0x10_3003),
        *((3, i, gpa | 3) for i, gpa in ((0, FIRST), (1, SECOND), (2, THIRD), (4, NOWHERE))),
    ):
        tables[table * PAGE + index * 8 : table * PAGE + index * 8 + 8] = entry.to_bytes(8, "little")
    tables[0x5000:0x6000] = CONTENT[:PAGE]
    tables[0x4000:0x5000] = CONTENT[PAGE : 2 * PAGE]
    return BytesMemory({0x10_0000: tables, THIRD: CONTENT[2 * PAGE :]}), tables


def kernel_space() -> AddressSpace:
    return AddressSpace(kernel_memory()[0], X86Paging(4), GPA(0x10_0000))


def at(offset: int) -> GVA:
    return GVA(KERNEL + offset)


@settings(deadline=None)  # the first example compiles the walker
@given(st.integers(0, 3 * PAGE), st.integers(0, 3 * PAGE))
def test_read_crosses_pages_and_regions(start: int, size: int) -> None:
    space = kernel_space()
    size = min(size, 3 * PAGE - start)
    assert space.read(at(start), size) == CONTENT[start : start + size]
    assert space.loads == (0 if size == 0 else (start + size - 1) // PAGE - start // PAGE + 1)
    assert space.faults == 0


@settings(deadline=None)  # the first example compiles the walker
@given(st.integers(0, 3 * PAGE - 8))
def test_typed_loads(offset: int) -> None:
    space = kernel_space()
    for load, size, signed in (
        (space.u8, 1, False),
        (space.u16, 2, False),
        (space.u32, 4, False),
        (space.u64, 8, False),
        (space.s32, 4, True),
        (space.s64, 8, True),
        (space.pointer, 8, False),
    ):
        space.faults = space.loads = 0
        if offset % size == 0:
            assert load(at(offset)) == int.from_bytes(CONTENT[offset : offset + size], "little", signed=signed)
            assert (space.loads, space.faults) == (1, 0)
        else:
            with pytest.raises(Fault, match="misaligned"):
                load(at(offset))
            assert (space.loads, space.faults) == (0, 1)


def test_pointer_has_the_guests_word_size() -> None:
    section = (0x4000_0000 | 0x402).to_bytes(4, "little")
    memory = BytesMemory({0: section * 4096, 0x4000_0000: bytes(range(1, 17))})
    space = AddressSpace(memory, ArmShort(), GPA(0))
    assert space.pointer(GVA(0xC000_0004)) == 0x0807_0605
    with pytest.raises(Fault, match="misaligned"):
        space.u64(GVA(0xC000_0004))


@pytest.mark.parametrize(
    ("gva", "kind"),
    [
        (at(3 * PAGE), TranslationFault),
        (at(4 * PAGE), MemoryFault),
        (at(-8), TranslationFault),
        (GVA(0x1000), TranslationFault),
        (GVA(1 << 64), TranslationFault),
        (GVA(-8), TranslationFault),
    ],
)
def test_faults_are_counted_by_every_kind_of_load(gva: GVA, kind: type[Fault]) -> None:
    space = kernel_space()
    loads: list[Callable[[GVA], object]] = [
        space.u64,
        space.u8,
        lambda a: space.read(a, 3),
        lambda a: space.string(a, 3),
    ]
    for number, load in enumerate(loads, 1):
        with pytest.raises(kind):
            load(gva)
        assert (space.loads, space.faults) == (0, number)


def test_read_into_a_hole_faults() -> None:
    space = kernel_space()
    with pytest.raises(TranslationFault):
        space.read(at(3 * PAGE - 4), 8)
    with pytest.raises(TranslationFault):
        space.read(GVA((1 << 64) - 4), 8)
    assert space.faults == 2


@pytest.mark.parametrize("size", [-1, space_module.MOST_BYTES + 1, 1 << 70])
def test_senseless_lengths_fault(size: int) -> None:
    space = kernel_space()
    with pytest.raises(Fault, match="no sensible length"):
        space.read(KERNEL, size)
    with pytest.raises(Fault, match="no sensible length"):
        space.string(KERNEL, size)
    assert (space.loads, space.faults) == (0, 2)


def test_string_ends_at_nul_or_limit_or_faults() -> None:
    memory, tables = kernel_memory()
    tables[0x5000 + PAGE - 4 : 0x6000] = b"kthr"
    tables[0x4000:0x4008] = b"eadd\0xxx"
    space = AddressSpace(memory, X86Paging(4), GPA(0x10_0000))
    assert space.string(at(PAGE - 4), 16) == b"kthreadd"
    assert space.string(at(PAGE - 4), 6) == b"kthrea"
    assert space.string(at(PAGE + 4), 16) == b""
    assert space.string(at(PAGE), 0) == b""
    assert space.string(at(3 * PAGE - 4), 4) == CONTENT[-4:]
    with pytest.raises(TranslationFault):
        space.string(at(3 * PAGE - 4), 5)


def test_tlb_remembers_until_cleared_and_translate_looks_anew() -> None:
    memory, tables = kernel_memory()
    space = AddressSpace(memory, X86Paging(4), GPA(0x10_0000))
    before = space.u64(KERNEL)
    tables[3 * PAGE : 3 * PAGE + 8] = (SECOND | 3).to_bytes(8, "little")
    assert space.u64(KERNEL) == before
    assert space.translate(at(5)) == (SECOND + 5, PAGE, True, True, False)
    space.clear()
    assert space.u64(KERNEL) == int.from_bytes(CONTENT[PAGE : PAGE + 8], "little") != before


def test_loads_see_the_memory_as_it_is_now() -> None:
    memory, tables = kernel_memory()
    space = AddressSpace(memory, X86Paging(4), GPA(0x10_0000))
    assert space.u8(KERNEL) == CONTENT[0]
    tables[0x5000] = 0
    assert space.u8(KERNEL) == 0


def test_pages_that_share_an_entry_of_the_tlb() -> None:
    memory, tables = kernel_memory()
    tables[3 * PAGE + TLB_ENTRIES * 8 : 3 * PAGE + TLB_ENTRIES * 8 + 8] = (THIRD | 3).to_bytes(8, "little")
    space = AddressSpace(memory, X86Paging(4), GPA(0x10_0000))
    for _ in range(2):
        assert space.u8(at(0)) == CONTENT[0]
        assert space.u8(at(TLB_ENTRIES * PAGE + 1)) == CONTENT[2 * PAGE + 1]


def test_a_page_is_walked_once_and_a_fault_is_not_remembered() -> None:
    memory, tables = kernel_memory()
    space = AddressSpace(memory, X86Paging(4), GPA(0x10_0000))
    with pytest.raises(TranslationFault):
        space.u8(at(3 * PAGE))
    tables[3 * PAGE + 24 : 3 * PAGE + 32] = (THIRD | 3).to_bytes(8, "little")
    assert space.u8(at(3 * PAGE)) == CONTENT[2 * PAGE]
    tables[: 4 * PAGE] = bytes(4 * PAGE)
    assert space.u8(at(3 * PAGE + 9)) == CONTENT[2 * PAGE + 9]


@pytest.mark.parametrize("gva", [-8, 1 << 64])
def test_user_space_has_64_bits(gva: int) -> None:
    space = AddressSpace(kernel_memory()[0], X86Paging(4), GPA(0x10_0000), user=True)
    with pytest.raises(TranslationFault):
        space.u64(GVA(gva))
    assert space.faults == 1


def test_kernel_space_refuses_user_addresses() -> None:
    """On AArch64 a user address would find the kernel's page in the kernel's table."""
    block = (0x4000_0000 | 0x401).to_bytes(8, "little")
    memory = BytesMemory({0: (0x1003).to_bytes(8, "little") + bytes(4088), 0x1000: block, 0x4000_0000: bytes(16)})
    shape = AArch64(12, 16, 16)
    kernel, user = AddressSpace(memory, shape, GPA(0)), AddressSpace(memory, shape, GPA(0), user=True)
    assert kernel.translate(GVA(0xFFFF_0000_0000_0000)).gpa == 0x4000_0000
    assert user.translate(GVA(8)).gpa == 0x4000_0008
    for load in (kernel.translate, kernel.u64):
        with pytest.raises(TranslationFault, match="not an address of the kernel"):
            load(GVA(8))
    assert kernel.faults == 2

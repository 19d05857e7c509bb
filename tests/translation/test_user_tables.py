"""What of a root is empty where no program is mapped, held against walks: an entry there maps only programs."""

from __future__ import annotations

import pytest

from yamori.address import GPA, GVA
from yamori.errors import Fault
from yamori.memory.physical import BytesMemory
from yamori.translation.aarch64 import AArch64
from yamori.translation.arm_lpae import ArmLpae
from yamori.translation.arm_short import ArmShort
from yamori.translation.format import Geometry
from yamori.translation.loads import PhysicalLoads
from yamori.translation.riscv import RiscV
from yamori.translation.x86_64 import X86Paging

MIB, GIB = 1 << 20, 1 << 30
LEAF = {"x86-64": 0xE3, "riscv64": 0xCF, "arm-short": 0x402, "arm-lpae": 0x701}
"""An entry that maps GPA 0."""


def is_mapped(shape: Geometry, memory: BytesMemory, gva: int) -> bool:
    try:
        shape.walk(PhysicalLoads(memory), GPA(0), GVA(gva))
    except Fault:
        return False
    return True


@pytest.mark.parametrize(
    ("shape", "image", "last"),
    [
        (RiscV(3), 0xFFFF_FFFF_8000_0000, (1 << 38) - 1),
        (ArmShort(), 0xC000_8000, 0xBF00_0000 - 1),
        (ArmShort(), 0xB000_8000, 0xAF00_0000 - 1),
        (ArmShort(), 0x8110_0000, 0x7F00_0000 - 1),
        (ArmShort(), 0x4000_8000, 0x3F00_0000 - 1),
        (ArmShort(), 0x1000_8000, 0x3F00_0000 - 1),
    ],
    ids=str,
)
def test_part_of_the_first_table_ends_where_the_kernel_begins(shape: Geometry, image: int, last: int) -> None:
    ((start, size),) = shape.user_tables(PhysicalLoads(BytesMemory({})), GPA(0), image)
    width = shape.word_size
    table = bytearray(0x4000)
    table[size - width : size] = LEAF[shape.format].to_bytes(width, "little")
    assert start == 0
    assert is_mapped(shape, BytesMemory({0: table}), last)
    assert not is_mapped(shape, BytesMemory({0: table}), last + 1)


@pytest.mark.parametrize("levels", [4, 5])
def test_x86_has_programs_in_the_lower_half(levels: int) -> None:
    assert list(X86Paging(levels).user_tables(PhysicalLoads(BytesMemory({})), GPA(0x1000), -1)) == [(0x1000, 0x800)]


def test_aarch64_has_programs_elsewhere() -> None:
    assert list(AArch64(12, 16, 16).user_tables(PhysicalLoads(BytesMemory({})), GPA(0), -1)) == []


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (0xC020_0000, [(0x1000, 0x1000), (8, 8), (0x2000, 504 * 8)]),
        (0x8020_0000, [(0x1000, 0x1000), (8, 8)]),
        (0x4020_0000, [(0x1000, 504 * 8)]),
    ],
)
def test_long_descriptors(image: int, expected: list[tuple[int, int]]) -> None:
    """The second of the entries leads nowhere: it is looked at itself. Blocks of 2 MiB, 504 of them before modules."""
    first = b"".join(entry.to_bytes(8, "little") for entry in (0x1003, 0, 0x2003, 0x3003))
    assert list(ArmLpae().user_tables(PhysicalLoads(BytesMemory({0: first})), GPA(0), image)) == expected

"""kallsyms as kernels since 3.10 have them, beyond the formats of ``test_kallsyms``: by configuration and architecture.

``docs/variants.md`` says which kernels these are of.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tests.kernel import kallsyms_encoder as encoder
from tests.kernel.kallsyms_encoder import FORMATS, Format, Image, Row, build, symbols

from yamori.address import GPA, GVA
from yamori.kernel.kallsyms import Tables, decode, locate
from yamori.memory.physical import BytesMemory

formats = pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)


def located(image: Image) -> tuple[BytesMemory, Tables]:
    memory = BytesMemory({encoder.GPA_OF_IMAGE: image.data})
    tables = locate(memory, GPA(image.gpa("needle")))
    assert tables is not None
    return memory, tables


def check(image: Image, fmt: Format) -> Tables:
    memory, tables = located(image)
    place = GVA(image.gva("addresses")) if fmt.encoding == "pc" else None
    assert [tuple(symbol) for symbol in decode(memory, tables, place)] == image.rows
    return tables


def functions(count: int, fmt: Format) -> list[Row]:
    """Return what ``symbol_valid`` of ``scripts/kallsyms.c`` leaves without ``--all-symbols``: text only."""
    rows = symbols(count, 11, replace(fmt, encoding="relative"))
    return [(address, "tT"[index % 2], name) for index, (address, _, name) in enumerate(rows)]


@formats
def test_functions_only(fmt: Format) -> None:
    """``CONFIG_KALLSYMS_ALL`` is off."""
    assert check(build(functions(700, fmt), fmt), fmt).count == 700


@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS if not fmt.big], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("length", [1, 126, 127])
def test_name_of_any_length_of_before_6_1(fmt: Format, length: int) -> None:
    """``KSYM_NAME_LEN`` was 128: with its letter a name took up to 128 bytes, a length with bit 7 set in *one* byte."""
    rows = symbols(600, 5, fmt)
    rows[300] = (rows[300][0], "t", "".join(random.Random(length).choices("QWERTYUIOPASDFGHJKLZ", k=length)))
    check(build(rows, fmt), fmt)


@pytest.mark.parametrize("length", [127, 128, 255, 256, 511])
def test_name_of_any_length_since_6_1(length: int) -> None:
    """A length of two bytes, ULEB128 (73bbb94466fd); ``KSYM_NAME_LEN`` is 512 (b8a94bfb3395)."""
    for fmt in FORMATS:
        if fmt.big:
            rows = symbols(300, 5, fmt)
            rows[30] = (rows[30][0], "t", "".join(random.Random(length).choices("QWERTYUIOPASDFGHJKLZ", k=length)))
            check(build(rows, fmt), fmt)


@pytest.mark.parametrize(
    "fmt",
    [
        Format("4.19 riscv64", align=256, markers=8, num_syms=8, big=False, order="old"),
        Format("4.20 arm64", align=256, big=False, order="old"),
        Format("4.20 arm64, no relative base", align=256, encoding="absolute", big=False, order="old"),
        Format("4.20 arm", word=4, align=16, big=False, order="old"),
        Format("4.9 arm, no relative base", word=4, align=16, encoding="absolute", big=False, order="old"),
        Format("4.9 x86-64, one CPU", markers=8, num_syms=8, big=False, order="old"),
        Format("6.15 x86-64 SMP"),
    ],
    ids=lambda fmt: fmt.name,
)
def test_widths_and_alignments_of_other_architectures(fmt: Format) -> None:
    """``.align`` counts in powers of two on Arm and RISC-V; count and markers are 4 bytes since 4.20 (80ffbaa5b1bd)."""
    tables = check(build(symbols(1100, 8, fmt), fmt), fmt)
    assert tables.marker_size == fmt.markers
    assert tables.encoding == ("absolute" if fmt.encoding == "absolute" else "relative")


@pytest.mark.parametrize("name", ["3.x x86-64", "5.10 x86-64, no relative base"])
def test_per_cpu_symbols_from_zero_on_among_absolute_addresses(name: str) -> None:
    """x86-64 with SMP linked per-CPU data at 0 until 6.15, before 4.6 in a table of plain addresses."""
    fmt = next(fmt for fmt in FORMATS if fmt.name == name)
    percpu = [(0x40 * index, "D", f"per_cpu__{index}") for index in range(120)]
    tables = check(build(percpu + symbols(800, 2, fmt), fmt), fmt)
    assert tables.encoding == "absolute"


def test_per_cpu_symbols_within_the_image() -> None:
    """Since 6.15 (01157ddc58dc) x86-64 has nothing absolute any more: per-CPU data is in the image like other data."""
    fmt = Format("6.15 x86-64 SMP")
    rows = symbols(800, 2, fmt)
    rows += [(rows[-1][0] + 0x1000 + 8 * index, "d", f"percpu_{index}") for index in range(50)]
    assert check(build(rows, fmt), fmt).encoding == "relative"


@formats
def test_text_that_starts_late_in_the_image(fmt: Format) -> None:
    """The first symbol need not be ``_text``: without all symbols it is ``_stext``, behind the head of the image."""
    rows = [(address + 0x1_0000, kind, name) for address, kind, name in functions(400, fmt)]
    assert check(build(rows, fmt, before=bytes(0x4_0000)), fmt).count == 400


@formats
def test_fewer_symbols_than_a_block_holds_are_not_believed(fmt: Format) -> None:
    """One marker proves nothing, and a kernel that small does not run: ``tinyconfig`` has some thousand symbols."""
    image = build(symbols(256, 1, fmt), fmt)
    assert locate(BytesMemory({encoder.GPA_OF_IMAGE: image.data}), GPA(image.gpa("needle"))) is None


@pytest.mark.parametrize(
    "fmt",
    [
        *FORMATS,
        Format("4.20 arm, no relative base", word=4, align=16, encoding="absolute", big=False, order="old"),
        Format("6.1 arm, no relative base", word=4, align=4, encoding="absolute", order="old"),
        Format("6.3 arm, no relative base", word=4, align=4, encoding="absolute", order="6.2"),
    ],
    ids=lambda fmt: fmt.name,
)
def test_zeros_before_the_tables(fmt: Format) -> None:
    """Four plain addresses of 32 bits, or one, would do for a relative base behind offsets that start with a zero."""
    check(build(symbols(500, 1, fmt), fmt, before=bytes(5008)), fmt)

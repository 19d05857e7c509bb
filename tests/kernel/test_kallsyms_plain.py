"""kallsyms as OpenWrt's kernels have it: not compressed, without token table and token index.

``CONFIG_KALLSYMS_UNCOMPRESSED`` of its patch ``203-kallsyms_uncompressed``; the arrays are else as in Linux.
"""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel import kallsyms_encoder as encoder
from tests.kernel import synthetic
from tests.kernel.kallsyms_encoder import Format, Image, Row, build, symbols
from tests.kernel.synthetic import MACHINES, Machine, Shape

from yamori.address import GPA, GVA
from yamori.errors import ProfileError
from yamori.kernel.discovery import discover
from yamori.kernel.kallsyms import PLAIN_NEEDLE, decode, locate
from yamori.memory.physical import BytesMemory
from yamori.probes.syscall import syscall

FORMATS = [replace(fmt, plain=True) for fmt in encoder.FORMATS]
formats = pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
SEEN = "kallsyms_lookup_name"


class CountingMemory(BytesMemory):
    """Counts what is read, as the measure of how much work a hostile table can cause."""

    total = 0

    def read(self, gpa: GPA, size: int) -> bytes:
        self.total += size
        return super().read(gpa, size)


def rows_of(count: int, seed: int, fmt: Format) -> list[Row]:
    """Return symbols with the one that is looked for in the middle of a block."""
    rows = symbols(count, seed, fmt)
    rows[count // 3] = (rows[count // 3][0], "T", SEEN)
    return rows


def memory_of(data: bytes | bytearray) -> CountingMemory:
    return CountingMemory({encoder.GPA_OF_IMAGE: data})


def anchor(image: Image, fmt: Format) -> GVA | None:
    return GVA(image.gva("addresses")) if fmt.encoding == "pc" else None


@formats
@pytest.mark.parametrize("before", [b"\x5a" * 5000, bytes(5008)], ids=["bytes", "zeros"])
def test_every_format_is_found_and_decoded(fmt: Format, before: bytes) -> None:
    image = build(rows_of(1500, 1, fmt), fmt, before=before)
    memory = memory_of(image.data)
    tables = locate(memory, GPA(image.gpa("needle")))
    assert tables is not None
    assert (tables.names, tables.markers, tables.addresses) == tuple(
        image.gpa(label) for label in ("names", "markers", "addresses")
    )
    assert [tuple(symbol) for symbol in decode(memory, tables, anchor(image, fmt))] == image.rows


@settings(max_examples=20, deadline=None)
@given(
    fmt=st.sampled_from(FORMATS), count=st.integers(257, 900), seed=st.integers(0, 1 << 32), shift=st.integers(0, 300)
)
def test_any_symbols_survive(fmt: Format, count: int, seed: int, shift: int) -> None:
    before = random.Random(seed).randbytes(4096 + shift)
    image = build(rows_of(count, seed, fmt), fmt, before=before)
    tables = locate(memory_of(image.data), GPA(image.gpa("needle")))
    assert tables is not None
    assert [tuple(symbol) for symbol in decode(memory_of(image.data), tables, anchor(image, fmt))] == image.rows


@pytest.mark.parametrize("label", ["num_syms", "names", "markers"])
def test_one_wrong_array_makes_the_table_unbelievable(label: str) -> None:
    for fmt in FORMATS:
        image = build(rows_of(600, 1, fmt), fmt)
        image.data[image.labels[label]] ^= 0xFF
        assert locate(memory_of(image.data), GPA(image.gpa("needle"))) is None


def test_bytes_that_are_no_letters_are_refused() -> None:
    fmt = FORMATS[0]
    image = build(rows_of(600, 1, fmt), fmt)
    tables = locate(memory_of(image.data), GPA(image.gpa("needle")))
    assert tables is not None
    for byte in (0, 10, 27, 32, 127, 255):
        image.data[image.labels["needle"] + 5] = byte
        with pytest.raises(ProfileError, match="cannot be used"):
            decode(memory_of(image.data), tables)


@settings(max_examples=40, deadline=None)
@given(
    fmt=st.sampled_from(FORMATS),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_corruption_is_refused_and_nothing_else_is_raised(
    fmt: Format, flips: list[tuple[float, int]], cut: float | None
) -> None:
    image = build(rows_of(400, 2, fmt), fmt)
    first = min(image.labels.values())
    for place, value in flips:
        image.data[first + int(place * (len(image.data) - first - 1))] ^= value
    memory = memory_of(image.data if cut is None else image.data[: int(cut * len(image.data))])
    tables = locate(memory, GPA(image.gpa("needle")))
    if tables is None:
        return
    try:
        found = decode(memory, tables, anchor(image, fmt))
    except ProfileError:
        return
    assert len(found) == tables.count
    assert all(symbol.name.isprintable() and symbol.name for symbol in found)


@settings(max_examples=40, deadline=None)
@given(before=st.binary(max_size=600), after=st.binary(max_size=1200))
def test_random_memory_around_the_name_is_refused(before: bytes, after: bytes) -> None:
    memory = memory_of(before + PLAIN_NEEDLE + after)
    assert locate(memory, GPA(encoder.GPA_OF_IMAGE + len(before))) is None


def test_endless_names_cost_a_bounded_amount() -> None:
    ascending = struct.pack("<60000I", *(600 * (index % 1000) for index in range(60_000)))
    for hostile in (b"\1a" * (1 << 20), b"\2Tx" * 100_000 + bytes(3) + ascending, PLAIN_NEEDLE * 100_000):
        memory = memory_of(PLAIN_NEEDLE + hostile)
        assert locate(memory, GPA(encoder.GPA_OF_IMAGE)) is None
        assert memory.total < 256 << 20


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_discovery_finds_them(machine: Machine) -> None:
    guest = synthetic.build(machine, Shape(kallsyms=False, vmcoreinfo=False))
    rows = sorted((address, "T", name) for name, address in guest.symbols.items() if address >= machine.image)
    rows[40] = (rows[40][0], "T", SEEN)
    fmt = Format("6.1", word=machine.word, align=machine.word, big=False, order="old", plain=True)
    blob = build(rows, fmt, before=b"", after=0).data
    guest.ram[synthetic.RODATA_AT + 0x4000 : synthetic.RODATA_AT + 0x4000 + len(blob)] = blob
    kernel = discover(guest.memory())
    assert kernel.profile.root.gpa == machine.base + machine.root_at
    assert "kallsyms" in kernel.profile.root.anchors
    shown = {row.symbol for row in syscall(kernel)}
    assert len(shown & set(guest.calls)) > synthetic.CALLS - 3

from __future__ import annotations

import importlib.util
import itertools
import random
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.address import GPA, GVA
from yamori.errors import ProfileError
from yamori.kernel.kallsyms import NEEDLE, Tables, decode, locate
from yamori.memory.physical import BytesMemory


def _load_encoder() -> Any:
    # Tests are imported by path (--import-mode=importlib), so a helper beside them has to be loaded the same way.
    spec = importlib.util.spec_from_file_location("kallsyms_encoder", Path(__file__).with_name("kallsyms_encoder.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


E = _load_encoder()
FORMATS = [pytest.param(fmt, id=fmt.name) for fmt in E.FORMATS]
NAMES = {"absolute": "absolute", "relative": "relative", "percpu": "relative, absolute per-CPU", "pc": "PC-relative"}


class CountingMemory(BytesMemory):
    """Counts what is read, as the measure of how much work a hostile table can cause."""

    total = 0

    def read(self, gpa: GPA, size: int) -> bytes:
        self.total += size
        return super().read(gpa, size)


def _memory(data: bytes | bytearray) -> CountingMemory:
    return CountingMemory({E.GPA_OF_IMAGE: data})


def _hits(data: bytes | bytearray) -> list[GPA]:
    found, at = [], data.find(NEEDLE)
    while at >= 0:
        found.append(GPA(E.GPA_OF_IMAGE + at))
        at = data.find(NEEDLE, at + 1)
    return found


def _anchor(image: Any, fmt: Any) -> GVA | None:
    return GVA(image.gva("addresses")) if fmt.encoding == "pc" else None


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_is_found_and_decoded(fmt: Any) -> None:
    image = E.build(E.symbols(1500, 1, fmt), fmt)
    memory = _memory(image.data)
    tables = locate(memory, GPA(image.gpa("needle")))
    assert tables is not None
    assert (tables.names, tables.markers) == (image.gpa("names"), image.gpa("markers"))
    assert (tables.token_table, tables.token_index) == (image.gpa("token_table"), image.gpa("token_index"))
    assert (tables.addresses, tables.count, tables.marker_size) == (image.gpa("addresses"), 1500, fmt.markers)
    assert tables.encoding == NAMES[fmt.encoding]
    assert tables.word_size == (0 if fmt.encoding == "pc" else fmt.word)
    symbols = decode(memory, tables, _anchor(image, fmt))
    assert [tuple(symbol) for symbol in symbols] == image.rows
    assert symbols.provenance == "kallsyms"


@settings(max_examples=25, deadline=None)
@given(
    fmt=st.sampled_from(E.FORMATS), count=st.integers(257, 900), seed=st.integers(0, 1 << 32), shift=st.integers(0, 300)
)
def test_any_symbols_survive(fmt: Any, count: int, seed: int, shift: int) -> None:
    image = E.build(E.symbols(count, seed, fmt), fmt, before=random.Random(seed).randbytes(4096 + shift))
    memory = _memory(image.data)
    tables = [tables for hit in _hits(image.data) if (tables := locate(memory, hit))]
    assert len(tables) == 1
    assert [tuple(symbol) for symbol in decode(memory, tables[0], _anchor(image, fmt))] == image.rows


@pytest.mark.parametrize("count", [257, 511, 512, 513])
def test_the_last_block_may_be_of_any_size(count: int) -> None:
    for fmt in E.FORMATS:
        image = E.build(E.symbols(count, 7, fmt), fmt)
        tables = locate(_memory(image.data), GPA(image.gpa("needle")))
        assert tables is not None, fmt.name
        assert tables.count == count


def _image_with_pointers(*, share: float) -> Any:
    """A 7.0 image whose read-only data hold pointers, some of them to functions."""
    fmt = next(fmt for fmt in E.FORMATS if fmt.encoding == "pc")
    rng = random.Random(3)
    rows = [(address & ~15, kind, name) for address, kind, name in E.symbols(4000, 3, fmt)]
    functions = [address for address, kind, _ in rows if kind in "tT"]
    words = [
        rng.choice(functions) if rng.random() < share else E.KERNEL64 + rng.randrange(1 << 22) & ~3
        for _ in range(1 << 17)
    ]
    return E.build(rows, fmt, before=struct.pack(f"<{len(words)}Q", *words))


def test_pc_relative_symbols_need_no_anchor_where_the_image_holds_pointers() -> None:
    image = _image_with_pointers(share=0.5)
    memory = _memory(image.data)
    tables = locate(memory, GPA(image.gpa("needle")))
    assert tables is not None
    assert [tuple(symbol) for symbol in decode(memory, tables)] == image.rows


def test_pc_relative_symbols_without_an_anchor_are_refused_where_pointers_do_not_agree() -> None:
    image = _image_with_pointers(share=0)
    memory = _memory(image.data)
    tables = locate(memory, GPA(image.gpa("needle")))
    assert tables is not None
    with pytest.raises(ProfileError, match="place that is not known"):
        decode(memory, tables)


def _sample() -> Any:
    fmt = next(fmt for fmt in E.FORMATS if fmt.name == "6.12 x86-64 SMP")
    return E.build(E.symbols(1200, 5, fmt), fmt)


@pytest.mark.parametrize("label", ["num_syms", "names", "markers", "token_table", "token_index", "relative_base"])
def test_one_wrong_array_makes_the_table_unbelievable(label: str) -> None:
    image = _sample()
    at = image.labels[label] + (2 if label == "token_index" else 0)
    image.data[at] ^= 0xFF
    if label == "relative_base":
        image.data[at : at + 8] = bytes(8)  # as in an image at rest, before it relocates itself
    assert locate(_memory(image.data), GPA(image.gpa("needle"))) is None


def test_shuffled_addresses_are_refused_and_a_single_changed_one_is_not() -> None:
    image = _sample()
    at, size = image.labels["addresses"], 4 * len(image.rows)
    place = at + 4 * 700
    image.data[place : place + 4] = struct.pack("<i", -0x700000)
    memory = _memory(image.data)
    tables = locate(memory, GPA(image.gpa("needle")))
    assert tables is not None
    moved = decode(memory, tables).find(image.rows[700][2])
    assert moved is not None
    assert moved.address == image.base + 0x700000 - 1
    words = [image.data[at + 4 * index : at + 4 * index + 4] for index in range(len(image.rows))]
    random.Random(0).shuffle(words)
    image.data[at : at + size] = b"".join(words)
    assert locate(_memory(image.data), GPA(image.gpa("needle"))) is None


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_first_address_may_be_wrong(fmt: Any) -> None:
    image = E.build(E.symbols(600, 1, fmt), fmt)
    at = image.labels["addresses"]
    for value in (4, 0x1000, 0x4000_0000, 0xFFFF_0000, 0xFFFF_FFFF):
        image.data[at : at + 4] = struct.pack("<I", value)
        memory = _memory(image.data)
        tables = locate(memory, GPA(image.gpa("needle")))
        assert tables is not None
        assert (tables.addresses, tables.encoding) == (image.gpa("addresses"), NAMES[fmt.encoding])
        expected = {tuple(row) for row in image.rows[1:]}
        assert expected <= {tuple(symbol) for symbol in decode(memory, tables, _anchor(image, fmt))}


def test_the_base_of_addresses_with_absolute_per_cpu_ones_may_be_wrong() -> None:
    image = _sample()
    index = next(index for index, (address, _, _) in enumerate(image.rows) if address >= E.KERNEL64)
    at = image.labels["addresses"] + 4 * index
    for value in (-5, 0x1000):
        image.data[at : at + 4] = struct.pack("<i", value)
        tables = locate(_memory(image.data), GPA(image.gpa("needle")))
        assert tables is not None
        assert tables.encoding == "relative, absolute per-CPU"


@pytest.mark.parametrize(
    "name", ["5.10 arm64", "6.12 x86-64 SMP", "6.12 arm64, no relative base", "6.6 arm", "7.0 arm64"]
)
def test_a_page_of_addresses_that_is_lost_is_told(name: str) -> None:
    fmt = next(fmt for fmt in E.FORMATS if fmt.name == name)
    image = E.build(E.symbols(3000, 1, fmt), fmt)
    size = fmt.word if fmt.encoding == "absolute" else 4
    whole = bytes(image.data)
    told = 0
    for fill, start in itertools.product((bytes(1), b"\xff", b"A", random.Random(1).randbytes(4096)), (0, 700, 1500)):
        at = image.labels["addresses"] + size * start
        image.data[:] = whole
        image.data[at : at + 4096] = (fill * 4096)[:4096]
        memory = _memory(image.data)
        tables = locate(memory, GPA(image.gpa("needle")))
        if tables is not None:
            with pytest.raises(ProfileError, match=r"cannot be used: .*--symbols"):
                decode(memory, tables, _anchor(image, fmt))
            told += 1
    assert told >= 3


def test_many_symbols_of_one_address_are_no_damage() -> None:
    """As ``sys_ni_syscall`` and its weak names on 32-bit Arm, and ``__kstrtabns_`` of x86-64's 5.10."""
    for fmt in E.FORMATS:
        rows = E.symbols(1500, 1, fmt)
        rows[700:1000] = [(rows[700][0], "t", name) for _, _, name in rows[700:1000]]
        image = E.build(rows, fmt)
        memory = _memory(image.data)
        tables = locate(memory, GPA(image.gpa("needle")))
        assert tables is not None
        assert len(decode(memory, tables, _anchor(image, fmt))) == 1500


def test_digits_that_are_no_token_table_are_refused_cheaply() -> None:
    strings = b"".join(b"%d\0" % number for number in range(400))
    indexed = strings + bytes(-len(strings) % 4) + struct.pack("<256H", *range(256))
    for decoy in (NEEDLE, strings, indexed, b"\0" * 48 + NEEDLE + b"\0" * 9000, NEEDLE + b"\0" * 300):
        memory = _memory(b"\x11" * 64 + decoy)
        assert locate(memory, GPA(E.GPA_OF_IMAGE + 64 + decoy.index(NEEDLE))) is None
        assert memory.total < 64 << 10
    assert locate(_memory(b"\0" * 4096), GPA(E.GPA_OF_IMAGE)) is None
    assert locate(_memory(b"\0" * 4096), GPA(0)) is None


def test_a_token_table_among_hostile_bytes_costs_a_bounded_amount_of_reading() -> None:
    image = _sample()
    start, end = image.labels["token_table"], image.labels["token_index"] + 512
    ascending = struct.pack("<500000I", *(600 * (index % 1000) for index in range(500_000)))
    counts = struct.pack("<500000I", *([0, 600, *[400] * 98] * 5000))
    for hostile in (bytes(1 << 21), b"\1" * (1 << 21), ascending, counts, NEEDLE * 100_000):
        data = hostile + bytes(-len(hostile) % 8) + image.data[start:end] + hostile
        memory = _memory(data)
        hit = data.index(image.data[start:end]) + image.labels["needle"] - start
        assert locate(memory, GPA(E.GPA_OF_IMAGE + hit)) is None
        assert memory.total < 32 << 20


@settings(max_examples=60, deadline=None)
@given(
    fmt=st.sampled_from(E.FORMATS),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.floats(0, 1)),
    late=st.booleans(),
)
def test_corruption_is_refused_and_nothing_else_is_raised(
    fmt: Any, flips: list[tuple[float, int]], cut: float | None, late: bool
) -> None:
    image = E.build(E.symbols(600, 2, fmt), fmt)
    hit = GPA(image.gpa("needle"))
    tables = locate(_memory(image.data), hit) if late else None
    first = min(image.labels.values())
    for place, value in flips:
        image.data[first + int(place * (len(image.data) - first - 1))] ^= value
    data = image.data if cut is None else image.data[: int(cut * len(image.data))]
    memory = _memory(data)
    tables = tables or locate(memory, hit)
    if tables is None:
        return
    assert isinstance(tables, Tables)
    try:
        symbols = decode(memory, tables, _anchor(image, fmt))
    except ProfileError:
        return
    assert len(symbols) == tables.count
    assert all(symbol.name.isprintable() and symbol.name for symbol in symbols)


@settings(max_examples=50, deadline=None)
@given(before=st.binary(max_size=600), after=st.binary(max_size=1200))
def test_random_memory_around_a_needle_is_refused(before: bytes, after: bytes) -> None:
    assert locate(_memory(before + NEEDLE + after), GPA(E.GPA_OF_IMAGE + len(before))) is None


def test_names_that_expand_without_end_are_refused() -> None:
    image = _sample()
    tables = locate(_memory(image.data), GPA(image.gpa("needle")))
    assert tables is not None
    # All codes now stand for 28 characters, and table and index still agree.
    table = b"".join(b"%d" % (code % 10) * 28 + b"\0" for code in range(256))
    index = struct.pack("<256H", *(29 * code for code in range(256)))
    blocks = {E.GPA_OF_IMAGE: image.data, 0x1000: table + index}
    wide = Tables(
        token_table=0x1000,
        token_index=0x1000 + len(table),
        names=tables.names,
        names_size=tables.names_size,
        markers=tables.markers,
        marker_size=tables.marker_size,
        addresses=tables.addresses,
        count=tables.count,
        encoding=tables.encoding,
        word_size=tables.word_size,
        relative_base=tables.relative_base,
        big_lengths=tables.big_lengths,
    )
    with pytest.raises(ProfileError, match="too long"):
        decode(BytesMemory(blocks), wide)

"""Symbols that were decoded once: the same as without a memo, wherever the boot has moved them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.kallsyms_encoder import FORMATS, GPA_OF_IMAGE, Format
from tests.kernel.kallsyms_encoder import build as encoded
from tests.kernel.kallsyms_encoder import symbols as made_up

from yamori.address import GPA, GVA
from yamori.errors import ProfileError
from yamori.kernel import kallsyms
from yamori.kernel.memo import Memo
from yamori.kernel.store import Store
from yamori.kernel.symbols import Symbols
from yamori.memory.physical import BytesMemory


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    return Store(tmp_path / "profiles")


def both(fmt: Format, data: bytearray, needle: int, place: GVA, kept: Store) -> tuple[Symbols, bool]:
    """Return the symbols, which are the same with a memo, and whether they were decoded before."""
    memory, memo = BytesMemory({GPA_OF_IMAGE: data}), Memo(kept)
    tables = memo.locate(memory, GPA(needle))
    assert tables == kallsyms.locate(memory, GPA(needle))
    assert tables
    symbols = memo.decode(memory, tables, place)
    assert symbols.columns == kallsyms.decode(memory, tables, place).columns
    memo.keep_symbols(memory, tables, place, symbols)
    return symbols, memo.served == {"kallsyms"}


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
def test_symbols_of_every_format_are_kept_and_moved(fmt: Format, kept: Store) -> None:
    image = encoded(made_up(700, 3, fmt), fmt)
    place, needle = GVA(image.gva("addresses")), image.gpa("needle")
    assert not both(fmt, image.data, needle, place, kept)[1]
    symbols, served = both(fmt, image.data, needle, place, kept)
    assert served
    assert [tuple(symbol) for symbol in symbols] == image.rows
    for slide in (0x20_0000, -0x10_0000, 0x1000_0000):
        data = bytearray(image.data)
        if "relative_base" in image.labels:
            at = image.labels["relative_base"]
            base = int.from_bytes(data[at : at + fmt.word], "little") + slide
            data[at : at + fmt.word] = base.to_bytes(fmt.word, "little")
        symbols, served = both(fmt, data, needle, GVA(place + slide), kept)
        assert served
        if fmt.encoding != "absolute":
            assert symbols.address(image.rows[-1][2]) == image.rows[-1][0] + slide


@settings(max_examples=40, deadline=None)
@given(
    fmt=st.sampled_from(FORMATS),
    damage=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=3),
    slide=st.integers(-(1 << 63), 1 << 63),
)
def test_with_a_memo_it_is_as_without_one(
    tmp_path_factory: pytest.TempPathFactory, fmt: Format, damage: list[tuple[float, int]], slide: int
) -> None:
    """Whatever of the tables is damaged, and wherever the base says that the image lies."""
    kept = Store(tmp_path_factory.mktemp("profiles"))
    image = encoded(made_up(600, 5, fmt), fmt)
    place, needle = GVA(image.gva("addresses")), GPA(image.gpa("needle"))
    both(fmt, image.data, needle, place, kept)
    data = bytearray(image.data)
    for where, bits in damage:
        data[int(where * len(data))] ^= bits
    if "relative_base" in image.labels:
        at, size = image.labels["relative_base"], fmt.word
        moved = (int.from_bytes(data[at : at + size], "little") + slide) % (1 << 8 * size)
        data[at : at + size] = moved.to_bytes(size, "little")
    memory, memo = BytesMemory({GPA_OF_IMAGE: data}), Memo(kept)
    tables = memo.locate(memory, needle)
    assert tables == kallsyms.locate(memory, needle)
    if tables:
        assert outcome(lambda: memo.decode(memory, tables, place)) == outcome(
            lambda: kallsyms.decode(memory, tables, place)
        )


def outcome(decode: Callable[[], Symbols]) -> object:
    try:
        return decode().columns
    except ProfileError as error:
        return str(error)

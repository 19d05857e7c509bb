from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.address import GPA
from yamori.errors import MemoryFault
from yamori.kernel import scan as room
from yamori.kernel.scan import scan
from yamori.memory.physical import BytesMemory, Region

NEEDLES = {"a": b"needle", "z": b"Linux".ljust(12, b"\0")}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(NEEDLES)), st.integers(0, 900)), max_size=8), st.integers(16, 300))
def test_needles_are_found_across_chunks(places: list[tuple[str, int]], chunk: int) -> None:
    data = bytearray(1000)
    for name, at in places:
        data[at : at + len(NEEDLES[name])] = NEEDLES[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "CHUNK", chunk)
        patch.setattr(room, "MOST_IN_PAGE", 1000)
        found = scan(BytesMemory({0x1000: data}), NEEDLES)
    for name, needle in NEEDLES.items():
        wanted = [0x1000 + at for at in range(len(data)) if data.startswith(needle, at)]
        # Zeros that fill a whole chunk are passed over; nothing that has only zeros behind it is of any use.
        seen = found.places[name].tolist()
        assert set(seen) <= set(wanted)
        assert name == "z" or seen == wanted
    assert found.bytes_read == len(data)


def test_needle_does_not_reach_across_a_hole() -> None:
    memory = BytesMemory({0: b"x" * 97 + b"nee", 200: b"dle" + b"x" * 97})
    assert scan(memory, NEEDLES).places["a"].tolist() == []
    joined = BytesMemory({0: b"x" * 97 + b"nee", 100: b"dle" + b"x" * 97})
    assert scan(joined, NEEDLES).places["a"].tolist() == [97]


class Torn(BytesMemory):
    """A chunk of it cannot be read; only part of it is populated."""

    def read(self, gpa: GPA, size: int) -> bytes:
        if gpa <= 0x40_0000 < gpa + size:
            raise MemoryFault(gpa, size, "no longer given by the host")
        return super().read(gpa, size)

    def populated(self) -> Iterator[Region]:
        yield Region(0x20_0000, 0x40_0000)


def test_what_cannot_be_read_is_counted_and_holes_are_left_alone() -> None:
    memory = Torn({0: b"needle" * 0x10 + bytes(0x2F_FFA0) + b"needle" + bytes(0x60_0000)})
    found = scan(memory, NEEDLES)
    assert found.places["a"].tolist() == [0x30_0000]
    assert (found.bytes_read, found.bytes_lost) == (0x30_0000, room.CHUNK)


def test_flood_is_cut_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = BytesMemory({0: b"needle.." * (1 << 17)})
    found = scan(memory, NEEDLES)
    pages = (1 << 20) // room.PAGE
    assert len(found.places["a"]) == pages * room.MOST_IN_PAGE
    assert found.flooded == set()
    monkeypatch.setattr(room, "MOST_SIGHTINGS", 100)
    found = scan(memory, NEEDLES)
    assert (len(found.places["a"]), found.flooded) == (100, {"a"})


def test_progress() -> None:
    told: list[tuple[int, int]] = []
    scan(BytesMemory({0: bytes((2 << 20) + 5)}), NEEDLES, lambda done, total: told.append((done, total)))
    assert told == [(1 << 20, (2 << 20) + 5), (2 << 20, (2 << 20) + 5), ((2 << 20) + 5, (2 << 20) + 5)]


@given(st.lists(st.sampled_from([b"needle", b"\0", b"nee", b"x", b"Linux", bytes(12)]), max_size=40), st.booleans())
def test_the_c_library_finds_what_a_regular_expression_finds(parts: list[bytes], ends: bool) -> None:
    data = b"".join(parts) + (b"needle" if ends else b"")
    if room._memmem() is None:
        pytest.skip("this C library has no memmem")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_memmem", lambda: None)
        plain = scan(BytesMemory({0: data}), NEEDLES).places
    assert scan(BytesMemory({0: data}), NEEDLES).places == plain
    for text in (b"needle", b"Linux"):
        place = data.find(text)
        assert room._finder(text)(data, 0) == place
        assert room._finder(text)(data, len(data)) == -1

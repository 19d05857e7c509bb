from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.memory.bitmap import Bitmap

BITS = 20_000


class Bytes:
    """A source over a byte string."""

    def __init__(self, data: bytes) -> None:
        self._bytes = data
        self.size = len(data)

    def read(self, size: int, offset: int) -> bytes:
        return self._bytes[offset : offset + size]

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        yield start, end


bit_strings = st.lists(
    st.tuples(st.booleans(), st.sampled_from([1, 2, 7, 64, 4095, 4096, 4097, 9000])), max_size=12
).map(lambda runs: "".join(str(int(one)) * length for one, length in runs)[:BITS])


@settings(max_examples=100, deadline=None)
@given(text=bit_strings, bounds=st.tuples(st.integers(0, BITS), st.integers(0, BITS)), junk=st.booleans())
def test_counts_and_runs(text: str, bounds: tuple[int, int], *, junk: bool) -> None:
    # Bits behind the last that counts are ignored, whatever they are.
    value = int((("1" * 9 if junk else "") + text[::-1]) or "0", 2)
    bits = Bitmap(Bytes(b"head" + value.to_bytes(BITS // 8 + 8, "little")), 4, len(text))
    assert bits.count == text.count("1")
    start, end = sorted(bounds)
    at = min(start, len(text))
    assert bits.before(at) == text[:at].count("1")
    if at < len(text):
        assert (at in bits) == (text[at] == "1")
    runs = []
    position = start
    for one, group in groupby(text[start:end]):
        length = len(list(group))
        if one == "1":
            runs.append((position, position + length))
        position += length
    assert list(bits.runs(start, end)) == runs


@pytest.mark.parametrize("present", [0, 1, 513, 600])
def test_what_the_source_lacks_is_not_set(present: int) -> None:
    bits = Bitmap(Bytes(b"\xff" * present), 0, 8 * 700)
    assert bits.count == 8 * present
    assert list(bits.runs(0, 8 * 700)) == ([(0, 8 * present)] if present else [])

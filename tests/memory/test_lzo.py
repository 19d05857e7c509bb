from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.memory.writers import Match, lzo

from yamori.memory.lzo import DamagedError, unpack


def expand(steps: list[tuple[bytes, Match | None]]) -> bytes:
    """What the steps stand for, byte by byte."""
    out = bytearray()
    for literals, match in steps:
        out += literals
        for _ in range(match.length if match else 0):
            assert match
            out.append(out[-match.distance])
    return bytes(out)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 17, 18, 19, 238, 239, 272, 273, 274, 528, 4096])
def test_literals_alone(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert unpack(lzo([(data, None)]), length) == data


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[bytes, Match | None]]:
    """Any sequence of literals and copies that LZO1X can say."""
    rng = random.Random(draw(st.integers(0, 1 << 32)))
    steps: list[tuple[bytes, Match | None]] = []
    have, state = 0, 0
    first = draw(st.sampled_from([1, 3, 4, 238, 239, 3000, 17000, 60000]))
    for number in range(draw(st.integers(1, 12))):
        literals = rng.randbytes(first if number == 0 else draw(st.sampled_from([0, 1, 2, 3, 4, 18, 19, 300])))
        have += len(literals)
        state = min(len(literals), 4)
        lengths = [3, 4, 5, 8, 9, 33, 34, 300] + ([2] if state in {1, 2, 3} else [])
        length = draw(st.sampled_from(lengths))
        limit = 1024 if length == 2 else 49151
        near = [d for d in (1, 2, 1024, 2048, 2049, 3072, 3073, 16384, 16385, 32767, 49151) if d <= min(have, limit)]
        distance = draw(st.one_of(st.sampled_from(near), st.integers(1, min(have, limit))))
        steps.append((literals, Match(distance, length)))
        have += length
    return [*steps, (rng.randbytes(draw(st.sampled_from([0, 1, 3, 4, 40]))), None)]


@settings(max_examples=120, deadline=None)
@given(programs())
def test_every_instruction(steps: list[tuple[bytes, Match | None]]) -> None:
    expected = expand(steps)
    packed = lzo(steps)
    assert unpack(packed, len(expected)) == expected
    with pytest.raises(DamagedError):
        unpack(packed, len(expected) - 1)
    with pytest.raises(DamagedError):
        unpack(packed, len(expected) + 1)
    with pytest.raises(DamagedError):
        unpack(packed[:-3], len(expected))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: b"\x15abcd" + tail)))
def test_any_bytes_are_survived(data: bytes) -> None:
    try:
        assert len(unpack(data, 4096)) == 4096
    except DamagedError:
        return


def test_a_bomb_is_small() -> None:
    """A length that goes on for ever is given up on, not carried out."""
    with pytest.raises(DamagedError, match="more"):
        unpack(b"\x12a\x20" + bytes(1 << 20) + b"\x01\0\0\x11\0\0", 4096)

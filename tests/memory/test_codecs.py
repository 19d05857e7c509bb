from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.memory.writers import pack

from yamori.errors import TargetError
from yamori.memory.codecs import codec
from yamori.memory.lzo import DamagedError

METHODS = ["zlib", "lzo", "snappy", "zstd"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", [bytes(4096), bytes(range(256)) * 16, b"x" * 5], ids=["zeros", "bytes", "few"])
def test_there_and_back(method: str, data: bytes) -> None:
    packed = pack(method, data)
    unpack = codec(method, "image")
    assert unpack(packed, len(data)) == data
    for size in (len(data) - 1, len(data) + 1):
        with pytest.raises(DamagedError):
            unpack(packed, size)
    with pytest.raises(DamagedError):
        unpack(packed[: len(packed) // 2], len(data))


@pytest.mark.parametrize("method", ["zlib", "snappy", "zstd"])
def test_a_bomb_is_not_unpacked(method: str) -> None:
    packed = pack(method, bytes(64 << 20))
    with pytest.raises(DamagedError):
        codec(method, "image")(packed, 4096)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=100), at=st.integers(0, 100), change=st.binary(min_size=1, max_size=4))
def test_any_bytes_are_survived(method: str, data: bytes, at: int, change: bytes) -> None:
    packed = pack(method, bytes(range(200)))
    for broken in (data, packed[:at] + change + packed[at + len(change) :]):
        try:
            assert len(codec(method, "image")(broken, 200)) == 200
        except DamagedError:
            continue


@pytest.mark.parametrize(("method", "module"), [("snappy", "cramjam"), ("zstd", "backports.zstd")])
def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, method: str, module: str) -> None:
    if method == "zstd" and sys.version_info >= (3, 14):
        pytest.skip("it is Python's own")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TargetError, match=r"dump: it is packed with .*; install yamori\[images\]"):
        codec(method, "dump")

"""The kernel's log: rings that wrapped, records that were taken again, and rings that lie."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.errors import Fault, ProfileError
from yamori.kernel.vmcoreinfo import VmCoreInfo
from yamori.probes.log import log
from yamori.records import Result

WORD = 8
RING, DESCS, INFOS, DATA, OLD = 0x1000, 0x10000, 0x20000, 0x40000, 0x80000
DESC, INFO, HEAD = 24, 88, 16
DONE, RESERVED = 2, 0
OFFSETS = {
    "printk_ringbuffer.desc_ring": 0,
    "printk_ringbuffer.text_data_ring": 48,
    "prb_desc_ring.count_bits": 0,
    "prb_desc_ring.descs": 8,
    "prb_desc_ring.infos": 16,
    "prb_desc_ring.head_id": 24,
    "prb_desc_ring.tail_id": 32,
    "prb_desc.state_var": 0,
    "prb_desc.text_blk_lpos": 8,
    "prb_data_blk_lpos.begin": 0,
    "prb_data_blk_lpos.next": 8,
    "prb_data_ring.size_bits": 0,
    "prb_data_ring.data": 8,
    "printk_info.seq": 0,
    "printk_info.ts_nsec": 8,
    "printk_info.text_len": 16,
    "printk_log.ts_nsec": 0,
    "printk_log.len": 8,
    "printk_log.text_len": 10,
}


@dataclass
class Fake:
    """A kernel of which only VMCOREINFO is known, in a few pieces of memory."""

    memory: dict[int, bytearray] = field(default_factory=dict)
    symbols: dict[str, int] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=lambda: OFFSETS)

    def read(self, address: int, size: int) -> bytes:
        for base, data in self.memory.items():
            if base <= address and address + size <= base + len(data):
                return bytes(data[address - base : address - base + size])
        raise Fault(f"nothing at {address:#x}")

    def log(self) -> Result[Any]:
        info = VmCoreInfo(
            release="6.1",
            page_size=4096,
            build_id="",
            kernel_offset=None,
            symbols=self.symbols,
            offsets=self.offsets,
            sizes={"prb_desc": DESC, "printk_info": INFO, "printk_log": HEAD},
            lengths={},
            numbers={},
        )
        profile = SimpleNamespace(
            init=SimpleNamespace(word_size=WORD),
            vmcoreinfo=info,
            types=(),
            member=lambda *_: None,
            address=lambda _: None,
        )
        kernel: Any = SimpleNamespace(profile=profile, space=self)
        return log(kernel)


class Ring:
    """Writes records as ``prb_reserve`` and ``prb_commit`` do, with ids and positions that never return to 0."""

    def __init__(self, count_bits: int, size_bits: int, start: int) -> None:
        self.count, self.size = 1 << count_bits, 1 << size_bits
        self.bits = count_bits, size_bits
        self.head = self.next_id = start
        self.tail = start
        self.position = self.oldest = start * 8
        self.descs = bytearray(DESC * self.count)
        self.infos = bytearray(INFO * self.count)
        self.data = bytearray(self.size)
        self.begins: dict[int, tuple[int, int]] = {}
        self.said: dict[int, bytes] = {}

    def write(self, text: bytes, *, state: int = DONE) -> None:
        need = WORD + (len(text) + WORD - 1) // WORD * WORD if text else 0
        begin, at = self.position, self.position % self.size
        after = begin + need
        if text and after // self.size != begin // self.size and after % self.size:  # goes to the start
            at, after = 0, (begin // self.size + 1) * self.size + need
        while self.begins and (
            after - min(b for b, _ in self.begins.values()) > self.size or len(self.begins) >= self.count
        ):
            gone = min(self.begins)
            del self.begins[gone]
            self.said.pop(gone, None)
            self.tail = gone + 1
        identity = self.next_id
        if text:
            self.data[at : at + need] = (struct.pack("<Q", identity) + text).ljust(need, b"\0")
            self.position = after
            block = begin, after
        else:
            block = 1, 1
        index = identity % self.count
        self.descs[index * DESC : (index + 1) * DESC] = struct.pack("<QQQ", identity | state << 62, *block)
        info = struct.pack("<QQHBB", identity, identity * 1000, len(text), 1, 6 << 5)
        self.infos[index * INFO : (index + 1) * INFO] = info.ljust(INFO, b"\0")
        self.begins[identity] = (begin, after)
        if state == DONE:
            self.said[identity] = text
        self.head = identity
        self.next_id = identity + 1

    def kernel(self) -> Fake:
        head = struct.pack("<QQQQQ", self.bits[0], DESCS, INFOS, self.head | RESERVED << 62, self.tail | DONE << 62)
        ring = (head.ljust(48, b"\0") + struct.pack("<QQ", self.bits[1], DATA)).ljust(128, b"\0")
        memory = {RING: ring, DESCS: self.descs, INFOS: self.infos, DATA: self.data, 0x100: struct.pack("<Q", RING)}
        return Fake({base: bytearray(data) for base, data in memory.items()}, {"prb": 0x100})


texts = st.lists(st.binary(max_size=60).filter(lambda text: not text or text.isascii()), min_size=1, max_size=80)


@settings(deadline=2000)
@given(texts, st.integers(2, 5), st.integers(8, 10), st.integers(1, 5000))
def test_ring_of_descriptors(said: list[bytes], count_bits: int, size_bits: int, start: int) -> None:
    ring = Ring(count_bits, size_bits, start)
    for text in said:
        ring.write(text)
    result = ring.kernel().log()
    assert result.complete
    assert [row.seq for row in result] == sorted(ring.said)
    assert all(row.time == row.seq * 1000 / 1e9 and row.facility == 1 and row.level == 6 for row in result)
    plain = [(row, ring.said[row.seq]) for row in result if ring.said[row.seq].isalnum()]
    assert all(row.text == text.decode() for row, text in plain)


def test_text_of_control_characters_is_escaped() -> None:
    ring = Ring(3, 8, 1)
    ring.write(b"a\x1b[31mb")
    assert ring.kernel().log().rows[0].text == "a\\x1b[31mb"


def test_record_that_is_being_written_is_left_out() -> None:
    ring = Ring(3, 8, 1)
    ring.write(b"one")
    ring.write(b"half", state=RESERVED)
    ring.write(b"two")
    assert [row.text for row in ring.kernel().log()] == ["one", "two"]


def test_text_of_another_record_is_not_shown() -> None:
    ring = Ring(3, 8, 1)
    ring.write(b"one")
    ring.write(b"two")
    fake = ring.kernel()
    at = ring.begins[2][0] % 256
    fake.memory[DATA][at : at + 8] = struct.pack("<Q", 77)
    result = fake.log()
    assert ([row.text for row in result], result.complete) == (["one"], False)
    assert "overwritten" in result.reasons[0]


@settings(deadline=2000)
@given(st.data())
def test_lies_end(data: st.DataObject) -> None:
    ring = Ring(4, 9, 3)
    for _ in range(30):
        ring.write(b"something that was said")
    fake = ring.kernel()
    for base in data.draw(st.lists(st.sampled_from([RING, DESCS, INFOS, DATA]), min_size=1)):
        at = data.draw(st.integers(0, len(fake.memory[base]) - 8))
        fake.memory[base][at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    with suppress(ProfileError):  # what cannot be right is refused
        assert len(fake.log().rows) <= 16


@pytest.mark.parametrize("at", [RING, RING + 48])
def test_sizes_that_no_log_has_are_refused_at_once(at: int) -> None:
    ring = Ring(3, 8, 1)
    ring.write(b"one")
    fake = ring.kernel()
    fake.memory[RING][at - RING : at - RING + 4] = b"\xff\xff\xff\xff"
    tracemalloc.start()
    with pytest.raises(ProfileError, match="larger than any is"):
        fake.log()
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("lie", [{"printk_info.text_len": 1 << 40}, {"printk_info.text_len": INFO - 2}])
def test_layouts_that_cannot_be_are_refused(lie: dict[str, int]) -> None:
    ring = Ring(3, 8, 1)
    ring.write(b"one")
    fake = ring.kernel()
    fake.offsets = OFFSETS | lie
    with pytest.raises(ProfileError, match="cannot be"):
        fake.log()


def old(*said: bytes, size: int = 512, first: int = 0, wrap: int | None = None) -> Fake:
    """Return a ring of before 5.10; the record number ``wrap`` goes to the start."""
    data, at = bytearray(size), first
    for number, text in enumerate(said):
        if number == wrap:
            data[at : at + HEAD] = bytes(HEAD)
            at = 0
        each = (HEAD + len(text) + 3) & ~3
        head = struct.pack("<QHHHBB", (number + 1) * 1000, each, len(text), 0, 0, 4 << 5)
        data[at : at + each] = (head + text).ljust(each, b"\0")
        at += each
    numbers = struct.pack("<QIII", OLD, size, first, at)
    symbols = {"log_buf": 0x100, "log_buf_len": 0x108, "log_first_idx": 0x10C, "log_next_idx": 0x110}
    return Fake({0x100: bytearray(numbers), OLD: data}, symbols)


@pytest.mark.parametrize("wrap", [None, 2])
def test_ring_of_before_5_10(wrap: int | None) -> None:
    result = old(b"one", b"two", b"three", b"four", first=400, wrap=wrap).log()
    assert result.complete
    assert [(row.seq, row.text, row.level) for row in result] == [
        (0, "one", 4),
        (1, "two", 4),
        (2, "three", 4),
        (3, "four", 4),
    ]


@settings(deadline=2000)
@given(st.binary(min_size=512, max_size=512), st.integers(0, 600), st.integers(0, 600))
def test_old_lies_end(data: bytes, first: int, last: int) -> None:
    fake = old(b"one")
    fake.memory[OLD] = bytearray(data)
    fake.memory[0x100][12:20] = struct.pack("<II", first, last)
    assert len(fake.log().rows) <= 512 // HEAD * 2


def test_kernel_that_says_nothing_of_its_log() -> None:
    with pytest.raises(ProfileError, match="not known"):
        Fake().log()

"""``ids log``: the kernel's ring buffer, as ``dmesg`` shows it.

Since 5.10 (896fbe20b4e2) it is ``struct printk_ringbuffer`` of ``kernel/printk/printk_ringbuffer.h``: descriptors with
the state of each record, what is known of it, and a ring of texts. Before, it was a ring of ``struct printk_log``, each
with its text behind it. Where these lie is in VMCOREINFO, for tools such as ``makedumpfile``, so that neither BTF nor
symbols are needed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from yamori.address import GVA
from yamori.errors import Fault, ProfileError
from yamori.kernel.kernel import Kernel
from yamori.records import LogLine, Result, escape

MOST_RECORD_BITS = 18
MOST_RECORDS = 1 << MOST_RECORD_BITS
MOST_TEXT_BITS = 26
MOST_TEXT = 1 << MOST_TEXT_BITS
"""Bytes: ``CONFIG_LOG_BUF_SHIFT`` is 25 at the most, ``log_buf_len=`` may be more."""

COMMITTED, FINALIZED = 1, 2
"""``enum desc_state``, in the upper two bits of a descriptor's ``state_var``."""
ESCAPED = 2048  # LOG_LINE_MAX and PRINTK_MESSAGE_MAX are 1024 and 2048


def log(kernel: Kernel) -> Result[LogLine]:
    """List what the kernel's ring buffer holds, the oldest first.

    Raises:
        ProfileError: It is not known where the ring buffer lies, or how it is laid out.
    """
    started = time.perf_counter()
    layout = _Layout(kernel)
    reasons: list[str] = []
    try:
        ring = layout.pointer("prb")
        rows = [*(_records(layout, ring, reasons) if ring else _old(layout, reasons))]
    except Fault as error:
        raise ProfileError(f"the kernel's log cannot be read: {error}") from error
    seconds = time.perf_counter() - started
    return Result(rows, not reasons, reasons, faults=0, loads=layout.loads, elapsed_s=seconds, notes=[])


class _Layout:
    """Where the log's structures have what, from types or from VMCOREINFO."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.profile = kernel.profile
        self.word = kernel.profile.init.word_size
        info = kernel.profile.vmcoreinfo
        self.symbols = info.symbols if info else {}
        self.offsets = info.offsets if info else {}
        self.sizes = info.sizes if info else {}
        self.loads = 0

    def at(self, struct: str, *paths: str) -> int:
        """Return the offset of a member, which may lie in structures inside of this one."""
        member = self.profile.member(struct, ".".join(paths))
        if member:
            return member.offset
        name = f"{struct}.{paths[0]}"
        if name in self.offsets:
            return self.offsets[name]
        raise ProfileError(f"where {name} lies in this kernel is not known", hint="give --vmlinux")

    def size(self, struct: str) -> int:
        """Return the bytes of a structure."""
        known = next((size for types in self.profile.types if (size := types.size(struct))), self.sizes.get(struct))
        if known:
            return known
        raise ProfileError(f"the size of {struct} in this kernel is not known", hint="give --vmlinux")

    def variable(self, name: str) -> int | None:
        """Return the address of a variable."""
        return self.symbols.get(name) or self.profile.address(name)

    def pointer(self, name: str) -> int | None:
        """Return the pointer that a variable is."""
        place = self.variable(name)
        return self.number(place, self.word) if place else None

    def number(self, address: int, size: int) -> int:
        """Return an unsigned number in memory."""
        return int.from_bytes(self._read(address, size), "little")

    def block(self, address: int, size: int) -> bytes:
        """Return a part of memory of a bounded size."""
        if not 0 < size <= MOST_TEXT:
            raise ProfileError(f"the kernel's log claims to have {size} bytes")
        return self._read(address, size)

    def _read(self, address: int, size: int) -> bytes:
        self.loads += 1
        return self.kernel.space.read(GVA(address), size)


def _records(layout: _Layout, ring: int, reasons: list[str]) -> Iterator[LogLine]:
    """Yield the records of a ``struct printk_ringbuffer``."""
    word = layout.word
    descriptors = ring + layout.at("printk_ringbuffer", "desc_ring")
    texts = ring + layout.at("printk_ringbuffer", "text_data_ring")

    def field(base: int, struct: str, name: str, size: int) -> int:
        return layout.number(base + layout.at(struct, name), size)

    count_bits = field(descriptors, "prb_desc_ring", "count_bits", 4)
    size_bits = field(texts, "prb_data_ring", "size_bits", 4)
    if count_bits > MOST_RECORD_BITS or size_bits > MOST_TEXT_BITS:
        raise ProfileError("the kernel's log claims to be larger than any is")
    head, tail = (_identity(field(descriptors, "prb_desc_ring", name, word), word) for name in ("head_id", "tail_id"))
    each, size = layout.size("prb_desc"), layout.size("printk_info")
    states = layout.block(field(descriptors, "prb_desc_ring", "descs", word), each << count_bits)
    infos = layout.block(field(descriptors, "prb_desc_ring", "infos", word), size << count_bits)
    data = layout.block(field(texts, "prb_data_ring", "data", word), 1 << size_bits)
    state_at, block_at = layout.at("prb_desc", "state_var"), layout.at("prb_desc", "text_blk_lpos")
    begin_at, next_at = (block_at + layout.at("prb_data_blk_lpos", name) for name in ("begin", "next"))
    known = _Info(layout, "printk_info")
    count = (head - tail) % (1 << (8 * word - 2)) + 1
    for step in range(min(count, 1 << count_bits)):
        identity = _identity(tail + step, word)
        index = identity & ((1 << count_bits) - 1)
        own = states[index * each : (index + 1) * each]
        state = int.from_bytes(own[state_at : state_at + word], "little")
        if _identity(state, word) != identity or state >> (8 * word - 2) not in {COMMITTED, FINALIZED}:
            continue  # reserved, or taken again meanwhile
        begin, after = (int.from_bytes(own[at : at + word], "little") for at in (begin_at, next_at))
        info = infos[index * size : (index + 1) * size]
        text = _text(data, begin, after, identity, word)
        if text is None:
            reasons[:] = ["texts of the log were overwritten while they were read"]
            continue
        yield known.line(info, text)


def _identity(value: int, word: int) -> int:
    """Return a descriptor's number, without the state in its upper two bits."""
    return value & ((1 << (8 * word - 2)) - 1)


def _text(data: bytes, begin: int, after: int, identity: int, word: int) -> bytes | None:
    """Return what a data block holds, behind the number of its descriptor; ``None`` where it is another's now."""
    if begin == after and begin & 1:  # LPOS_DATALESS
        return b""
    first, last = begin % len(data), after % len(data)
    if begin // len(data) != after // len(data):  # what would cross the end lies at the start
        first = 0 if last else first
        last = last or len(data)
    if last < first + word or int.from_bytes(data[first : first + word], "little") != identity:
        return None
    return data[first + word : last]


class _Info:
    """What a record says of itself: ``struct printk_info``, or ``struct printk_log`` before 5.10."""

    def __init__(self, layout: _Layout, struct: str) -> None:
        self.time_at = layout.at(struct, "ts_nsec")
        self.length_at = layout.at(struct, "text_len")
        self.sequence_at = layout.at(struct, "seq") if struct == "printk_info" else None
        # u8 facility; u8 flags:5, level:3. struct printk_log has u16 dict_len before them.
        self.facility_at = self.length_at + (2 if self.sequence_at is not None else 4)
        if not 0 <= self.facility_at < layout.size(struct) - 1:  # VMCOREINFO lies in the guest's memory, too
            raise ProfileError(f"what is said of struct {struct} cannot be", hint="give --vmlinux")

    def line(self, info: bytes, text: bytes, sequence: int = 0) -> LogLine:
        """Return a line of the log."""
        length = int.from_bytes(info[self.length_at : self.length_at + 2], "little")
        if self.sequence_at is not None:
            sequence = int.from_bytes(info[self.sequence_at : self.sequence_at + 8], "little")
        return LogLine(
            seq=sequence,
            time=int.from_bytes(info[self.time_at : self.time_at + 8], "little") / 1e9,
            facility=info[self.facility_at],
            level=info[self.facility_at + 1] >> 5,
            text=escape(text[: min(length, ESCAPED)]),
        )


def _old(layout: _Layout, reasons: list[str]) -> Iterator[LogLine]:
    """Yield the records of a ring of ``struct printk_log``: each says how long it is; 0 leads to the start."""
    buffer = layout.pointer("log_buf")
    places = [layout.variable(name) for name in ("log_buf_len", "log_first_idx", "log_next_idx")]
    if not buffer or None in places:
        raise ProfileError("where the kernel keeps its log is not known", hint="give --symbols")
    size, first, last = (layout.number(place or 0, 4) for place in places)
    data = layout.block(buffer, size)
    known = _Info(layout, "printk_log")
    length_at, each = layout.at("printk_log", "len"), layout.size("printk_log")
    at, wrapped = first, False
    for number in range(MOST_RECORDS):
        length = int.from_bytes(data[at + length_at : at + length_at + 2], "little")
        if not length and not wrapped and at != last:
            at, wrapped = 0, True
            length = int.from_bytes(data[length_at : length_at + 2], "little")
        if at == last:
            return
        if length < each or at + length > size:
            break
        yield known.line(data[at : at + each], data[at + each : at + length], number)
        at += length
    reasons[:] = ["the ring of the log does not lead to its end"]

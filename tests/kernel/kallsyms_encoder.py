"""Writes kallsyms arrays as scripts/kallsyms.c documents them, for every format; knows nothing of the decoder."""

from __future__ import annotations

import random
import struct
from collections import Counter
from dataclasses import dataclass

KERNEL64 = 0xFFFF_8000_1000_0000
KERNEL32 = 0xC010_0000
GPA_OF_IMAGE = 0x4020_0000


@dataclass(frozen=True)
class Format:
    """One combination of a kernel's version, architecture and configuration."""

    name: str
    word: int = 8
    align: int = 8
    encoding: str = "relative"
    markers: int = 4
    num_syms: int = 4
    big: bool = True
    order: str = "6.4"
    plain: bool = False


FORMATS = (
    Format("3.x x86-64", encoding="absolute", markers=8, num_syms=8, big=False, order="old"),
    Format("3.x arm", word=4, align=16, encoding="absolute", big=False, order="old"),
    Format("4.4 arm64", align=256, encoding="absolute", markers=8, num_syms=8, big=False, order="old"),
    Format("4.9 x86-64 SMP", encoding="percpu", markers=8, num_syms=8, big=False, order="old"),
    Format("4.9 arm64", align=256, markers=8, num_syms=8, big=False, order="old"),
    Format("4.14 arm", word=4, align=16, big=False, order="old"),
    Format("5.10 arm64", big=False, order="old"),
    Format("5.10 x86-64, no relative base", encoding="absolute", big=False, order="old"),
    Format("6.1 arm", word=4, align=4, order="old"),
    Format("6.1 x86-64 SMP", encoding="percpu", order="old"),
    Format("6.2 arm64", order="6.2"),
    Format("6.3 arm", word=4, align=4, order="6.2"),
    Format("6.3 x86-64 SMP", encoding="percpu", order="6.2"),
    Format("6.6 arm64"),
    Format("6.6 arm", word=4, align=4),
    Format("6.12 x86-64 SMP", encoding="percpu"),
    Format("6.12 arm64, no relative base", encoding="absolute"),
    Format("6.12 arm, no relative base", word=4, align=4, encoding="absolute"),
    Format("7.0 arm64", align=4, encoding="pc"),
    Format("7.0 arm", word=4, align=4, encoding="absolute"),
)

Row = tuple[int, str, str]


@dataclass(frozen=True)
class Image:
    """A synthetic kernel image with its tables."""

    data: bytearray
    labels: dict[str, int]
    rows: list[Row]
    base: int

    def gva(self, label: str) -> int:
        return self.base + self.labels[label]

    def gpa(self, label: str) -> int:
        return GPA_OF_IMAGE + self.labels[label]


def symbols(count: int, seed: int, fmt: Format) -> list[Row]:
    """Make up sorted symbols: aliases, one long name, per-CPU offsets where the format has them."""
    rng = random.Random(seed)
    base = KERNEL64 if fmt.word == 8 else KERNEL32
    words = [
        "sys_",
        "do_",
        "init",
        "_read",
        "write",
        "page",
        ".isra.",
        "tcp",
        "v4",
        "__",
        "pfx_",
        "0",
        "9",
        "X",
        "irq",
        "lock",
    ]
    percpu = rng.randrange(1, 40) if fmt.encoding == "percpu" else 0
    rows: list[Row] = [(16 * index, "A", f"pcpu_{index}") for index in range(percpu)]
    at = base
    while len(rows) < count:
        name = "".join(rng.choice(words) for _ in range(rng.randrange(1, 7))) + str(rng.randrange(100_000))
        rows.append((at, rng.choice("TtTtTtDdBbRrW"), name))
        at += rng.choice((0, 4, 16, 64, 240))
    if fmt.big:
        # Random letters do not compress: the length takes two bytes.
        rows[count // 2] = (rows[count // 2][0], "t", "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=500)))
    return rows


def tokens_of(rows: list[Row]) -> list[bytes]:
    """Give every character in use its own code, and the free codes to frequent pieces; the rest stay empty."""
    texts = [(kind + name).encode() for _, kind, name in rows]
    used = {byte for text in texts for byte in text} | set(b"0123456789")
    pieces = Counter(
        text[at : at + size] for text in texts[:300] for size in (2, 3, 5) for at in range(len(text) - size)
    )
    frequent = [piece for piece, _ in pieces.most_common(120)]
    return [bytes([code]) if code in used else frequent.pop(0) if frequent else b"" for code in range(256)]


def compress(text: bytes, codes: dict[bytes, int]) -> bytes:
    out, at = bytearray(), 0
    while at < len(text):
        size = next(size for size in (5, 3, 2, 1) if text[at : at + size] in codes)
        out.append(codes[text[at : at + size]])
        at += size
    return bytes(out)


def names_and_markers(rows: list[Row], tokens: list[bytes], *, big: bool) -> tuple[bytes, list[int]]:
    codes = {token: code for code, token in enumerate(tokens) if token}
    names, markers = bytearray(), []
    for index, (_, kind, name) in enumerate(rows):
        if index % 256 == 0:
            markers.append(len(names))
        packed = compress((kind + name).encode(), codes)
        length = [len(packed) & 0x7F | 0x80, len(packed) >> 7] if big and len(packed) > 127 else [len(packed)]
        names += bytes(length) + packed
    return bytes(names), markers


def build(rows: list[Row], fmt: Format, *, before: bytes = b"\x5a" * 5000, after: int = 3000) -> Image:
    """Lay the arrays out behind ``before``, in the order of the format."""
    base = KERNEL64 if fmt.word == 8 else KERNEL32
    tokens = [bytes([code]) for code in range(256)] if fmt.plain else tokens_of(rows)
    names, markers = names_and_markers(rows, tokens, big=fmt.big)
    unsigned = {4: "I", 8: "Q"}
    table = b"".join(token + b"\0" for token in tokens)
    index = [sum(len(token) + 1 for token in tokens[:code]) for code in range(256)]
    count = len(rows)
    relative = next(address for address, *_ in rows if address >= base)
    seqs = random.Random(count).sample(range(count), count)
    content = {
        "num_syms": struct.pack("<" + unsigned[fmt.num_syms], count),
        "names": names,
        "markers": struct.pack(f"<{len(markers)}{unsigned[fmt.markers]}", *markers),
        "token_table": table,
        "token_index": struct.pack("<256H", *index),
        "seqs": b"".join(seq.to_bytes(3, "big") for seq in seqs),
        "relative_base": struct.pack("<" + unsigned[fmt.word], relative),
    }
    absolute = fmt.encoding == "absolute"
    places = ["addresses"] if absolute or fmt.encoding == "pc" else ["addresses", "relative_base"]
    text = [] if fmt.plain else ["token_table", "token_index"]
    order = {
        "old": [*places, "num_syms", "names", "markers", *text],
        "6.2": [*places, "num_syms", "names", "markers", "seqs", *text],
        "6.4": ["num_syms", "names", "markers", *text, *places, "seqs"],
    }[fmt.order]
    data, labels = bytearray(before), {}
    for label in order:
        data += bytes(-len(data) % fmt.align)
        labels[label] = len(data)
        if label == "addresses":
            here = base + len(data)
            data += _addresses(rows, fmt, relative, here)
        else:
            data += content[label]
    data += b"\xa5" * after
    labels["needle"] = (
        data.index(b"\x15Tkallsyms_lookup_name") if fmt.plain else labels["token_table"] + index[ord("0")]
    )
    return Image(data, labels, rows, base)


def _addresses(rows: list[Row], fmt: Format, relative: int, here: int) -> bytes:
    addresses = [address for address, *_ in rows]
    if fmt.encoding == "absolute":
        return struct.pack(f"<{len(rows)}{'Q' if fmt.word == 8 else 'I'}", *addresses)
    if fmt.encoding == "relative":
        return struct.pack(f"<{len(rows)}I", *(address - relative for address in addresses))
    if fmt.encoding == "percpu":
        return struct.pack(f"<{len(rows)}i", *(a if a < 1 << 31 else relative - a - 1 for a in addresses))
    return struct.pack(f"<{len(rows)}i", *(address - (here + 4 * at) for at, address in enumerate(addresses)))

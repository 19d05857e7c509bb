"""Where the first instructions of a function branch to: what is written there to lead its calls elsewhere.

Only forms that take the target from the code itself are read; a branch through a register is one of the compiler's
unless the address was put there by the instructions before it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

WINDOW = 24
"""Bytes of a function that are looked at: an address of 64 bits, and the branch to it."""

MASK = (1 << 64) - 1


class Reader(NamedTuple):
    """What reads an architecture's instructions.

    Attributes:
        telling: Matches where a function begins with something that may be a branch; most begin otherwise.
        targets: Yields where the branches of a function's first bytes lead to, which lie at a GVA.
    """

    telling: re.Pattern[bytes]
    targets: Callable[[bytes, int], Iterator[int]]


def branches(reader: Reader, data: bytes, at: int, gva: int) -> list[int]:
    """Return the targets of the branches at the start of a function.

    Args:
        reader: That of the architecture.
        data: Code.
        at: Where in it the function begins.
        gva: Its address.
    """
    if not reader.telling.match(data, at, at + WINDOW):
        return []
    return [*reader.targets(data[at : at + WINDOW], gva)]


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _x86(code: bytes, at: int) -> Iterator[int]:
    """Intel SDM volume 2: CALL and JMP rel32, JMP through the address behind it, MOV and PUSH of an address."""
    skipped = 4 if code.startswith(b"\xf3\x0f\x1e\xfa") else 0  # ENDBR64
    code, at = code[skipped:], at + skipped
    if code[:1] in {b"\xe8", b"\xe9"} and len(code) >= 5:
        yield (at + 5 + int.from_bytes(code[1:5], "little", signed=True)) & MASK
    elif code.startswith((b"\xff\x25\0\0\0\0", b"\xff\x15\0\0\0\0")) and len(code) >= 14:
        yield int.from_bytes(code[6:14], "little")
    elif code[:1] in {b"\x48", b"\x49"} and code[1:2] and 0xB8 <= code[1] <= 0xBF and len(code) >= 13:
        register, wide = code[1] - 0xB8, code[0] == 0x49
        rest = code[10:]
        prefix = b"\x41" if wide else b""
        forms = (prefix + bytes([0xFF, 0xE0 | register]), prefix + bytes([0xFF, 0xD0 | register]))
        if rest.startswith(forms) or rest.startswith(prefix + bytes([0x50 | register]) + b"\xc3"):
            yield int.from_bytes(code[2:10], "little")
    elif code[:1] == b"\x68" and len(code) >= 6:
        low = int.from_bytes(code[1:5], "little", signed=True) & MASK
        if code[5:6] == b"\xc3":
            yield low
        elif code[5:9] == b"\xc7\x44\x24\x04" and code[13:14] == b"\xc3":  # the upper half into the stack
            yield low & 0xFFFF_FFFF | int.from_bytes(code[9:13], "little") << 32


def _aarch64(code: bytes, at: int) -> Iterator[int]:
    """Arm ARM (DDI 0487) C6.2: B, BL; LDR (literal) and ADRP with ADD before a BR or BLR of the same register."""
    words = struct.unpack(f"<{len(code) // 4}I", code[: len(code) // 4 * 4])
    known: dict[int, int] = {}
    for number, word in enumerate(words):
        place = at + 4 * number
        if word & 0x7C00_0000 == 0x1400_0000:
            yield (place + 4 * _signed(word & 0x3FF_FFFF, 26)) & MASK
        elif word & 0xFF00_0000 == 0x5800_0000:
            literal = 4 * number + 4 * _signed(word >> 5 & 0x7_FFFF, 19)
            if 0 <= literal <= len(code) - 8:
                known[word & 31] = int.from_bytes(code[literal : literal + 8], "little")
        elif word & 0x9F00_0000 == 0x9000_0000:
            page = _signed((word >> 5 & 0x7_FFFF) << 2 | word >> 29 & 3, 21) << 12
            known[word & 31] = (place & ~0xFFF) + page & MASK
        elif word & 0xFFC0_0000 == 0x9100_0000 and (word >> 5 & 31) in known:
            known[word & 31] = known[word >> 5 & 31] + (word >> 10 & 0xFFF)
        elif word & 0xFFDF_FC1F == 0xD61F_0000 and (word >> 5 & 31) in known:
            yield known[word >> 5 & 31]


def _arm(code: bytes, at: int) -> Iterator[int]:
    """Arm ARM (DDI 0406C) A8.8: B and BL, always; LDR of the program counter; MOVW, MOVT and LDR before a BX."""
    words = struct.unpack(f"<{len(code) // 4}I", code[: len(code) // 4 * 4])
    known: dict[int, int] = {}
    for number, word in enumerate(words):
        place, register = at + 4 * number, word >> 12 & 15
        if word & 0xFE00_0000 == 0xEA00_0000:
            yield (place + 8 + 4 * _signed(word & 0xFF_FFFF, 24)) & 0xFFFF_FFFF
        elif word & 0xFF7F_0000 == 0xE51F_0000:
            literal = 4 * number + 8 + (word & 0xFFF) * (1 if word & 0x80_0000 else -1)
            if 0 <= literal <= len(code) - 4:
                known[register] = int.from_bytes(code[literal : literal + 4], "little")
                if register == 15:
                    yield known[register]
        elif word & 0xFFF0_0000 == 0xE300_0000:
            known[register] = word >> 4 & 0xF000 | word & 0xFFF
        elif word & 0xFFF0_0000 == 0xE340_0000 and register in known:
            known[register] |= (word >> 4 & 0xF000 | word & 0xFFF) << 16
        elif word & 0xFFFF_FFD0 == 0xE12F_FF10 and (word & 15) in known:
            yield known[word & 15]


def _riscv(code: bytes, at: int) -> Iterator[int]:
    """RISC-V unprivileged ISA, 2.5: JAL; AUIPC with JALR, or with LD before a JALR, of the same register."""
    if len(code) < 8:
        return
    first, second = struct.unpack_from("<2I", code)
    if first & 0x7F == 0x6F:
        offset = (first >> 31) << 20 | (first >> 12 & 0xFF) << 12 | (first >> 20 & 1) << 11 | (first >> 21 & 0x3FF) << 1
        yield (at + _signed(offset, 21)) & MASK
    if first & 0x7F != 0x17 or (second >> 15 & 31) != (first >> 7 & 31):
        return
    place = at + (_signed(first >> 12, 20) << 12) + _signed(second >> 20, 12)
    if second & 0x707F == 0x67:
        yield place & MASK
    elif second & 0x707F == 0x3003 and 8 <= place - at <= len(code) - 8:
        target = int.from_bytes(code[place - at : place - at + 8], "little")
        third = int.from_bytes(code[8:12], "little")
        if third & 0x707F == 0x67 and third >> 15 & 31 == second >> 7 & 31:
            yield target


_ARM = Reader(re.compile(rb"(?s)(?:....){0,5}?(?:...[\xea\xeb]|..[\x1f\x9f]\xe5|[^\x1e]\xff\x2f\xe1)"), _arm)

READERS = {
    "x86-64": Reader(
        re.compile(rb"(?:\xf3\x0f\x1e\xfa)?(?:[\x68\xe8\xe9]|\xff[\x15\x25]|[\x48\x49][\xb8-\xbf])"), _x86
    ),
    "aarch64": Reader(re.compile(rb"(?s)(?:....){0,5}?...[\x14-\x17\x94-\x97\xd6]"), _aarch64),
    "arm-short": _ARM,
    "arm-lpae": _ARM,
    "riscv64": Reader(re.compile(rb"[\x17\x6f\x97\xef]"), _riscv),
}
"""Format of the page tables → what reads that architecture's instructions."""

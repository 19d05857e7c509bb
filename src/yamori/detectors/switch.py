"""Where a function that x86-64 dispatches system calls with leads each number: its code, followed on every way.

Since 1e3ad78334a6 (6.9, and in stable releases) ``x64_sys_call(regs, nr)`` is a ``switch`` over ``nr``. Compilers make
comparisons with constants and conditional jumps of it, never a table of addresses: retpolines and IBT forbid these. So
the code is followed with a range of numbers in place of one: each comparison splits the range, each jump or call out of
the function ends a way. What is none of these instructions is not passed over: then it is not known where it leads.

Encodings are those of the Intel SDM, volume 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from yamori.errors import YamoriError

HIGHEST = (1 << 32) - 1
MASK = (1 << 64) - 1
MOST_STEPS = 1 << 15
"""Instructions that are followed, on all ways together; a switch over 450 calls takes about 2,500."""

NUMBER = 6
"""Register that ``nr`` is given in: ``esi``."""

BELOW, EQUAL, ABOVE = range(3)
TAKEN = {2: {BELOW}, 3: {EQUAL, ABOVE}, 4: {EQUAL}, 5: {BELOW, ABOVE}, 6: {BELOW, EQUAL}, 7: {ABOVE}}
"""Condition of a jump (B, AE, E, NE, BE, A) → which numbers take it, against what they were compared with."""

PLAIN = (
    (b"\xf3\x0f\x1e\xfa", 4),  # ENDBR64
    (b"\x66\x90", 2),
    (b"\x90", 1),
    (b"\x48\x89\xe5", 3),  # MOV rbp, rsp
    (b"\x48\x83\xec", 4),  # SUB rsp, imm8
    (b"\x48\x83\xc4", 4),  # ADD rsp, imm8
    (b"\x48\xc7\xc0", 7),  # MOV rax, imm32
    (b"\xb8", 5),  # MOV eax, imm32
    (b"\x31\xc0", 2),  # XOR eax, eax
    (b"\x55", 1),  # PUSH rbp
    (b"\x5d", 1),  # POP rbp
    (b"\xc9", 1),  # LEAVE
)
"""Instructions that neither branch nor change the number, by how they begin, and their lengths."""


class UndecodedError(YamoriError):
    """An instruction that is none of those of a switch."""


class Way(NamedTuple):
    """A way out of the function.

    Attributes:
        first: The lowest number that takes it.
        last: The highest.
        place: GVA of the instruction that leaves.
        target: GVA that it leads to; 0 where the function returns without having called anything.
    """

    first: int
    last: int
    place: int
    target: int


class _State(NamedTuple):
    """Where a way is: offset of the next instruction, the numbers that come here, what they were compared with."""

    at: int
    first: int
    last: int
    compared: int | None = None


def ways(code: bytes, gva: int) -> Iterator[Way]:
    """Yield every way out of a function.

    Args:
        code: All of it.
        gva: Its address.

    Raises:
        UndecodedError: It holds something else than a switch.
    """
    waiting = [_State(0, 0, HIGHEST)]
    for _ in range(MOST_STEPS):
        if not waiting:
            return
        state = waiting.pop()
        if not 0 <= state.at < len(code):
            yield Way(state.first, state.last, 0, (gva + state.at) & MASK)
        elif (following := _conditional(code, state)) is not None:
            for one in following:
                if 0 <= one.at < len(code):
                    waiting.append(one)
                else:
                    yield Way(one.first, one.last, gva + state.at, (gva + one.at) & MASK)
        elif (target := _jump(code, state.at)) is not None:
            if 0 <= target < len(code):
                waiting.append(state._replace(at=target))
            else:
                yield Way(state.first, state.last, gva + state.at, (gva + target) & MASK)
        elif code[state.at] == 0xC3:  # RET
            yield Way(state.first, state.last, gva + state.at, 0)
        else:
            waiting.append(_step(code, state, gva))
    raise UndecodedError(f"the switch at {gva:#x} does not end")


def _relative(code: bytes, at: int, size: int) -> int:
    """Return where a relative branch leads whose distance lies at an offset, and is the last of the instruction."""
    return at + size + int.from_bytes(code[at : at + size].ljust(size, b"\0"), "little", signed=True)


def _jump(code: bytes, at: int) -> int | None:
    """Return where JMP leads, or a CALL; that which functions begin with for tracing is passed over elsewhere."""
    if code[at] == 0xEB:
        return _relative(code, at + 1, 1)
    if code[at] == 0xE9 or (code[at] == 0xE8 and not _traced(code, at)):
        return _relative(code, at + 1, 4)
    return None


def _traced(code: bytes, at: int) -> bool:
    """Say whether an instruction is where functions call ``__fentry__``; inline-hooks looks at where that leads."""
    return at == (4 if code.startswith(b"\xf3\x0f\x1e\xfa") else 0)


def _conditional(code: bytes, state: _State) -> list[_State] | None:
    """Return where a conditional jump leads, and with which numbers; ``None`` if it is none."""
    at = state.at
    if 0x70 <= code[at] <= 0x7F:
        condition, target, after = code[at] & 15, _relative(code, at + 1, 1), at + 2
    elif code[at] == 0x0F and 0x80 <= int.from_bytes(code[at + 1 : at + 2], "little") <= 0x8F:
        condition, target, after = code[at + 1] & 15, _relative(code, at + 2, 4), at + 6
    else:
        return None
    limit = state.compared
    if limit is None:
        raise UndecodedError(f"a switch jumps at +{at:#x} by what it did not compare")
    if condition in {0xC, 0xD, 0xE, 0xF}:  # signed: the same where no number has the highest bit
        if max(state.last, limit) >> 31:
            raise UndecodedError(f"a switch compares signed numbers at +{at:#x}")
        condition = {0xC: 2, 0xD: 3, 0xE: 6, 0xF: 7}[condition]
    if condition not in TAKEN:
        raise UndecodedError(f"a switch jumps at +{at:#x} by something else than an order")
    places = [target if part in TAKEN[condition] else after for part in range(3)]
    found: list[_State] = []
    for place, (low, high) in zip(places, ((0, limit - 1), (limit, limit), (limit + 1, HIGHEST)), strict=True):
        first, last = max(low, state.first), min(high, state.last)
        if first > last:
            continue
        if found and found[-1].at == place:  # both that are equal and those beside them go this way
            first = found.pop().first
        found.append(_State(place, first, last, limit))
    return found


def _step(code: bytes, state: _State, gva: int) -> _State:
    """Return what follows an instruction that does not branch."""
    at = state.at
    rest = code[at : at + 16]
    if rest[:2] == bytes([0x81, 0xF8 | NUMBER]):  # CMP esi, imm32
        return state._replace(at=at + 6, compared=int.from_bytes(rest[2:6], "little"))
    if rest[:2] == bytes([0x83, 0xF8 | NUMBER]):  # CMP esi, imm8
        return state._replace(at=at + 3, compared=int.from_bytes(rest[2:3], "little", signed=True) & HIGHEST)
    if rest[:2] == bytes([0x85, 0xC0 | NUMBER << 3 | NUMBER]):  # TEST esi, esi: as CMP with 0, but carry is clear, too
        return state._replace(at=at + 2, compared=0)
    if rest[:1] == b"\xe8":  # the call for tracing
        return state._replace(at=at + 5)
    for begin, length in PLAIN:
        if rest.startswith(begin):
            return state._replace(at=at + length)
    if length := _long_nop(rest):
        return state._replace(at=at + length)
    raise UndecodedError(f"the switch at {gva:#x} holds {rest[:6].hex(' ')} at +{at:#x}, which is not understood")


def _long_nop(rest: bytes) -> int:
    """Return how long a NOP with operands is, 0 if it is none: 0F 1F /0, with prefixes before it."""
    bare = rest.lstrip(b"\x66\x2e")
    prefixes = len(rest) - len(bare)
    if not bare.startswith(b"\x0f\x1f") or len(bare) < 3 or bare[2] >> 6 == 3:
        return 0
    return prefixes + 3 + (bare[2] & 7 == 4) + {0: 0, 1: 1, 2: 4}[bare[2] >> 6]

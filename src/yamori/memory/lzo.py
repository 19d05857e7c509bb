"""Unpacks LZO1X, in which ``makedumpfile -l`` and QEMU's ``kdump-lzo`` write pages.

Written from the description of the stream in Documentation/staging/lzo.rst of the kernel.
"""

from __future__ import annotations

_FAR = 16384
_NOTHING, _RUN = 0, 4
"""How many literals the instruction before ended with: none; 1 to 3, which change what a small number means; a run."""


class DamagedError(Exception):
    """Packed bytes that do not unpack into the size that they should."""


def unpack(data: bytes, size: int) -> bytes:
    """Return the ``size`` bytes that a stream holds.

    Raises:
        DamagedError: It is malformed, or holds another number of bytes.
    """
    try:
        found = _unpacked(data, size)
    except IndexError:
        raise DamagedError("it ends within an instruction") from None
    if len(found) != size:
        raise DamagedError("it unpacks into another size")
    return bytes(found)


def _unpacked(data: bytes, size: int) -> bytearray:
    out = bytearray()
    at, literals = 0, _NOTHING
    if data[0] > 17:
        length = data[0] - 17
        at = 1 + length
        out += data[1:at]
        literals = min(length, _RUN)
    while True:
        code = data[at]
        at += 1
        if code < 16 and literals == _NOTHING:
            length, at = (3 + code, at) if code else _long(data, at, 18, size)
            out += data[at : at + length]
            at += length
            literals = _RUN
        else:
            if code < 16:
                length = 3 if literals == _RUN else 2
                distance = (code >> 2) + (data[at] << 2) + (2049 if literals == _RUN else 1)
                at += 1
                literals = code & 3
            elif code < 64:
                mask, base = (31, 33) if code >= 32 else (7, 9)
                length, at = (2 + (code & mask), at) if code & mask else _long(data, at, base, size)
                low = data[at] | data[at + 1] << 8
                at += 2
                literals = low & 3
                distance = (low >> 2) + 1
                if code < 32:
                    distance += _FAR - 1 + ((code & 8) << 11)
                    if distance == _FAR:
                        return out
            else:
                length = (code >> 5) + 1 if code >= 128 else 3 + (code >> 5 & 1)
                distance = (code >> 2 & 7) + (data[at] << 3) + 1
                at += 1
                literals = code & 3
            _repeat(out, distance, length)
            out += data[at : at + literals]
            at += literals
        if len(out) > size:
            raise DamagedError("it unpacks into more")


def _repeat(out: bytearray, distance: int, length: int) -> None:
    """Append what begins so far back; what is appended may be part of it."""
    start = len(out) - distance
    if start < 0:
        raise DamagedError("it refers to what is before its beginning")
    out += out[start : start + length] if distance >= length else (out[start:] * (length // distance + 1))[:length]


def _long(data: bytes, at: int, base: int, most: int) -> tuple[int, int]:
    """Read a length that goes on in further bytes; each zero adds 255. Return it and where the next byte lies."""
    length = base
    while not data[at]:
        at += 1
        length += 255
        if length > most:
            raise DamagedError("it unpacks into more")
    return length + data[at], at + 1

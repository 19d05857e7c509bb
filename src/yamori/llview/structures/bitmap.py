"""Bitmaps: arrays of ``unsigned long``, the lowest bit of the first word first (``include/linux/bitmap.h``)."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.llview.language import helper, sizeof, u32, ulong, word_at


@helper
def test_bit(bitmap: ulong, number: u32) -> bool:
    """Say whether a bit of the bitmap at an address is set."""
    word = word_at(bitmap + (number >> 3 & ~(sizeof(ulong) - 1)))
    return word >> (number & (sizeof(ulong) * 8 - 1)) & 1 != 0


@helper
def for_each_set_bit(bitmap: ulong, size: u32) -> Iterator[int]:
    """Go through the numbers of the set bits among the first ``size``; one load a word, and one tick where it is 0."""
    within = u32(sizeof(ulong) * 8 - 1)
    number: u32 = 0
    rest: ulong = 0
    while number < size:
        if number & within == 0:
            rest = word_at(bitmap + (number >> 3))
        if rest == 0:
            number |= within
        elif rest & 1 != 0:
            yield number
        rest >>= 1
        number += 1

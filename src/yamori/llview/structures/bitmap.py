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
    """Go through the numbers of the set bits among the first ``size``; one load a word."""
    bits = u32(sizeof(ulong) * 8)
    word: ulong = 0
    for number in range(size):
        if number & (bits - 1) == 0:
            word = word_at(bitmap + (number >> 3))
        if word >> (number & (bits - 1)) & 1 != 0:
            yield number

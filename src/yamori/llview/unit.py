"""What is compiled together, and how its rows lie in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from yamori.llview.ir import IntType, Program


@dataclass(frozen=True)
class Unit:
    """What is compiled together.

    Attributes:
        name: A file name.
        probes: All of one word size.
        walkers: One of them serves a run.
        object: The name of its object, where it was built already: its C text need not be written again.
        texts: The Python text of each of its programs by name, where it was built already.
    """

    name: str
    probes: tuple[Program, ...]
    walkers: tuple[Program, ...]
    object: str = ""
    texts: dict[str, str] = field(default_factory=dict)


class RowLayout(NamedTuple):
    """How a row lies in memory: a word of bits, one for each present field, then the fields.

    An integer takes a word, extended by its sign; a text takes its length, rounded up to words.

    Attributes:
        words: Words of each field.
        stride: Bytes of a row.
    """

    words: tuple[int, ...]
    stride: int


MOST_ROWS = 1 << 18
"""Rows of a run: eight times as many as a kernel has processes by default."""

MOST_ROW_BYTES = 1 << 26
"""Bytes of a run's rows, as ``RowLayout`` counts them: what a list without an end may make of them."""


def most_rows(program: Program) -> int:
    """Return how many rows a run of a program may give; the next one ends it."""
    return min(MOST_ROWS, MOST_ROW_BYTES // row_layout(program).stride)


def row_layout(program: Program) -> RowLayout:
    """Return how the rows of a program lie in memory."""
    words = [1 if isinstance(field.type, IntType) else -(-field.type // 8) for field in program.row]
    return RowLayout(tuple(words), 8 * (1 + sum(words)))

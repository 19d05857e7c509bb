"""The kernel's functions by name, and what their code uses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from yamori.kernel.code import Code, Path
from yamori.kernel.symbols import Symbols
from yamori.translation.space import AddressSpace

USUAL_SIZE = 512
"""Bytes that are read of a function behind which no symbol is."""


THUMB_SHARE = 0.05
"""Of all symbols, those between two multiples of four: near none in a kernel of Arm instructions."""


class Functions:
    """What is asked of a kernel's functions; each is read once.

    Args:
        space: The kernel's address space.
        architecture: As ``Profile.architecture`` names it.
        symbols: Every source of symbols, the most trusted first.
    """

    def __init__(self, space: AddressSpace, architecture: str, symbols: Sequence[Symbols]) -> None:
        self._space = space
        self._architecture = architecture
        self._symbols = symbols
        self._parts: dict[str, list[range]] = {}

    def paths(self, name: str) -> frozenset[Path]:
        """Return what a function uses of what it is given; nothing where there is no such function.

        Raises:
            ProfileError: capstone is not installed.
        """
        return self._code.paths(*self._text(name))

    def addresses(self, name: str) -> frozenset[int]:
        """Return the fixed addresses that a function uses; none where there is no such function.

        Raises:
            ProfileError: capstone is not installed.
        """
        return self._code.addresses(*self._text(name))

    @cached_property
    def _code(self) -> Code:
        """What decodes the kernel's code. On 32-bit Arm it is of either instruction set (CONFIG_THUMB2_KERNEL)."""
        every = [at for symbols in self._symbols for at in symbols.addresses(range(1 << 32))]
        odd = sum(at % 4 == 2 for at in every)  # instructions of the other set have four bytes, and are aligned
        thumb = self._architecture == "arm" and odd > len(every) * THUMB_SHARE
        return Code(self._space, "thumb" if thumb else self._architecture)

    def _text(self, name: str) -> list[range]:
        """Return where a function lies: the compiler puts what is hardly ever reached into one of its own."""
        if name not in self._parts:
            halves = (self._lies(half) for half in (name, f"{name}.cold"))
            self._parts[name] = [part for part in halves if part]
        return self._parts[name]

    def _lies(self, name: str) -> range | None:
        for symbols in self._symbols:
            if (start := symbols.address(name)) is not None:
                return range(start, symbols.next_address(start) or start + USUAL_SIZE)
        return None

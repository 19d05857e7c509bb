"""The kernel's symbols: names to addresses and back, compact enough for a hundred thousand of them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from yamori.kernel.types import Provenance


class Symbol(NamedTuple):
    """One symbol.

    Attributes:
        address: GVA, with the KASLR slide.
        kind: The letter that ``nm`` and ``/proc/kallsyms`` show: ``T``, ``t``, ``D``, ...
        name: As in the kernel.
    """

    address: int
    kind: str
    name: str


class Symbols:
    """A table of symbols.

    Names are held in one byte string and addresses in arrays: 115,000 symbols take about 6 MB.

    Args:
        symbols: In the order of the source; the order decides among symbols of one address.
        provenance: Where they were learnt.
    """

    def __init__(self, symbols: Iterable[Symbol], provenance: Provenance) -> None:
        self.provenance = provenance
        ordered = sorted(symbols, key=lambda symbol: symbol.address)  # stable: keeps the source's order at one address
        self._addresses = array("Q", (symbol.address for symbol in ordered))
        self._kinds = "".join(symbol.kind[0] for symbol in ordered)
        names = [symbol.name for symbol in ordered]
        starts = array("I", [1])
        for name in names:
            starts.append(starts[-1] + len(name.encode()) + 1)
        self._starts = starts
        self._names = ("\n" + "\n".join(names) + "\n").encode()

    def __len__(self) -> int:
        return len(self._addresses)

    def __iter__(self) -> Iterator[Symbol]:
        for index in range(len(self)):
            yield self._at(index)

    def _at(self, index: int) -> Symbol:
        name = self._names[self._starts[index] : self._starts[index + 1] - 1].decode()
        return Symbol(self._addresses[index], self._kinds[index], name)

    def find(self, name: str) -> Symbol | None:
        """Return the symbol of that exact name, the lowest address first where there are several; ``None`` if none."""
        at = self._names.find(f"\n{name}\n".encode())
        return None if at < 0 else self._at(bisect_right(self._starts, at + 1) - 1)

    def address(self, name: str) -> int | None:
        """Return the address of ``name``, or ``None``."""
        symbol = self.find(name)
        return symbol.address if symbol else None

    def containing(self, address: int) -> tuple[Symbol, int] | None:
        """Return the symbol at or before ``address`` and the offset from it; ``None`` below the first symbol.

        Among several symbols of one address the first of the source is returned, as the kernel's own
        ``kallsyms_lookup`` does.
        """
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        while index and self._addresses[index - 1] == self._addresses[index]:
            index -= 1
        return self._at(index), address - self._addresses[index]

    def aliases(self, address: int) -> list[Symbol]:
        """Return every symbol at exactly ``address``, in the order of the source."""
        index = bisect_right(self._addresses, address) - 1
        found: list[Symbol] = []
        while index >= 0 and self._addresses[index] == address:
            found.append(self._at(index))
            index -= 1
        return found[::-1]

    def next_address(self, address: int) -> int | None:
        """Return the lowest symbol address above ``address``, or ``None``."""
        index = bisect_right(self._addresses, address)
        return self._addresses[index] if index < len(self) else None

"""The kernel's symbols: names to addresses and back, compact enough for a hundred thousand of them."""

from __future__ import annotations

import operator
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import NamedTuple, Self

from yamori.kernel.types import Provenance

_CHUNK = 4096


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


class Columns(NamedTuple):
    """A whole table as a few pieces of bytes, sorted by address.

    Attributes:
        addresses: GVAs, 64 bits each, in the byte order of this machine.
        kinds: One letter a symbol.
        names: All names, each between two line feeds.
        starts: Where each name starts in ``names``, and the end, 32 bits each.
    """

    addresses: bytes
    kinds: str
    names: bytes
    starts: bytes


class Symbols:
    """A table of symbols.

    Names are held in one byte string and addresses in arrays: 115,000 symbols take about 5 MB.

    Args:
        symbols: In the order of the source; the order decides among symbols of one address.
        provenance: Where they were learnt.
    """

    def __init__(self, symbols: Iterable[Symbol], provenance: Provenance) -> None:
        rows = list(symbols)
        self.provenance = provenance
        self._addresses = array("Q", [row.address for row in rows])
        self._kinds = "".join([row.kind[0] for row in rows])
        self._index([row.name for row in rows])

    @classmethod
    def from_columns(cls, addresses: Sequence[int], kinds: str, names: Sequence[str], provenance: Provenance) -> Self:
        """Build a table from columns of equal length, which spares one object a symbol.

        Args:
            addresses: GVAs.
            kinds: One letter a symbol.
            names: Without line feeds.
            provenance: Where they were learnt.
        """
        table = cls((), provenance)
        table._addresses = array("Q", addresses)
        table._kinds = kinds
        table._index(names)
        return table

    @classmethod
    def restored(cls, columns: Columns, provenance: Provenance) -> Self:
        """Build a table from the columns of an earlier one.

        Raises:
            ValueError: They do not fit each other.
        """
        table = cls((), provenance)
        table._addresses = array("Q", columns.addresses)
        table._kinds = columns.kinds
        table._names = bytearray(columns.names)
        table._starts = array("I", columns.starts)
        if not len(columns.kinds) == len(table._addresses) == len(table._starts) - 1:
            raise ValueError
        if table._starts[0] != 1 or table._starts[-1] != len(columns.names):
            raise ValueError
        return table

    @property
    def columns(self) -> Columns:
        """The table as bytes, to be kept."""
        return Columns(self._addresses.tobytes(), self._kinds, bytes(self._names), self._starts.tobytes())

    def _index(self, names: Sequence[str]) -> None:
        """Sort by address and pack the names."""
        at = self._addresses.__getitem__
        if any(map(operator.gt, self._addresses, islice(self._addresses, 1, None))):
            order = sorted(range(len(names)), key=at)  # stable: keeps the source's order at one address
            self._addresses = array("Q", map(at, order))
            self._kinds = "".join(map(self._kinds.__getitem__, order))
            names = [names[index] for index in order]
        self._names = bytearray(b"\n")
        self._starts = array("I", [1])
        for first in range(0, len(names), _CHUNK):
            chunk = names[first : first + _CHUNK]
            text = "\n".join([*chunk, ""])
            # A file of the user's can hold any name: lone surrogates must end neither this nor a look-up.
            data = text.encode(errors="surrogatepass")
            if len(data) > len(text):
                sizes = [len(name.encode(errors="surrogatepass")) + 1 for name in chunk]
            else:
                sizes = [len(name) + 1 for name in chunk]
            self._names += data
            self._starts.extend(islice(accumulate(sizes, initial=self._starts[-1]), 1, None))

    def __len__(self) -> int:
        return len(self._addresses)

    def __iter__(self) -> Iterator[Symbol]:
        for index in range(len(self)):
            yield self._at(index)

    def _at(self, index: int) -> Symbol:
        name = self._names[self._starts[index] : self._starts[index + 1] - 1].decode(errors="surrogatepass")
        return Symbol(self._addresses[index], self._kinds[index], name)

    def find(self, name: str) -> Symbol | None:
        """Return the symbol of that exact name, the lowest address first where there are several; ``None`` if none."""
        at = self._names.find(f"\n{name}\n".encode(errors="surrogatepass"))
        # A text with a line feed would match across two names.
        return None if at < 0 or "\n" in name else self._at(bisect_right(self._starts, at + 1) - 1)

    def address(self, name: str) -> int | None:
        """Return the address of ``name``, or ``None``."""
        symbol = self.find(name)
        return symbol.address if symbol else None

    def starting(self, prefixes: Iterable[str]) -> list[Symbol]:
        """Return every symbol whose name begins with one of some texts, in the order of addresses.

        Args:
            prefixes: Without line feeds.
        """
        found = set()
        for prefix in prefixes:
            needle = f"\n{prefix}".encode(errors="surrogatepass")
            at = self._names.find(needle)
            while 0 <= at < len(self._names) - 1:
                found.add(bisect_right(self._starts, at + 1) - 1)
                at = self._names.find(needle, at + 1)
        return [self._at(index) for index in sorted(found)]

    def containing(self, address: int) -> tuple[Symbol, int] | None:
        """Return the symbol at or before ``address`` and the offset from it; ``None`` below the first symbol.

        Among several symbols of one address the first of the source is returned, as the kernel's own
        ``kallsyms_lookup`` does.
        """
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        start = self._addresses[index]
        return self._at(bisect_left(self._addresses, start)), address - start

    def aliases(self, address: int) -> list[Symbol]:
        """Return every symbol at exactly ``address``, in the order of the source."""
        first, end = bisect_left(self._addresses, address), bisect_right(self._addresses, address)
        return [self._at(index) for index in range(first, end)]

    def addresses(self, within: range) -> Sequence[int]:
        """Return the addresses of all symbols in a range, ascending; one for each symbol of an address."""
        return self._addresses[bisect_left(self._addresses, within.start) : bisect_left(self._addresses, within.stop)]

    def count_in(self, addresses: range) -> int:
        """Return how many symbols lie in a range of addresses."""
        return bisect_left(self._addresses, addresses.stop) - bisect_left(self._addresses, addresses.start)

    def next_address(self, address: int) -> int | None:
        """Return the lowest symbol address above ``address``, or ``None``."""
        index = bisect_right(self._addresses, address)
        return self._addresses[index] if index < len(self) else None

"""What every page-table format has in common: a geometry, and a walk over physical loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from yamori.address import GPA, GVA


class Loads(Protocol):
    """Aligned little-endian loads of guest physical memory: all that a walker may use.

    Every method raises ``MemoryFault`` for an address outside the guest's RAM.
    """

    def u32(self, gpa: GPA) -> int:
        """Load an aligned ``u32``."""

    def u64(self, gpa: GPA) -> int:
        """Load an aligned ``u64``."""


class Mapping(NamedTuple):
    """What a walk found.

    Attributes:
        gpa: Where the address lies in guest physical memory.
        page_size: Bytes that the leaf entry maps: a page, large page, section or block.
        writable: The kernel may write there.
        executable: The kernel may execute there.
        user: User mode may read there.
    """

    gpa: int
    page_size: int
    writable: bool
    executable: bool
    user: bool


class Geometry(Protocol):
    """How one guest has its page tables set up: a format, and the parameters that the format leaves open.

    A geometry is an immutable value: equal geometries walk alike.
    """

    @property
    def format(self) -> str:
        """The format's name, as in ``aarch64``."""

    @property
    def word_size(self) -> int:
        """Bytes of a pointer of the guest's kernel: 4 or 8."""

    @property
    def page_size(self) -> int:
        """Bytes of the smallest page: the granule."""

    @property
    def root_alignment(self) -> int:
        """A translation root is a multiple of this."""

    def describe(self) -> str:
        """Say it in one line, as in ``AArch64, 4K granule, 48-bit VA, 4 levels``."""

    def canonical(self, gva: GVA) -> bool:
        """Say whether the address can be a kernel address at all under this geometry."""

    def walk(self, loads: Loads, root: GPA, gva: GVA) -> Mapping:
        """Translate one address from the table at ``root``.

        The root is the GPA of the table's first entry, without the attribute bits of the register.
        The number of loads is bounded by the number of levels.

        Raises:
            TranslationFault: An entry on the way is not valid, reserved, or malformed.
            MemoryFault: An entry on the way lies outside the guest's RAM.
        """


class Format(Protocol):
    """A page-table format: one module of this room, which has these names at its top level."""

    NAME: str

    def geometries(self) -> Iterator[Geometry]:
        """Yield every geometry that a Linux kernel may have set up, the usual ones first."""

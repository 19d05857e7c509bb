"""What every page-table format has in common: a geometry, and a walk over physical loads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple, Protocol

from yamori.address import GPA, GVA
from yamori.llview import ahead, interpreter
from yamori.llview.ir import Program
from yamori.llview.language import Walker


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

    @property
    def walker(self) -> Walker:
        """The walk of this format, whose first two parameters are the root and the GVA."""

    @property
    def parameters(self) -> tuple[int, ...]:
        """The walker's further parameters, eight at most."""

    @property
    def kernel(self) -> tuple[int, int]:
        """First and last GVA of the kernel's part of the address space."""

    def describe(self) -> str:
        """Say it in one line, as in ``AArch64, 4K granule, 48-bit VA, 4 levels``."""

    def canonical(self, gva: GVA) -> bool:
        """Say whether the address can be a kernel address at all under this geometry."""

    def user_tables(self, loads: Loads, root: GPA, image: int) -> Iterator[tuple[int, int]]:
        """Yield GPA and bytes of whatever in and behind the table at ``root`` is empty where no program is mapped.

        Nothing, where the user's addresses have a root of their own.

        Args:
            loads: Physical loads.
            root: A root that maps the kernel.
            image: An address in the kernel's image, which tells how the address space is split.

        Raises:
            MemoryFault: A table lies outside the guest's RAM.
        """

    def walk(self, loads: Loads, root: GPA, gva: GVA) -> Mapping:
        """Translate one address from the table at ``root``.

        The root is the GPA of the table's first entry, without the attribute bits of the register. Where the halves of
        the address space have tables of their own, it is that of the address's half. The number of loads is bounded by
        the number of levels.

        Raises:
            TranslationFault: An entry on the way is not valid, reserved, or malformed.
            MemoryFault: An entry on the way lies outside the guest's RAM.
        """


class TableGeometry(ABC):
    """What all geometries do alike: they run their format's walker."""

    __slots__ = ()

    @property
    @abstractmethod
    def word_size(self) -> int:
        """Bytes of a pointer of the guest's kernel: 4 or 8."""

    @property
    @abstractmethod
    def walker(self) -> Walker:
        """The walk of this format."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[int, ...]:
        """The walker's further parameters."""

    @property
    @abstractmethod
    def kernel(self) -> tuple[int, int]:
        """First and last GVA of the kernel's part of the address space."""

    def canonical(self, gva: GVA) -> bool:
        """Say whether the address can be a kernel address at all under this geometry."""
        first, last = self.kernel
        return first <= gva <= last

    @abstractmethod
    def user_tables(self, loads: Loads, root: GPA, image: int) -> Iterator[tuple[int, int]]:
        """Yield what is empty where no program is mapped; see ``Geometry``."""

    def walk(self, loads: Loads, root: GPA, gva: GVA) -> Mapping:
        """Translate one address; see ``Geometry``."""
        walk, parameters = bound(self)
        return Mapping._make(walk(loads, root, gva, *parameters))


@cache
def program(walk: Walker, word_size: int) -> Program:
    """Return a walker's program for guests of a word size, verified: as built ahead, if it belongs to this room."""
    room, _, module = walk.function.__module__.rpartition(".")
    unit = ahead.built(word_size) if room == __package__ else None
    for made in unit.walkers if unit else ():
        if made.name == f"{module}_{walk.__name__}":
            return made
    from yamori.llview.frontend import compile_walker  # noqa: PLC0415  importing Yamori compiles nothing
    from yamori.llview.verify import verify  # noqa: PLC0415

    return verify(compile_walker(walk))


@cache
def compiled(walk: Walker, word_size: int) -> Callable[..., tuple[int, ...]]:
    """Return a walker as a function of ``(loads, root, gva, *parameters)``."""
    return interpreter.walker(program(walk, word_size))


@cache
def bound(geometry: TableGeometry) -> tuple[Callable[..., tuple[int, ...]], tuple[int, ...]]:
    """Return a geometry's walk and parameters: discovery walks often, and working them out costs as much as a load."""
    return compiled(geometry.walker, geometry.word_size), geometry.parameters


class Format(Protocol):
    """A page-table format: one module of this room, which has these names at its top level."""

    NAME: str

    def geometries(self) -> Iterator[Geometry]:
        """Yield every geometry that a Linux kernel may have set up, the usual ones first."""

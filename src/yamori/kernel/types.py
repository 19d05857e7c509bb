"""What is known of the kernel's types, from whichever source knows it."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, runtime_checkable

Provenance = Literal["dwarf", "btf", "isf", "inferred", "kallsyms", "system.map", "vmcoreinfo", "memory"]
"""Where a fact was learnt: given by the maker (``dwarf``, ``system.map``, ``isf``), written by the kernel itself into
its memory (``btf``, ``kallsyms``, ``vmcoreinfo``), or found by us (``inferred``, ``memory``)."""


class Member(NamedTuple):
    """Where a member lies in its structure.

    Attributes:
        offset: Bytes from the start of the outermost structure; for a bit-field, of its storage unit.
        size: Bytes of the member, or of a bit-field's storage unit.
        signed: Whether the integer is signed.
        shift: For a bit-field, the lowest bit within the storage unit (little endian); otherwise 0.
        bits: For a bit-field, its width; otherwise 0.
        stride: For an array, bytes from one element to the next; otherwise 0.
        provenance: Where this was learnt.
    """

    offset: int
    size: int
    signed: bool = False
    shift: int = 0
    bits: int = 0
    stride: int = 0
    provenance: Provenance = "inferred"


class Types(Protocol):
    """A source of structure layouts."""

    provenance: Provenance

    def member(self, struct: str, path: str) -> Member | None:
        """Return where ``path`` (``"mm"``, ``"se.exec_start"``) lies in a struct, union or typedef of one.

        Members of anonymous structures and unions are found as in C. ``None`` where this source does not know.
        """

    def size(self, struct: str) -> int | None:
        """Return ``sizeof(struct NAME)``, or ``None`` where this source does not know."""


CKind = Literal[
    "void", "integer", "char", "bool", "float", "enum", "pointer", "array", "struct", "union", "function", "incomplete"
]
"""What a C type is behind its typedefs; ``incomplete`` is declared and nowhere defined, or not understood."""


class CType(NamedTuple):
    """A C type, as a ``TypeGraph`` has it.

    Attributes:
        kind: What it is.
        name: How C writes it: ``struct mm_struct``, ``pid_t``, ``char [16]``, ``void (*)(struct file *)``.
        size: Bytes; 0 where that is not known.
        signed: Whether an integer or enumeration is signed.
        length: Elements of an array; 0 for a flexible one.
        tag: By which name layouts know a structure or union; empty where it has none.
        id: The graph's own.
        stars: How many pointers lead to what ``id`` names.
    """

    kind: CKind
    name: str
    size: int = 0
    signed: bool = False
    length: int = 0
    tag: str = ""
    id: int = 0
    stars: int = 0


class Field(NamedTuple):
    """A member of a structure or union.

    Attributes:
        type: Its type.
        member: Where it lies.
    """

    type: CType
    member: Member


class TypeGraph(Protocol):
    """What types are made of, from a source that knows all of it. The source may be the guest's own word."""

    def find(self, name: str) -> CType | None:
        """Return a type as C writes it: ``struct mm_struct``, ``pid_t``, ``unsigned long``, ``char *``.

        A structure, union or enumeration is found by its bare name, too. ``None`` where there is none.
        """

    def target(self, kind: CType) -> CType:
        """Return what a pointer points to, or what an array's elements are."""

    def members(self, kind: CType) -> list[str]:
        """Return the names of a structure's or union's members, in the order of C.

        Those of anonymous structures and unions are among them, as in C. Only names that C could have are, and no more
        than ``MOST_MEMBERS``.
        """

    def field(self, kind: CType, name: str) -> Field | None:
        """Return a member of a structure or union; ``None`` where it has none of that name."""

    def enumerator_name(self, kind: CType, value: int) -> str | None:
        """Return the name of an enumeration's value; ``None`` where it has none."""

    def variable(self, name: str) -> CType | None:
        """Return the type of a global variable or function; ``None`` where that is not known."""

    def is_percpu(self, name: str) -> bool:
        """Say whether each CPU has its own copy of a variable."""


@runtime_checkable
class Described(Protocol):
    """A source of layouts that knows more than those."""

    @property
    def graph(self) -> TypeGraph:
        """What the types are made of."""


MOST_MEMBERS = 1 << 13
"""More members than any structure of the kernel has: what is beyond is not looked at."""

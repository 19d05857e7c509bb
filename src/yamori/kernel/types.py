"""What is known of the kernel's types, from whichever source knows it."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

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

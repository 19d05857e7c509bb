"""A guest's kernel as probes see it: its structures, read through its own page tables."""

from __future__ import annotations

from functools import cached_property

from yamori.address import GPA, GVA
from yamori.errors import Fault, YamoriError
from yamori.kernel.binding import bind
from yamori.kernel.profile import Profile
from yamori.kernel.types import Member
from yamori.llview.ir import Program
from yamori.llview.machine import Machine, SlotFill
from yamori.memory.physical import PhysicalMemory
from yamori.translation.machine import machine
from yamori.translation.space import AddressSpace

MOST_TROUBLES = 100
MOST_TEXT = 4096
"""The most of a ``char`` array that is read: its size may be the guest's own word (BTF)."""


class Struct:
    """A structure in guest memory: an address and a type, loaded member by member.

    Args:
        kernel: Whose it is.
        name: The C structure's name.
        gva: Its address.
    """

    __slots__ = ("gva", "kernel", "name")

    def __init__(self, kernel: Kernel, name: str, gva: int) -> None:
        self.kernel = kernel
        self.name = name
        self.gva = gva

    def __repr__(self) -> str:
        return f"(struct {self.name} *){self.gva:#x}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Struct) and (self.name, self.gva) == (other.name, other.gva)

    def __hash__(self) -> int:
        return hash((self.name, self.gva))

    def address(self, path: str) -> GVA:
        """Return the address of the member."""
        return GVA(self.gva + self.kernel.member(self.name, path).offset)

    def load(self, *paths: str) -> int:
        """Load an integer or pointer: the first of ``paths`` that this kernel has.

        Raises:
            ProfileError: Where the member lies is not known.
            Fault: The guest's memory cannot be read there.
        """
        return self.kernel.load(self.gva, self.kernel.member(self.name, *paths))

    def follow(self, path: str, name: str) -> Struct | None:
        """Return the ``struct name`` that the member points to; ``None`` for NULL."""
        gva = self.load(path)
        return Struct(self.kernel, name, gva) if gva else None

    def text(self, path: str) -> bytes:
        """Load a ``char`` array up to its NUL."""
        member = self.kernel.member(self.name, path)
        size = min(member.size, MOST_TEXT)
        return self.kernel.space.read(GVA(self.gva + member.offset), size).partition(b"\0")[0]


class Kernel:
    """One guest's kernel.

    Args:
        memory: The guest's RAM.
        profile: What is known of the kernel.

    Attributes:
        space: Kernel addresses, translated by the kernel's own root.
        troubles: What went wrong in the present run, one sentence each; empty when the rows are complete.
        notes: What a reader of the present run's rows should know though they are complete.
    """

    def __init__(self, memory: PhysicalMemory, profile: Profile) -> None:
        self.memory = memory
        self.profile = profile
        self.space = AddressSpace(memory, profile.root.geometry, GPA(profile.root.gpa))
        self.troubles: list[str] = []
        self.notes: list[str] = []
        self._bound: dict[int, tuple[Program, list[SlotFill]]] = {}
        self._members: dict[tuple[str, tuple[str, ...]], Member] = {}
        space = self.space
        self._unsigned = {1: space.u8, 2: space.u16, 4: space.u32, 8: space.u64}

    def note(self, what: str) -> None:
        """Note something that a reader of the present run's rows should know."""
        if len(self.notes) < MOST_TROUBLES:
            self.notes.append(what)

    def begin(self) -> None:
        """Start a new run: forget cached translations and counters, so that nothing stale is believed."""
        self.space.clear()
        self.space.loads = self.space.faults = 0
        self.troubles.clear()
        self.notes.clear()

    def trouble(self, what: str | YamoriError) -> None:
        """Note that the present run's rows are not complete, and why."""
        if len(self.troubles) < MOST_TROUBLES:
            self.troubles.append(str(what))

    def member(self, struct: str, *paths: str) -> Member:
        """Return where the first of ``paths`` that exists lies in ``struct`` (remembered)."""
        key = struct, paths
        member = self._members.get(key)
        if member is None:
            member = self._members[key] = self.profile.require(struct, *paths)
        return member

    def knows(self, struct: str, *paths: str) -> bool:
        """Say whether it is known where one of ``paths`` lies in ``struct``."""
        return any(self.profile.member(struct, path) for path in paths)

    def load(self, gva: int, member: Member) -> int:
        """Load the integer or pointer ``member`` of the structure at ``gva``."""
        load = self._unsigned.get(member.size)
        if load is None:
            raise Fault(f"a member of {member.size} bytes is not an integer")
        value = load(GVA(gva + member.offset))
        width = member.size * 8
        if member.bits:
            value = value >> member.shift & (1 << member.bits) - 1
            width = member.bits
        return value - (1 << width) if member.signed and value >> (width - 1) else value

    def struct(self, name: str, gva: int) -> Struct:
        """Return the ``struct name`` at ``gva``."""
        return Struct(self, name, gva)

    def user_space(self, mm: Struct) -> AddressSpace:
        """Return what a program sees: its ``mm_struct``'s own table, ``mm->pgd``.

        Raises:
            Fault: The table cannot be found.
        """
        root = self.space.translate(GVA(mm.load("pgd"))).gpa
        return AddressSpace(self.memory, self.profile.root.geometry, GPA(root), user=True)

    def bind(self, program: Program) -> list[SlotFill]:
        """Return a program's slots, filled from the profile (remembered).

        Raises:
            ProfileError: Something that it needs is not known of this kernel.
        """
        known = self._bound.get(id(program))
        if known is None:
            known = self._bound[id(program)] = program, bind(program, self.profile)  # kept: its id stays its own
        return known[1]

    @cached_property
    def machine(self) -> Machine:
        """The guest as probes see it."""
        root = self.profile.root
        return machine(self.memory, root.geometry, GPA(root.gpa))

    @cached_property
    def init_task(self) -> Struct:
        """The first task of all."""
        return Struct(self, "task_struct", self.profile.init.gva)

    def pointer(self, gva: int) -> int:
        """Load a pointer."""
        return self.space.pointer(GVA(gva))

    def is_pointer(self, value: int) -> bool:
        """Say whether ``value`` can be an aligned kernel address."""
        return value % self.profile.init.word_size == 0 and self.space.geometry.canonical(GVA(value))

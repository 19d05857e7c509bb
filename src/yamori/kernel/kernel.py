"""A guest's kernel: its memory, what is known of it, and both as probes need them."""

from __future__ import annotations

from functools import cached_property

from yamori.address import GPA, GVA
from yamori.errors import YamoriError
from yamori.kernel.binding import bind
from yamori.kernel.image import kept
from yamori.kernel.profile import Profile
from yamori.llview.ir import Program
from yamori.llview.machine import Machine, SlotFill
from yamori.memory.physical import PhysicalMemory, forget
from yamori.translation.machine import machine
from yamori.translation.space import AddressSpace

MOST_TROUBLES = 100


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

    def note(self, what: str) -> None:
        """Note something that a reader of the present run's rows should know."""
        if len(self.notes) < MOST_TROUBLES:
            self.notes.append(what)

    def begin(self) -> None:
        """Start a new run: forget cached translations and counters, so that nothing stale is believed."""
        self.space.clear()
        forget(self.memory)
        self.space.loads = self.space.faults = 0
        self.troubles.clear()
        self.notes.clear()

    def trouble(self, what: str | YamoriError) -> None:
        """Note that the present run's rows are not complete, and why."""
        if len(self.troubles) < MOST_TROUBLES:
            self.troubles.append(str(what))

    def user_space(self, pgd: GVA) -> AddressSpace:
        """Return what a program sees through its own table.

        Args:
            pgd: The value of ``mm_struct.pgd``.

        Raises:
            Fault: The table cannot be found.
        """
        root = self.space.translate(pgd).gpa
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
    def image(self) -> tuple[range, ...]:
        """What of the kernel's image stays the kernel's, as GVAs; empty where nothing tells."""
        return kept(self.memory, self.profile)

    @cached_property
    def machine(self) -> Machine:
        """The guest as probes see it."""
        root = self.profile.root
        return machine(self.memory, root.geometry, GPA(root.gpa))

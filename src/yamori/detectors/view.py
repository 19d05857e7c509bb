"""What detectors look at: a guest's rows, each read once for all of them, and whose an address is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TypeVar

from yamori.address import GVA
from yamori.detectors.baseline import Baseline
from yamori.errors import Fault, ProfileError
from yamori.kernel.kernel import Kernel
from yamori.kernel.profile import Profile
from yamori.kernel.sample import Reader
from yamori.probes.bpf import bpf
from yamori.probes.maps import maps
from yamori.probes.modules import modules
from yamori.probes.plist import plist
from yamori.probes.programs import programs
from yamori.probes.sockets import sockets
from yamori.probes.syscall import syscall
from yamori.records import BpfProgram, Mapping, Module, Process, Program, Result, Row, Socket, SystemCall

R = TypeVar("R", bound=Row)


class View:
    """One look at a guest.

    Args:
        kernel: The guest's kernel.
        baseline: What the device is meant to run.

    Attributes:
        lacks: Why what was asked for is not all there is, one sentence each; the detector that asked clears it.
    """

    def __init__(self, kernel: Kernel, baseline: Baseline | None = None) -> None:
        self.kernel = kernel
        self.baseline = baseline
        self.lacks: list[str] = []

    @property
    def profile(self) -> Profile:
        """What is known of the guest's kernel."""
        return self.kernel.profile

    def processes(self) -> Sequence[Process]:
        """Return the rows of ``plist``."""
        return self._rows(self._processes)

    def programs(self) -> Sequence[Program]:
        """Return the processes with their executables.

        Raises:
            ProfileError: It is not known where the kernel keeps them.
        """
        return self._rows(self._programs)

    def mappings(self) -> Sequence[Mapping]:
        """Return what processes have mapped.

        Raises:
            ProfileError: It is not known where the kernel keeps it.
        """
        return self._rows(self._mappings)

    def modules(self) -> Sequence[Module]:
        """Return the kernel's list of modules.

        Raises:
            ProfileError: It is not known how modules are laid out.
        """
        return self._rows(self._modules)

    def calls(self) -> Sequence[SystemCall]:
        """Return the native system-call table.

        Raises:
            ProfileError: It is not known where it lies.
        """
        return self._rows(self._calls)

    def sockets(self) -> Sequence[Socket]:
        """Return the sockets that processes hold.

        Raises:
            ProfileError: It is not known how sockets are laid out.
        """
        return self._rows(self._sockets)

    def bpf(self) -> Sequence[BpfProgram]:
        """Return the BPF programs.

        Raises:
            ProfileError: It is not known where the kernel keeps them.
        """
        return self._rows(self._bpf)

    def _rows(self, result: Result[R]) -> Sequence[R]:
        self.lacks += result.reasons
        return result.rows

    @cached_property
    def _processes(self) -> Result[Process]:
        return plist(self.kernel)

    @cached_property
    def _programs(self) -> Result[Program]:
        return programs(self.kernel)

    @cached_property
    def _mappings(self) -> Result[Mapping]:
        return maps(self.kernel)

    @cached_property
    def _modules(self) -> Result[Module]:
        return modules(self.kernel)

    @cached_property
    def _sockets(self) -> Result[Socket]:
        return sockets(self.kernel)

    @cached_property
    def _bpf(self) -> Result[BpfProgram]:
        return bpf(self.kernel)

    @cached_property
    def _calls(self) -> Result[SystemCall]:
        return syscall(self.kernel)

    def reader(self) -> Reader:
        """Return what reads objects and pointers without raising."""
        return Reader(self.kernel.space, self.profile.init)

    def pointer(self, struct: str, member: str, address: int) -> int | None:
        """Return the pointer that a member of a structure is; ``None`` where it cannot be read.

        Raises:
            ProfileError: It is not known where the member lies.
        """
        return self.reader().pointer(address + self.profile.require(struct, member).offset)

    def number(self, struct: str, member: str, address: int) -> int | None:
        """Return the number that a member of a structure is, as ``pointer`` does."""
        known = self.profile.require(struct, member)
        raw = self.reader().read(address + known.offset, known.size)
        return None if raw is None else int.from_bytes(raw, "little", signed=known.signed)

    def module_of(self, address: int) -> Module | None:
        """Return the module whose code, or data where these are not told apart, is at an address.

        Who concludes something from ``None`` asks ``modules`` before, for whether the list is whole.

        Raises:
            ProfileError: As ``modules``.
        """
        sized = (one for one in self._modules.rows if one.base is not None and one.code is not None)
        return next((one for one in sized if (one.base or 0) <= address < (one.base or 0) + (one.code or 0)), None)

    def owner(self, address: int) -> str:
        """Say whose an address is, in words: a symbol of the kernel, a module, or nobody's that is known."""
        if self.profile.in_text(address):
            found = self.profile.symbol_at(address)
            return f"{found[0]}+{found[1]:#x} of the kernel" if found else "the kernel's text"
        try:
            module = self.module_of(address)
        except ProfileError:
            module = None
        return f"module {module.name}" if module else "nothing that the kernel lists"

    def named(self, *names: str) -> set[int | None]:
        """Return the addresses of those symbols that the kernel has."""
        return {self.profile.address(name) for name in names} - {None}

    def linear(self) -> range:
        """Return the GVAs of the map of all RAM: that which tasks lie in; empty where there is no task.

        On 32-bit Arm the kernel's image is in it, too.
        """
        regions = self.kernel.memory.regions
        for row in self.processes():
            try:
                offset = row.task - self.kernel.space.translate(GVA(row.task)).gpa
            except Fault:
                continue
            return range(regions[0].gpa + offset, regions[-1].end + offset)
        return range(0)

    def executable(self, address: int) -> bool:
        """Say whether the kernel can run what is at an address."""
        if not self.profile.root.geometry.canonical(GVA(address)):
            return False
        try:
            return self.kernel.space.translate(GVA(address)).executable
        except Fault:
            return False

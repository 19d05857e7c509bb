"""Members whose places the kernel's own code confirms: functions that use them, and what they are given.

Inference learns layouts from what lies in memory, BTF from what the kernel says. That a function's machine code uses
the very same offsets (``yamori.kernel.code``) owes nothing to either. The functions and what they use of their
arguments have been the same from Linux 3.10 to 7.2, but for their names, in so far as a kernel has them; a compiler may
have put one into another, so that *not* to find an offset says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from yamori.kernel.code import Code, Path
from yamori.kernel.deferred import Place
from yamori.kernel.symbols import Symbols
from yamori.kernel.types import Member
from yamori.translation.space import AddressSpace

SYSTEM_CALLS = ("sys_{}", "__se_sys_{}", "__do_sys_{}", "__arm64_sys_{}", "__riscv_sys_{}", "__x64_sys_{}", "ksys_{}")
"""Names of the functions that system calls are: plain before 4.17 and on 32-bit Arm, with ``struct pt_regs`` since."""

MOST_PATHS = 32
"""Paths of a function that is still believed: one that uses a hundred members confirms any offset."""

USUAL_SIZE = 512
"""Bytes that are read of a function behind which no symbol is."""

NARROW = 4
"""Bytes of a member of which a compiler may load a part: ``flags & PF_KTHREAD`` is a bit of one byte."""


class Witness(NamedTuple):
    """A member, and who uses it.

    Attributes:
        chain: The members on the way from what the functions are given, the one in question last.
        functions: Their names.
    """

    chain: tuple[Place, ...]
    functions: tuple[str, ...]


def _witness(chain: str, functions: str) -> Witness:
    places = (tuple(member.split(".", 1)) for member in chain.split(" > "))
    return Witness(tuple((struct, path) for struct, path in places), tuple(functions.split()))


WITNESSES = (
    _witness("task_struct.mm", "get_task_mm"),
    _witness("task_struct.flags", "get_task_mm"),
    _witness("task_struct.real_cred", "get_task_cred exit_creds"),
    _witness("task_struct.cred", "sys_getuid sys_geteuid sys_getgid"),
    _witness("task_struct.cred > cred.uid", "sys_getuid"),
    _witness("task_struct.cred > cred.gid", "sys_getgid"),
    _witness("task_struct.cred > cred.suid", "sys_getresuid"),
    _witness("task_struct.cred > cred.sgid", "sys_getresgid"),
    _witness("task_struct.cred > cred.euid", "sys_geteuid"),
    _witness("task_struct.cred > cred.egid", "sys_getegid"),
    _witness("task_struct.real_parent", "sys_getppid"),
    _witness("task_struct.parent", "do_notify_parent"),
    _witness("task_struct.group_leader", "sys_setsid"),
    _witness("task_struct.pid", "proc_exit_connector proc_fork_connector sched_show_task"),
    _witness("task_struct.tgid", "proc_exit_connector proc_fork_connector"),
    _witness("task_struct.comm", "__set_task_comm __get_task_comm"),
    _witness("task_struct.__state", "get_wchan try_to_wake_up wait_task_inactive"),
    _witness("task_struct.state", "get_wchan try_to_wake_up wait_task_inactive"),
    _witness("task_struct.stack", "sched_show_task __get_wchan get_wchan"),
    _witness("task_struct.exit_state", "do_notify_parent"),
    _witness("task_struct.exit_code", "proc_exit_connector do_notify_parent"),
    _witness("task_struct.exit_signal", "proc_exit_connector"),
    _witness("task_struct.signal", "thread_group_cputime do_notify_parent"),
    _witness("task_struct.signal > signal_struct.thread_head", "thread_group_cputime"),
    _witness("mm_struct.pgd", "__mmdrop"),
    _witness("mm_struct.exe_file", "get_mm_exe_file set_mm_exe_file"),
    _witness("mm_struct.arg_start", "get_cmdline"),
    _witness("mm_struct.arg_end", "get_cmdline"),
    _witness("mm_struct.env_start", "get_cmdline"),
    _witness("mm_struct.env_end", "get_cmdline"),
    _witness("file.f_path.mnt", "file_path"),
    _witness("dentry.d_parent", "dget_parent"),
    _witness("dentry.d_name.name", "take_dentry_name_snapshot"),
)


def testimony(
    space: AddressSpace, architecture: str, symbols: Symbols, known: Callable[[str, str], Member | None]
) -> dict[Place, str]:
    """Return the members that the kernel's code confirms, with the function that does.

    Args:
        space: The kernel's address space.
        architecture: As ``Profile.architecture`` names it.
        symbols: Where functions lie.
        known: Where members are thought to lie.

    Raises:
        ProfileError: capstone is not installed.
    """
    # A 32-bit Arm kernel is of one instruction set, but for its entries; read as the other it confirms nothing.
    readings = ("arm", "thumb") if architecture == "arm" else (architecture,)
    confirmed = (_Reader(Code(space, reading), symbols).confirmed(known) for reading in readings)
    return max(confirmed, key=len)


class _Reader:
    def __init__(self, code: Code, symbols: Symbols) -> None:
        self._code = code
        self._symbols = symbols
        self._paths: dict[str, frozenset[Path]] = {}

    def confirmed(self, known: Callable[[str, str], Member | None]) -> dict[Place, str]:
        found = {}
        for witness in WITNESSES:
            members = [known(struct, path) for struct, path in witness.chain]
            whole = [member for member in members if member]
            if len(whole) == len(members) and (function := self._who_uses(witness, whole)):
                found[witness.chain[-1]] = function
        return found

    def _who_uses(self, witness: Witness, members: list[Member]) -> str | None:
        """Return the first function that uses the last member, by way of the others."""
        *way, last = members
        width = last.size if last.size <= NARROW else 1
        wanted = {(*(member.offset for member in way), last.offset + at) for at in range(width)}
        return next((name for name in _spelt(witness.functions) if not wanted.isdisjoint(self._used(name))), None)

    def _used(self, name: str) -> frozenset[Path]:
        if name not in self._paths:
            # The compiler puts what is hardly ever reached into a function of its own.
            paths = self._code.paths(*(part for half in (name, f"{name}.cold") if (part := self._text(half))))
            self._paths[name] = paths if len(paths) <= MOST_PATHS else frozenset()
        return self._paths[name]

    def _text(self, name: str) -> range | None:
        start = self._symbols.address(name)
        if start is None:
            return None
        return range(start, self._symbols.next_address(start) or start + USUAL_SIZE)


def _spelt(functions: tuple[str, ...]) -> Iterator[str]:
    for name in functions:
        bare = name.removeprefix("sys_")
        yield from (name,) if bare == name else (form.format(bare) for form in SYSTEM_CALLS)

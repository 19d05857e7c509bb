"""Members whose places the kernel's own code confirms: functions that use them, and what they are given.

Inference learns layouts from what lies in memory, BTF from what the kernel says. That a function's machine code uses
the very same offsets (``yamori.kernel.code``) owes nothing to either. The functions and what they use of their
arguments have been the same from Linux 3.10 to 7.2, but for their names, in so far as a kernel has them; a compiler may
have put one into another, so that *not* to find an offset says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from yamori.kernel.deferred import Place
from yamori.kernel.functions import Functions
from yamori.kernel.symbols import Symbols
from yamori.kernel.types import Member
from yamori.translation.space import AddressSpace

SYSTEM_CALLS = ("sys_{}", "__se_sys_{}", "__do_sys_{}", "__arm64_sys_{}", "__riscv_sys_{}", "__x64_sys_{}", "ksys_{}")
"""Names of the functions that system calls are: plain before 4.17 and on 32-bit Arm, with ``struct pt_regs`` since."""

MOST_PATHS = 32
"""Paths of a function that is still believed: one that uses a hundred members confirms any offset."""

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
    space: AddressSpace, architecture: str, symbols: Sequence[Symbols], known: Callable[[str, str], Member | None]
) -> dict[Place, str]:
    """Return the members that the kernel's code confirms, with the function that does.

    Args:
        space: The kernel's address space.
        architecture: As ``Profile.architecture`` names it.
        symbols: Every source of symbols, the most trusted first.
        known: Where members are thought to lie.

    Raises:
        ProfileError: capstone is not installed.
    """
    functions = Functions(space, architecture, symbols)
    found = {}
    for witness in WITNESSES:
        members = [known(struct, path) for struct, path in witness.chain]
        whole = [member for member in members if member]
        if len(whole) == len(members) and (function := _who_uses(functions, witness, whole)):
            found[witness.chain[-1]] = function
    return found


def _who_uses(functions: Functions, witness: Witness, members: list[Member]) -> str | None:
    """Return the first function that uses the last member, by way of the others."""
    *way, last = members
    width = last.size if last.size <= NARROW else 1
    wanted = {(*(member.offset for member in way), last.offset + at) for at in range(width)}
    for name in _spelt(witness.functions):
        paths = functions.paths(name)
        if len(paths) <= MOST_PATHS and not wanted.isdisjoint(paths):
            return name
    return None


def _spelt(functions: tuple[str, ...]) -> Iterator[str]:
    for name in functions:
        bare = name.removeprefix("sys_")
        yield from (name,) if bare == name else (form.format(bare) for form in SYSTEM_CALLS)

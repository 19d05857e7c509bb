"""Addresses of the kernel's variables that no symbol names, from the code of functions that use them.

Most kernels of devices name their functions only (no CONFIG_KALLSYMS_ALL), Debian's for Arm among them. But
``get_kprobe`` reads ``kprobe_table``, so the table's address stands in its code (``yamori.kernel.code``). Of the
addresses that each function named here uses, those count that lie in data, which the kernel may write, and that hold
what such a variable must hold. A function that uses none of these is of another version; if what the others have in
common is not exactly one, the variable is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from yamori.address import GVA
from yamori.errors import Fault, ProfileError
from yamori.kernel.deferred import Finder, Found
from yamori.kernel.functions import Functions
from yamori.kernel.init_task import InitTask
from yamori.kernel.sample import Reader
from yamori.translation.space import AddressSpace

KPROBE_TABLE = 64
"""``KPROBE_TABLE_SIZE`` of ``kernel/kprobes.c`` since 2.6."""

LEAST_CALLS = 32
"""First entries of a system-call table that are all used, on every architecture."""

MOST_OPERATIONS = 12
"""Functions of ``struct vm_operations_struct``, at least."""

LEGACY = 2
"""Functions of ``legacy_special_mapping_vmops``: ``close`` and ``fault``."""

LONGEST_TEXT = 256
"""Bytes of ``modprobe_path`` (``KMOD_PATH_LEN``); ``core_pattern`` has half of that."""

LONGEST_LOCK = 32
"""Bytes of a ``spinlock_t`` without debugging."""

ROOT_IS_IDR = 4
"""Of ``xa_flags``, and one mark more above the flags of allocation (``IDR_RT_MARKER`` of ``include/linux/idr.h``)."""

_PATH = re.compile(rb"\|?/[\x20-\x7e]*\0")
_PATTERN = re.compile(rb"[\x20-\x7e]+\0")

Test = Callable[["_Memory", int], bool]


class _Memory:
    """What variables are told by.

    Args:
        space: The kernel's address space.
        init: ``init_task``.
    """

    def __init__(self, space: AddressSpace, init: InitTask) -> None:
        self.space = space
        self.reader = Reader(space, init)
        self.word = init.word_size

    def is_data(self, address: int, *, constant: bool = False) -> bool:
        """Say whether the kernel may write there, or only read it (``constant``), and not execute."""
        try:
            mapping = self.space.translate(GVA(address))
        except Fault:
            return False
        return (constant or mapping.writable) and not mapping.executable

    def is_code(self, address: int) -> bool:
        """Say whether the kernel may execute what lies there."""
        try:
            return self.space.translate(GVA(address)).executable
        except Fault:
            return False

    def is_list(self, head: int) -> bool:
        """Say whether a ``list_head`` is there whose neighbours link back."""
        after, before = self.reader.pointer(head), self.reader.pointer(head + self.word)
        if after is None or before is None:
            return False
        return self.reader.pointer(after + self.word) == head == self.reader.pointer(before)

    def is_text(self, address: int, pattern: re.Pattern[bytes]) -> bool:
        """Say whether a text starts there, of which the functions may use a later part, too."""
        found = self.reader.read(address - 1, 1 + LONGEST_TEXT)
        return found is not None and pattern.match(found, 1) is not None and not 0x20 <= found[0] <= 0x7E

    def is_kprobe_table(self, address: int) -> bool:
        """Say whether an array of ``hlist_head`` is there whose first entries link back."""
        slots = range(address, address + KPROBE_TABLE * self.word, self.word)
        firsts = [(slot, self.reader.pointer(slot)) for slot in slots]
        return all(first is not None for _, first in firsts) and all(
            self.reader.pointer(first + self.word) == slot for slot, first in firsts if first
        )

    def is_table(self, address: int) -> bool:
        """Say whether the first words of an array lead to code: a system-call table has no holes there."""
        words = [self.reader.pointer(address + at * self.word) for at in range(LEAST_CALLS)]
        return all(word and self.is_code(word) for word in words)

    def is_operations(self, address: int) -> bool:
        """Say whether a structure of some functions is there, and of NULL; its neighbour has two (``legacy``)."""
        words = [self.reader.pointer(address + at * self.word) for at in range(MOST_OPERATIONS)]
        known = [word for word in words if word]
        return len(known) > LEGACY and None not in words and all(map(self.is_code, known))

    def leads_to_data(self, address: int) -> bool:
        """Say whether a pointer to what is no code is there."""
        pointer = self.reader.pointer(address)
        return bool(pointer) and self.is_data(pointer or 0)

    def leads_to_list(self, address: int) -> bool:
        """Say whether a pointer to a ``list_head`` is there: to a ``kset``, which begins with one."""
        pointer = self.reader.pointer(address)
        return bool(pointer) and self.is_list(pointer or 0)

    def is_idr(self, address: int) -> bool:
        """Say whether a ``struct idr`` is there: a lock, of 32 bits or, with PREEMPT_RT, of a mutex, and flags."""
        found = self.reader.read(address, LONGEST_LOCK + 4) or b""
        words = (int.from_bytes(found[at : at + 4], "little") for at in range(4, len(found), 4))
        return any(word & 0xFFFF == ROOT_IS_IDR and (word >> 16).bit_count() == 1 for word in words)


class Variable(NamedTuple):
    """A variable, and how it is told.

    Attributes:
        name: Its name.
        functions: Those that use it, on some kernels or on all.
        test: Whether it can lie at an address.
        constant: Whether the kernel may be unable to write there.
    """

    name: str
    functions: tuple[str, ...]
    test: Test
    constant: bool = False


VARIABLES = (
    Variable("modules", ("print_modules", "module_kallsyms_on_each_symbol"), _Memory.is_list),
    Variable("module_kset", ("module_add_driver", "lookup_or_create_module_kobject"), _Memory.leads_to_list),
    Variable("modprobe_path", ("__request_module",), partial(_Memory.is_text, pattern=_PATH)),
    Variable(
        "core_pattern", ("do_coredump", "vfs_coredump", "coredump_parse"), partial(_Memory.is_text, pattern=_PATTERN)
    ),
    Variable("uevent_helper", ("kobject_uevent_env",), partial(_Memory.is_text, pattern=_PATH)),
    Variable("poweroff_cmd", ("poweroff_work_func",), partial(_Memory.is_text, pattern=_PATH)),
    Variable("kprobe_table", ("get_kprobe",), _Memory.is_kprobe_table),
    Variable("ftrace_ops_list", ("arch_ftrace_ops_list_func", "ftrace_ops_trampoline"), _Memory.leads_to_data),
    Variable("sys_call_table", ("do_el0_svc", "el0_svc_handler", "do_syscall_64"), _Memory.is_table, constant=True),
    Variable("compat_sys_call_table", ("do_el0_svc_compat", "el0_svc_compat_handler"), _Memory.is_table, constant=True),
    Variable("special_mapping_vmops", ("_install_special_mapping",), _Memory.is_operations, constant=True),
    Variable("prog_idr", ("bpf_prog_get_curr_or_next", "bpf_prog_free_id"), _Memory.is_idr),
    Variable("map_idr", ("bpf_map_get_curr_or_next", "bpf_map_free_id"), _Memory.is_idr),
    Variable("bpf_kallsyms", ("bpf_get_kallsym",), _Memory.is_list),
    Variable("link_idr", ("bpf_link_by_id", "bpf_link_free"), _Memory.is_idr),
)


class Variables:
    """Finds them, each when it is asked for.

    Args:
        space: The kernel's address space.
        init: ``init_task``.
        functions: The kernel's functions.
    """

    def __init__(self, space: AddressSpace, init: InitTask, functions: Functions) -> None:
        self._memory = _Memory(space, init)
        self._functions = functions

    def finders(self) -> list[Finder]:
        """Return what finds the variables, one each."""
        return [Finder((), (one.name,), partial(self._find, one)) for one in VARIABLES]

    def address(self, name: str) -> int | None:
        """Return the GVA of one of the variables; ``None`` where it is not known."""
        return next((self._find(one).addresses.get(name) for one in VARIABLES if one.name == name), None)

    def _find(self, variable: Variable) -> Found:
        found = Found({}, {}, {})
        try:
            used = [used for name in variable.functions if (used := self._functions.addresses(name))]
        except ProfileError as error:
            found.unknown[variable.name] = str(error)
            return found
        if not used:
            return found  # this kernel has no such variable, or names no function that uses it
        fitting = [fits for one in used if (fits := frozenset(self._fitting(variable, one)))]
        common = frozenset[int].intersection(*fitting) if fitting else frozenset()
        if len(common) == 1:
            found.addresses[variable.name] = next(iter(common))
        else:
            found.unknown[variable.name] = f"{len(common)} of the addresses that functions use fit"
        return found

    def _fitting(self, variable: Variable, used: frozenset[int]) -> Iterator[int]:
        """Yield the addresses at which a variable may lie."""
        for address in used:
            if self._memory.is_data(address, constant=variable.constant) and variable.test(self._memory, address):
                yield address

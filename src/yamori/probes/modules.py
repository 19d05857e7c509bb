"""``ids modules``: the modules that the kernel's own list holds, in the order of ``/proc/modules``.

``m_show`` of ``kernel/module/procfs.c`` (``kernel/module.c`` before 5.19): the size is that of all memory that a module
keeps, the address that of its code.
"""

from __future__ import annotations

from yamori.kernel.kernel import Kernel as KernelView
from yamori.llview.language import (
    Array,
    CharArray,
    Kernel,
    Struct,
    address_of,
    attempt,
    emit,
    exists,
    helper,
    named,
    probe,
    trouble,
    u8,
    u32,
    u64,
    ulong,
)
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.probes.run import run_probe
from yamori.records import Module, Result

WITHOUT = "this kernel has no support for modules"
NOT_FOUND = "no list of modules was found: it has no symbol here, and perhaps nothing on it"

KEPT = 4
"""``MOD_TEXT``, ``MOD_DATA``, ``MOD_RODATA``, ``MOD_RO_AFTER_INIT``; the rest is freed once a module is live."""

LIVE, COMING, GOING = range(3)  # enum module_state, include/linux/module.h
L, C, G, U = (ord(letter) for letter in "LCGU")


class module_memory(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/linux/module.h``, since 6.4 (ac3b43283923)."""

    base: ulong
    size: u32


class module(Struct):  # noqa: N801
    """``include/linux/module.h``."""

    state: u32
    list: list_head
    name: CharArray
    mem: Array[module_memory]
    layout_base: ulong = named("core_layout.base")  # 4.5 (7523e4dc5057) to 6.3
    layout_size: u32 = named("core_layout.size")
    module_core: ulong  # before 4.5
    core_size: u32
    taints: ulong


class Modules(Kernel):
    """The kernel's variables that this probe starts from."""

    modules: list_head


@helper
def base_of(one: module) -> ulong:
    """Return where a module's code begins; 0 where that is not known."""
    if exists(one.mem):
        return one.mem[0].base
    if exists(one.layout_base):
        return one.layout_base
    if exists(one.module_core):
        return one.module_core
    return 0


@helper
def size_of(one: module) -> u64:
    """Return the bytes of what a module keeps."""
    size: u64 = 0
    if exists(one.mem):
        for index in range(KEPT):
            size = size + one.mem[index].size
    elif exists(one.layout_size):
        size = one.layout_size
    elif exists(one.core_size):
        size = one.core_size
    return size


@helper
def code_of(one: module) -> u32:
    """Return the bytes from ``base_of`` on among which a module's code is: all of it before 6.4."""
    if exists(one.mem):
        return one.mem[0].size
    if exists(one.layout_size):
        return one.layout_size
    if exists(one.core_size):
        return one.core_size
    return 0


@probe(row=Module)
def loaded(kernel: Modules) -> None:
    """List every module, the latest first."""
    for one in for_each_entry(kernel.modules, module, "list"):
        base: ulong = 0
        size: u64 = 0
        code: u32 = 0
        state: u32 = 0
        with attempt() as unreadable:
            base = base_of(one)
            size = size_of(one)
            code = code_of(one)
            state = one.state
        if unreadable:
            trouble("a module cannot be read", one, faulted=True)
        emit(
            name=one.name,
            state=letter(state),
            base=base if base != 0 else None,
            size=size if base != 0 else None,
            code=code if base != 0 else None,
            taints=one.taints if exists(one.taints) else None,
            module=address_of(one),
        )


@helper
def letter(state: u32) -> u8:
    """Return the first letter of what ``/proc/modules`` calls a state; U for one that is being built up."""
    return u8(L if state == LIVE else C if state == COMING else G if state == GOING else U)


def modules(kernel: KernelView) -> Result[Module]:
    """List every module, the latest first; none where the kernel is one without modules.

    Raises:
        ProfileError: The layout of modules is not known of this kernel.
    """
    profile = kernel.profile
    # module_put() is a function of every kernel that can load modules, and of no other.
    if profile.symbols and profile.address("module_put") is None:
        return _none(WITHOUT, complete=True)
    if profile.address("modules") is None:
        return _none(NOT_FOUND, complete=False)
    return run_probe(kernel, loaded)


def _none(why: str, *, complete: bool) -> Result[Module]:
    reasons, notes = ([], [why]) if complete else ([why], [])
    return Result([], complete, reasons, faults=0, loads=0, elapsed_s=0.0, notes=notes)

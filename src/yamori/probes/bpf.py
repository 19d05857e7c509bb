"""``ids bpf``: BPF programs, as ``bpftool prog`` shows them, and those whose code the kernel can name.

``prog_idr`` of ``kernel/bpf/syscall.c`` holds the ``struct bpf_prog`` of each number (since 4.13, dc4bb0e23561). The
list ``bpf_kallsyms`` of ``kernel/bpf/core.c`` is another structure: of all compiled code, programs' functions and
trampolines among it (74451e66d516, 4.11). Its nodes lie in ``bpf_prog_aux.ksym`` (since 5.7, ecb60d1c670e).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yamori.kernel.kernel import Kernel as KernelView
from yamori.kernel.types import Described
from yamori.llview.faults import MOST_TROUBLES
from yamori.llview.language import (
    NULL,
    Array,
    CharArray,
    Kernel,
    Ptr,
    Struct,
    address_of,
    at,
    attempt,
    container_of,
    emit,
    exists,
    helper,
    named,
    probe,
    text,
    trouble,
    u8,
    u32,
    u64,
    ulong,
)
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.llview.structures.xarray import for_each_xa_entry, xarray
from yamori.probes.run import run_probe
from yamori.records import Address, BpfProgram, Result, Row

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 128
"""Bytes of a function's name that are read."""

TAG_BYTES = 8
"""``BPF_TAG_SIZE`` of ``include/uapi/linux/bpf.h``."""

MOST_FUNCTIONS = 256
"""``BPF_MAX_SUBPROGS`` of ``include/linux/bpf_verifier.h``; one more that the verifier adds is among them."""

NO_USER = 0xFFFF_FFFF
PREFIX = "BPF_PROG_TYPE_"
CANNOT_SAY = 2


class idr(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/linux/idr.h``."""

    idr_rt: xarray


class user_struct(Struct):  # noqa: N801
    """``include/linux/sched/user.h``."""

    uid: u32 = named("uid.val")


class bpf_ksym(Struct):  # noqa: N801
    """``include/linux/bpf.h``."""

    start: ulong
    name: CharArray
    lnode: list_head
    prog: u8


class bpf_prog_aux(Struct):  # noqa: N801
    """``include/linux/bpf.h``."""

    user: Ptr[user_struct]
    name: CharArray
    attach_func_name: ulong
    ksym: bpf_ksym
    func: Ptr[Ptr[bpf_prog]]
    func_cnt: u32
    real_func_cnt: u32


class bpf_prog(Struct):  # noqa: N801
    """``include/linux/filter.h``, now ``include/linux/bpf.h``."""

    type: u32
    tag: Array[u8]
    jited: u32
    kprobe_override: u32
    bpf_func: ulong
    aux: Ptr[bpf_prog_aux]


class Numbers(Kernel):
    """The kernel's variables that the list of programs starts from."""

    prog_idr: idr


class Names(Kernel):
    """The kernel's variables that the list of compiled code starts from."""

    bpf_kallsyms: list_head


class Loaded(Row, frozen=True):
    """One program as the kernel has it."""

    id: int
    type: int
    name: str
    tag: Address
    uid: int
    attached: Address
    overrides: int
    jited: int
    function: Address
    prog: Address
    aux: Address


class Text(Row, frozen=True):
    """A text."""

    text: str


class Part(Row, frozen=True):
    """One function of a program of several, each a ``struct bpf_prog`` of its own."""

    aux: Address


class Compiled(Row, frozen=True):
    """One program, or a function of one, whose compiled code has a name."""

    aux: Address
    name: str
    start: Address


@helper
def tag_of(one: bpf_prog) -> u64:
    """Return the eight bytes of a tag as the number that they are written as."""
    tag: u64 = 0
    for index in range(TAG_BYTES):
        tag = tag << 8 | one.tag[index]
    return tag


@helper
def uid_of(aux: bpf_prog_aux) -> u32:
    """Return who loaded a program."""
    if exists(aux.user) and aux.user != NULL:
        return aux.user.uid
    return NO_USER


@helper
def overrides(one: bpf_prog) -> u32:
    """Say whether a program may call ``bpf_override_return``: since 4.16 (9802d86585db)."""
    if exists(one.kprobe_override):
        return one.kprobe_override
    return CANNOT_SAY


@helper
def attached_to(aux: bpf_prog_aux) -> ulong:
    """Return where the name is of the function that a program is made for: since 5.5 (f1b9509c2fb0)."""
    if exists(aux.attach_func_name):
        return aux.attach_func_name
    return 0


@probe(row=Loaded)
def bpf_loaded(kernel: Numbers) -> None:
    """Give out every program that has a number."""
    for index, entry in for_each_xa_entry(kernel.prog_idr.idr_rt):
        with attempt() as unreadable:
            one = at(bpf_prog, entry)
            emit(
                id=index,
                type=one.type,
                name=one.aux.name,
                tag=tag_of(one),
                uid=uid_of(one.aux),
                attached=attached_to(one.aux),
                overrides=overrides(one),
                jited=one.jited,
                function=one.bpf_func,
                prog=address_of(one),
                aux=address_of(one.aux),
            )
        if unreadable:
            trouble("a BPF program cannot be read", entry, faulted=True)


@probe(row=Text)
def bpf_texts(kernel: Kernel, where: ulong) -> None:  # noqa: ARG001  every probe has it
    """Give out the text at an address."""
    emit(text=text(where, LONGEST))


@helper
def functions(aux: bpf_prog_aux) -> u32:
    """Return how many functions a program has; since 6.7 (f18b03fabaa9) some are not counted by ``func_cnt``."""
    if exists(aux.real_func_cnt):
        return aux.real_func_cnt
    return aux.func_cnt


@probe(row=Part)
def bpf_parts(kernel: Kernel, program: ulong) -> None:  # noqa: ARG001  every probe has it
    """Give out the functions of one program."""
    aux = at(bpf_prog, program).aux
    if aux.func != NULL:
        for index in range(MOST_FUNCTIONS):
            if index < functions(aux):
                emit(aux=address_of(aux.func[index].aux))


@probe(row=Compiled)
def bpf_compiled(kernel: Names) -> None:
    """Give out every program, and each function of those that have several, whose code can be named."""
    for one in for_each_entry(kernel.bpf_kallsyms, bpf_ksym, "lnode"):
        if one.prog != 0:
            emit(aux=address_of(container_of(one, bpf_prog_aux, "ksym")), name=one.name, start=one.start)


def bpf(kernel: KernelView) -> Result[BpfProgram]:
    """List the BPF programs.

    Raises:
        ProfileError: Something that it needs is not known of this kernel.
    """
    found = run_probe(kernel, bpf_loaded)
    type_name = _type_names(kernel)
    names = {row.attached: run_probe(kernel, bpf_texts, (row.attached,)) for row in found.rows if row.attached}
    rows = [_program(row, type_name(row.type), names.get(row.attached)) for row in found.rows]
    reasons = [*found.reasons, *(reason for name in names.values() for reason in name.reasons)][:MOST_TROUBLES]
    faults, loads = (sum(getattr(one, what) for one in (found, *names.values())) for what in ("faults", "loads"))
    elapsed = found.elapsed_s + sum(name.elapsed_s for name in names.values())
    return Result(rows, not reasons, reasons, faults, loads, elapsed, found.notes)


def hidden(kernel: KernelView) -> Result[Compiled]:
    """List compiled programs that are none of those with a number, nor a function of one.

    The numbers are read before the names and after them: a program that comes or goes meanwhile has one in either.

    Raises:
        ProfileError: Something that it needs is not known of this kernel.
    """
    before = run_probe(kernel, bpf_loaded)
    named_ = run_probe(kernel, bpf_compiled)
    runs: list[Result[Loaded]] = [before, run_probe(kernel, bpf_loaded)]
    known = {row.aux for run in runs for row in run.rows}
    owners = {row.prog for run in runs for row in run.rows}
    own = (
        [run_probe(kernel, bpf_parts, (prog,)) for prog in owners]
        if any(row.aux not in known for row in named_.rows)
        else []
    )
    known |= {row.aux for run in own for row in run.rows}
    rows = [row for row in named_.rows if row.aux not in known]
    every = (*runs, named_, *own)
    reasons = [reason for run in every for reason in run.reasons][:MOST_TROUBLES]
    faults, loads = (sum(getattr(one, what) for one in every) for what in ("faults", "loads"))
    return Result(rows, not reasons, reasons, faults, loads, sum(run.elapsed_s for run in every))


def _program(row: Loaded, type_name: str, attached: Result[Text] | None) -> BpfProgram:
    return BpfProgram(
        id=row.id,
        type=type_name,
        name=row.name,
        tag=f"{row.tag:016x}",
        uid=None if row.uid == NO_USER else row.uid,
        attached="".join(one.text for one in attached.rows) if attached else "",
        overrides=None if row.overrides == CANNOT_SAY else bool(row.overrides),
        address=row.function if row.jited else None,
        prog=row.prog,
    )


def _type_names(kernel: KernelView) -> Callable[[int], str]:
    """Return what names types as the kernel's own types do."""
    for types in kernel.profile.types:
        if isinstance(types, Described) and (kind := types.graph.find("enum bpf_prog_type")):
            graph = types.graph
            return lambda number: (graph.enumerator_name(kind, number) or str(number)).removeprefix(PREFIX).lower()
    return str

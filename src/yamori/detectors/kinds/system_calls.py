"""The system-call table: each entry leads to a system call of the kernel's own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.hooks import image_of
from yamori.detectors.view import View
from yamori.probes.syscall import DISPATCHERS
from yamori.records import Finding, SystemCall

CALL = re.compile(r"(?:^|_)(?:sys(?:32|64)?|ptregs|stub|compat)_|^sys[A-Z]|_syscall")
"""How the functions that tables point to are called on any architecture: ``__arm64_sys_read``, ``sys_fork_wrapper``,
``compat_sys_ioctl``, ``stub_execve`` (x86-64 before 4.17), ``sys_ni_syscall``."""

REMEDY = "Treat the device as taken over: preserve its memory, isolate it, and reinstall it from a trusted image."


@detector(
    title="System calls that lead elsewhere",
    needs="the system-call table and the bounds of the kernel's text",
    misses="an entry that leads to another system call, and hooks behind a function's entry; "
    "x86-64 calls past the table since 6.9, which dispatched-calls looks at",
    attack=["T1014", "T1056.004"],
)
def system_calls(view: View) -> Iterator[Finding]:
    """Look at each entry of the native table, and at whether that is the table which calls go through."""
    yield from _elsewhere(view)
    rows = view.calls()
    if any(row.in_kernel_text is None for row in rows):
        raise NotChecked("the bounds of the kernel's text are not known")
    for row in rows:
        if not row.in_kernel_text:
            yield _finding(view, row, "code that is not the kernel's")
        elif row.symbol and (row.offset or not _is_call(view, row)):
            yield _finding(view, row, "the middle of a function" if row.offset else "a function that is no system call")


def _elsewhere(view: View) -> Iterator[Finding]:
    """Tell of another table that the code uses which dispatches calls: the kernel's own is left as it was, then."""
    if view.profile.address(DISPATCHERS["native"]) is not None:
        return  # no table is followed
    found = (symbols.address("sys_call_table") for symbols in view.profile.symbols)
    named = [address for address in found if address is not None]
    used = view.profile.inferred_address("sys_call_table", fresh=True)
    if used is None or used in (named or image_of(view)):
        return
    own = ", ".join(f"{address:#x}" for address in named) or "in its image"
    yield Finding(
        subject="system-call table",
        severity="critical",
        confidence="likely",
        title="System calls go through another table than the kernel's",
        why=[
            f"Expected: the code that dispatches system calls uses sys_call_table, {own}.",
            f"Found: it uses the table at {used:#x}, {view.owner(used)}.",
        ],
        remedy=REMEDY,
    )


def _is_call(view: View, row: SystemCall) -> bool:
    names = [symbol.name for symbols in view.profile.symbols for symbol in symbols.aliases(row.address)]
    return any(CALL.search(name) for name in names)


def _finding(view: View, row: SystemCall, where: str) -> Finding:
    foreign = not row.in_kernel_text
    return Finding(
        subject=f"system call {row.nr}",
        severity="critical" if foreign else "high",
        confidence="certain" if foreign else "likely",
        title=f"System call {row.nr} was redirected to {where}",
        why=[
            "Expected: an entry of the table leads to the beginning of a system call in the kernel's own text.",
            f"Found: entry {row.nr} is {row.address:#x}, {view.owner(row.address)}.",
        ],
        remedy=REMEDY,
    )

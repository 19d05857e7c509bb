"""System calls of x86-64 that do not go through a table: the switch that they take, and the way to it."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.address import GVA
from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.kinds.system_calls import CALL, REMEDY
from yamori.detectors.switch import Way, ways
from yamori.detectors.view import View
from yamori.errors import Fault, ProfileError
from yamori.probes.syscall import DISPATCHERS, syscall
from yamori.records import Finding

LONGEST = 1 << 16
"""Bytes of a function that are followed; that of 450 calls has 5,000."""
MOST_NUMBERS = 4096
"""Numbers that are held against the table, where a way stands for many: those without a call of their own."""

RETURN = "return_thunk"
"""What a function's RET is on CPUs with retbleed and its kin: a jump to ``__x86_return_thunk`` (15e67227c49a, 5.19)."""

PADDING = 32
"""Bytes before a function in which call depth tracking counts, and calls lead there (e81dc127ef69, 6.2)."""

STEPS = (("entry_SYSCALL_64_after_hwframe", "do_syscall_64"), ("do_syscall_64", "x64_sys_call"))
"""What calls what on the way to the switch, by CALL with a distance (``arch/x86/entry/entry_64.S``, ``common.c``)."""


@detector(
    title="System calls dispatched elsewhere",
    needs="on x86-64: symbols, and the bounds of the kernel's text",
    misses="LSTAR and its like, which are registers, and hooks behind a system call's entry",
    attack=["T1014", "T1056.004"],
)
def dispatched_calls(view: View) -> Iterator[Finding]:
    """Follow the switches that x86-64 dispatches by since 6.9."""
    if view.profile.architecture != "x86_64":
        return
    if view.profile.text is None:
        raise NotChecked("the bounds of the kernel's text are not known")
    if not view.profile.symbols:
        raise NotChecked("the kernel's functions are not known by name", hint="give --symbols")
    for table, name in DISPATCHERS.items():
        start = view.profile.address(name)
        if start is not None:
            yield from _switch(view, table, name, start)
    if view.profile.address("x64_sys_call") is not None:
        for caller, called in STEPS:
            yield from _step(view, caller, called)


def _switch(view: View, table: str, name: str, start: int) -> Iterator[Finding]:
    expected = _table(view, table)
    bad: dict[int, tuple[Way, str]] = {}
    for way in ways(_code(view, name, start), start):
        if not way.target:
            continue
        if what := _trouble(view, way, expected):
            bad.setdefault(way.place, (way, what))
    for way, what in bad.values():
        yield _finding(view, name, table, way, what)


def _table(view: View, table: str) -> dict[int, int]:
    """Return the entries of the table, which is made of the same list as the switch; those that are good."""
    try:
        rows = view.calls() if table == "native" else syscall(view.kernel, table=table).rows
    except ProfileError:  # this kernel has no such table any more
        return {}
    return {row.nr: row.address for row in rows if row.in_kernel_text and not row.offset and CALL.search(row.symbol)}


def _trouble(view: View, way: Way, expected: dict[int, int]) -> str:
    """Say what is wrong with where a way leads; nothing if nothing is."""
    if not view.profile.in_text(way.target):
        return "code that is not the kernel's"
    names = [symbol.name for symbols in view.profile.symbols for symbol in symbols.aliases(way.target)]
    if not names:
        return "the middle of a function"
    if any(RETURN in one for one in names):
        return ""
    if not any(CALL.search(one) for one in names):
        return "a function that is no system call"
    numbers = range(way.first, min(way.last, way.first + MOST_NUMBERS) + 1)
    other = next((nr for nr in numbers if expected.get(nr, way.target) != way.target), None)
    return "" if other is None else "another system call"


def _finding(view: View, name: str, table: str, way: Way, what: str) -> Finding:
    foreign = not view.profile.in_text(way.target)
    one = way.first == way.last
    numbers = f"system call {way.first}" if one else f"system calls {way.first} to {way.last}"
    kind = "" if table == "native" else f"{table} "
    return Finding(
        subject=f"{kind}{numbers}",
        severity="critical" if foreign else "high",
        confidence="certain" if foreign else "likely",
        title=f"The kernel's switch leads {kind}{numbers} to {what}",
        why=[
            f"Expected: {name} leads each number to its system call, in the kernel's own text.",
            f"Found: its jump at {way.place:#x} leads {way.first} to {way.target:#x}, {view.owner(way.target)}.",
        ],
        remedy=REMEDY,
    )


def _step(view: View, caller: str, called: str) -> Iterator[Finding]:
    """Make sure that a function still calls the next."""
    start, target = view.profile.address(caller), view.profile.address(called)
    if start is None or target is None:
        return
    code = _code(view, caller, start)
    at = code.find(b"\xe8")
    while 0 <= at <= len(code) - 5:
        if target - PADDING <= start + at + 5 + int.from_bytes(code[at + 1 : at + 5], "little", signed=True) <= target:
            return
        at = code.find(b"\xe8", at + 1)
    yield Finding(
        subject=f"function {caller}",
        severity="critical",
        confidence="likely",
        title=f"The kernel's function {caller} does not call {called} any more",
        why=[
            f"Expected: every system call goes through {called}, which {caller} calls.",
            f"Found: no instruction of {caller} at {start:#x} calls {target:#x}.",
        ],
        remedy=REMEDY,
    )


def _code(view: View, name: str, start: int) -> bytes:
    """Return the code of a function: up to the next symbol of any source that knows it."""
    ends = [symbols.next_address(start) for symbols in view.profile.symbols if symbols.address(name) == start]
    end = min((one for one in ends if one is not None), default=start)
    if not 0 < end - start <= LONGEST:
        raise NotChecked(f"where {name} ends is not known")
    try:
        return view.kernel.space.read(GVA(start), end - start)
    except Fault as fault:
        raise NotChecked(f"{name} cannot be read: {fault}") from fault

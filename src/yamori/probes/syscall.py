"""``ids syscall``: the system-call tables, entry by entry.

The table is found by its symbol where kallsyms has it. Most Arm kernels' kallsyms hold functions only, and then it is
found by what it is: a long run of pointers to system-call functions. Its end is the last such pointer before the next
symbol, so that an entry in the middle that points elsewhere is shown and does not cut the table short.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

from yamori.address import GPA, GVA
from yamori.errors import Fault, ProfileError
from yamori.kernel.kernel import Kernel
from yamori.records import SystemCall

TABLES = {
    "native": ("sys_call_table",),
    "compat": ("compat_sys_call_table", "ia32_sys_call_table", "sys_oabi_call_table"),
    "x32": ("x32_sys_call_table",),
}
"""What ``--table`` takes, and the symbols: native everywhere; compat of arm64 and RISC-V, x86, and Arm's old ABI."""

FUNCTION_PREFIXES = ("__arm64_", "__x64_", "__ia32_", "__riscv_", "__se_", "__do_", "")
MOST_ENTRIES = 2048  # twice what any architecture has; Arm private calls are not in the table
LEAST_ENTRIES = 200  # the smallest table since 3.10, arm64's, has 272
MOST_STRANGERS = 16
"""Entries in a row that are no system-call functions before a search takes the table to be over."""
SEARCH_STEP = 1 << 20


class Table(NamedTuple):
    """Where a system-call table lies.

    Attributes:
        gva: Address of entry 0.
        size: Entries.
        source: How it was found.
    """

    gva: int
    size: int
    source: str


def syscall(kernel: Kernel, *, table: str = "native") -> Iterator[SystemCall]:
    """Yield every entry of a system-call table.

    Args:
        kernel: The guest's kernel.
        table: ``native``, ``compat`` (32-bit calls on a 64-bit kernel, or Arm's old ABI) or ``x32``.

    Raises:
        ProfileError: This kernel has no such table, or it cannot be found.
    """
    place = find_table(kernel, table)
    kernel.note(f"{place.size} entries at {place.gva:#x}, found by {place.source}")
    if table == "native" and kernel.profile.address("x64_sys_call"):
        kernel.note("this kernel dispatches through x64_sys_call (6.9 and backports): the table is not what it follows")
    word = kernel.profile.init.word_size
    for nr in range(place.size):
        address = kernel.pointer(place.gva + nr * word)
        name, offset = kernel.profile.symbol_at(address) or ("", 0)
        in_text = kernel.profile.in_text(address)
        if in_text is False:
            name, offset = ("", 0) if offset > MOST_OFFSET else (name, offset)
        yield SystemCall(nr=nr, address=address, symbol=name, offset=offset, in_kernel_text=in_text)


MOST_OFFSET = 1 << 20  # farther from its symbol than any function is long: no symbol of this address


def find_table(kernel: Kernel, table: str) -> Table:
    """Return where a system-call table lies.

    Raises:
        ProfileError: This kernel has no such table, or it cannot be found.
    """
    functions = _functions(kernel)
    for name in TABLES[table]:
        start = kernel.profile.address(name)
        if start is not None:
            return Table(start, _length(kernel, start, functions), f"symbol {name}")
    if table == "x32" or not functions:
        raise ProfileError(
            f"this kernel has no {table} system-call table"
            if functions
            else "no system-call function is known by name",
            hint="" if functions else "give the maker's System.map with --symbols",
        )
    return _search(kernel, functions, compat=table == "compat")


def _functions(kernel: Kernel) -> dict[int, str]:
    """Return address → name of every system-call function, whatever the architecture calls them."""
    starts = tuple(f"{prefix}{kind}sys_" for prefix in FUNCTION_PREFIXES for kind in ("", "compat_"))
    found: dict[int, str] = {}
    for symbols in kernel.profile.symbols:
        for address, kind, name in symbols:
            if kind in "TtWw" and name.startswith(starts):
                found.setdefault(address, name)
    return found


def _words(kernel: Kernel, start: int, most: int) -> list[int]:
    """Return up to ``most`` words at ``start``, fewer where the mapping ends."""
    size = kernel.profile.init.word_size
    words: list[int] = []
    step = 64
    for first in range(0, most, step):
        try:
            data = kernel.space.read(GVA(start + first * size), step * size)
        except Fault:
            break
        words.extend(array("Q" if size == 8 else "I", data))
    return words


def _length(kernel: Kernel, start: int, functions: dict[int, str]) -> int:
    """Return the number of entries: up to the last system-call function before the next symbol."""
    size = kernel.profile.init.word_size
    ends = [after for symbols in kernel.profile.symbols if (after := symbols.next_address(start))]
    most = min([MOST_ENTRIES, *((end - start) // size for end in ends)])
    words = _words(kernel, start, most)[:most]
    known = [nr for nr, word in enumerate(words) if word in functions]
    if known:
        return known[-1] + 1
    return sum(1 for _ in takewhile(bool, words))


def _search(kernel: Kernel, functions: dict[int, str], *, compat: bool) -> Table:
    """Find the table among the read-only data around the kernel's text."""
    runs = [
        run for start in _runs_of(kernel, functions) if (run := _run(kernel, start, functions)).size >= LEAST_ENTRIES
    ]
    wanted = [run for run in runs if _is_compat(kernel, run, functions) == compat]
    if not wanted:
        kind = "compat" if compat else "native"
        raise ProfileError(f"no {kind} system-call table was found", hint="give the maker's System.map with --symbols")
    return max(wanted, key=lambda run: run.size)


def _runs_of(kernel: Kernel, functions: dict[int, str]) -> Iterator[int]:
    """Yield GVAs in the kernel's image that hold a pointer to ``sys_read``, which every table has near its start."""
    init = kernel.profile.init
    reads = [address for address, name in functions.items() if name.endswith(("_sys_read", "sys_getpid"))]
    text = kernel.profile.text
    first = (text.start if text else init.gva - (64 << 20)) - init.image_offset
    last = init.gpa + (32 << 20)
    for gpa in range(max(0, first), last, SEARCH_STEP):
        try:
            data = kernel.memory.read(GPA(gpa), SEARCH_STEP)
        except Fault:
            continue
        for address in reads:
            needle = address.to_bytes(init.word_size, "little")
            at = data.find(needle)
            while at >= 0:
                if (gpa + at) % init.word_size == 0:
                    yield gpa + at + init.image_offset
                at = data.find(needle, at + 1)


def _run(kernel: Kernel, inside: int, functions: dict[int, str]) -> Table:
    """Return the run of system-call functions around ``inside``; strangers within are part of it."""
    size = kernel.profile.init.word_size
    start, strangers, at = inside, 0, inside
    while strangers < MOST_STRANGERS and inside - at < MOST_ENTRIES * size:
        at -= size
        try:
            known = kernel.pointer(at) in functions
        except Fault:
            break
        start, strangers = (at, 0) if known else (start, strangers + 1)
    words = _words(kernel, start, MOST_ENTRIES)
    last, strangers = 0, 0
    for nr, word in enumerate(words):
        last, strangers = (nr, 0) if word in functions else (last, strangers + 1)
        if strangers >= MOST_STRANGERS:
            break
    return Table(start, last + 1, "a run of pointers to system-call functions")


def _is_compat(kernel: Kernel, run: Table, functions: dict[int, str]) -> bool:
    words = _words(kernel, run.gva, run.size)[: run.size]
    return any("compat_sys_" in functions.get(word, "") for word in words)

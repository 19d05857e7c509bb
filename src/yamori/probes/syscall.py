"""``ids syscall``: the system-call tables, entry by entry.

The table is found by its symbol where kallsyms has it, and the numbers of well-known calls say whether it is the table:
kallsyms may be damaged, or lie. Most Arm kernels' kallsyms hold functions only, and then it is found by what it is: a
long run of pointers to system-call functions. Its end is the last such pointer before the next symbol, so that an entry
in the middle that points elsewhere is shown and does not cut the table short.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

from yamori.address import GVA
from yamori.errors import Fault, ProfileError
from yamori.kernel.kernel import Kernel
from yamori.kernel.profile import Profile
from yamori.kernel.root import IMAGE_REACH
from yamori.kernel.symbols import Symbols
from yamori.llview import language
from yamori.llview.language import emit, probe, sizeof, u32, ulong, word_at
from yamori.memory.physical import read_some
from yamori.probes.run import run_probe
from yamori.records import Result, Row, SystemCall

TABLES = {
    "native": ("sys_call_table",),
    "compat": ("compat_sys_call_table", "ia32_sys_call_table", "sys_oabi_call_table"),
    "x32": ("x32_sys_call_table",),
}
"""What ``--table`` takes, and the symbols: native everywhere; compat of arm64 and RISC-V, x86, and Arm's old ABI."""

ALL_TABLES = frozenset(name for names in TABLES.values() for name in names)

DISPATCHERS = {"native": "x64_sys_call", "compat": "ia32_sys_call", "x32": "x32_sys_call"}
"""Functions that x86 calls instead of following a table since 6.9 (1e3ad78334a6), back-ported to stable releases."""

FUNCTION_PREFIXES = ("__arm64_", "__x64_", "__ia32_", "__riscv_", "__se_", "__do_", "")
MOST_ENTRIES = 2048  # twice what any architecture has; Arm private calls are not in the table
LEAST_BEHIND = 4  # pointers to system-call functions in a row; other data hold none
LEAST_ENTRIES = 200  # the smallest table since 3.10, arm64's, has 272
MOST_STRANGERS = 16
"""Entries in a row that are no system-call functions before a search takes the table to be over."""
SEARCH_STEP = 1 << 20
MOST_PLACES = 256
"""Pointers to well-known calls around which a search looks for a table; a kernel holds a few of each."""
MODULE_SPACE = 1 << 20
"""How far from the kernel's text what is not of its image begins: 32-bit Arm has its modules just below."""

_GENERIC = {"close": 57, "read": 63, "write": 64, "exit": 93, "getpid": 172}
NUMBERS = {
    "arm": {"exit": 1, "read": 3, "write": 4, "close": 6, "getpid": 20},
    "compat": {"exit": 1, "read": 3, "write": 4, "close": 6, "getpid": 20},
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "x86_64": {"read": 0, "write": 1, "close": 3, "getpid": 39, "exit": 60},
}
"""Numbers of well-known calls, which never change (``asm/unistd.h`` of each architecture): where a table is searched
they tell where it starts, whatever its first entries are made to point to. x32 has x86-64's numbers, Arm's old ABI
those of the new one. Most of them have to be right, not all: some may be hooked."""

_MAKERS = "give the maker's System.map with --symbols, or vmlinux with --vmlinux"


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


class Entry(Row, frozen=True):
    """An entry of the table as it is in memory.

    Attributes:
        nr: The number.
        address: Where it points.
    """

    nr: int
    address: int


@probe(row=Entry)
def entries(kernel: language.Kernel, table: ulong, count: u32) -> None:  # noqa: ARG001  every probe has one
    """Read every entry of a system-call table."""
    for nr in range(count):
        emit(nr=nr, address=word_at(table + nr * sizeof(ulong)))


def syscall(kernel: Kernel, *, table: str = "native") -> Result[SystemCall]:
    """List every entry of a system-call table.

    Args:
        kernel: The guest's kernel.
        table: ``native``, ``compat`` (32-bit calls on a 64-bit kernel, or Arm's old ABI) or ``x32``.

    Raises:
        ProfileError: This kernel has no such table, or it cannot be found.
    """
    kernel.begin()
    place = find_table(kernel, table)
    if kernel.profile.address(DISPATCHERS[table]):
        dispatched = f"this kernel dispatches through {DISPATCHERS[table]} (6.9 and backports)"
        kernel.note(f"{dispatched}: the table is not what it follows")
    result = run_probe(kernel, entries, (place.gva, place.size))
    reasons = [*kernel.troubles, *result.reasons]
    rows = [_named_entry(kernel.profile, entry) for entry in result.rows]
    return replace(result, rows=rows, complete=not reasons, reasons=reasons, notes=[*result.notes, *kernel.notes])


def _named_entry(profile: Profile, entry: Entry) -> SystemCall:
    name, offset = profile.symbol_at(entry.address) or ("", 0)
    in_text = profile.in_text(entry.address)
    if in_text is False and offset > MOST_OFFSET:
        name, offset = "", 0
    return SystemCall(nr=entry.nr, address=entry.address, symbol=name, offset=offset, in_kernel_text=in_text)


MOST_OFFSET = 1 << 20  # farther from its symbol than any function is long: no symbol of this address


def find_table(kernel: Kernel, table: str) -> Table:
    """Return where a system-call table lies.

    Raises:
        ProfileError: This kernel has no such table, or it cannot be found.
    """
    functions = _functions(kernel)
    numbers = _numbers(kernel, table)
    named = [run for run in _by_symbol(kernel, table, functions) if run.size]
    for run in named:
        if _is_right(_words(kernel, run.gva, run.size), functions, numbers):
            return run
    try:
        found = _look(kernel, table, functions, numbers)
    except ProfileError:
        if not named:
            raise
        kernel.trouble(
            f"most well-known calls are not under their numbers in the table at {named[0].gva:#x}, {named[0].source}: "
            f"they are hooked, or the symbol is wrong; {_MAKERS}"
        )
        return named[0]._replace(source=f"{named[0].source}, but most well-known calls are not under their numbers")
    for run in named:
        kernel.note(f"what {run.source} leads to, at {run.gva:#x}, is not the table: do not trust the kernel's symbols")
    return found


def _numbers(kernel: Kernel, table: str) -> dict[str, int]:
    """Return the numbers of well-known calls in a table."""
    architecture = kernel.profile.architecture
    return NUMBERS["compat" if table == "compat" and architecture != "riscv64" else architecture]


def _by_symbol(kernel: Kernel, table: str, functions: dict[int, str]) -> Iterator[Table]:
    """Yield what lies where each source of symbols has the table, the most trusted first, and where its users do."""
    for name in TABLES[table]:
        for symbols in kernel.profile.symbols:
            start = symbols.address(name)
            if start is not None:
                yield Table(start, _length(kernel, start, functions), f"symbol {name}")
        used = kernel.profile.inferred_address(name, fresh=True)
        if used is not None:
            yield Table(used, _length(kernel, used, functions), f"{name} of the code that uses it")


def _look(kernel: Kernel, table: str, functions: dict[int, str], numbers: dict[str, int]) -> Table:
    """Find a table without its symbol.

    Raises:
        ProfileError: This kernel has no such table, or it cannot be found.
    """
    if not functions:
        why = "the kernel's symbol table, kallsyms, is missing, damaged or without them"
        doubts = "".join(f"; {doubt}" for doubt in kernel.profile.doubts if "kallsyms" in doubt)
        raise ProfileError(f"no system-call function is known by name: {why}{doubts}", hint="" if doubts else _MAKERS)
    if kernel.profile.address(DISPATCHERS[table]):
        raise ProfileError(f"this kernel dispatches through {DISPATCHERS[table]}: it has no {table} system-call table")
    if table == "x32" or (table == "compat" and kernel.profile.init.word_size == 4):
        raise ProfileError(f"this kernel has no {table} system-call table")
    return _search(kernel, functions, numbers, compat=table == "compat")


def _functions(kernel: Kernel) -> dict[int, str]:
    """Return address → name of every system-call function, whatever the architecture calls them."""
    starts = [f"{prefix}{kind}sys_" for prefix in FUNCTION_PREFIXES for kind in ("", "compat_")]
    found: dict[int, str] = {}
    for symbols in kernel.profile.symbols:
        for address, kind, name in symbols.starting(starts):
            if kind in "TtWw":
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
    words = _words(kernel, start, MOST_ENTRIES)
    for symbols in kernel.profile.symbols:
        words = words[: _words_before(symbols, start, kernel.profile.init.word_size, words, functions)]
    known = [nr for nr, word in enumerate(words) if word in functions]
    if known:
        return _with_foreign(kernel, words, known[-1] + 1)
    return sum(1 for _ in takewhile(bool, words))


def _words_before(symbols: Symbols, start: int, size: int, words: list[int], functions: dict[int, str]) -> int:
    """Return how many words lie before the next symbol.

    One that is amid pointers to system-call functions, and does not name another table of them, is not believed:
    whoever moves a symbol there would hide the rest.
    """
    end = symbols.next_address(start)
    while end is not None and end < start + len(words) * size:
        nr = (end - start) // size
        behind = words[nr : nr + LEAST_BEHIND]
        amid = len(behind) == LEAST_BEHIND and all(word in functions for word in behind)
        if not amid or any(symbol.name in ALL_TABLES for symbol in symbols.aliases(end)):
            return nr
        end = symbols.next_address(end)
    return len(words)


def _with_foreign(kernel: Kernel, words: list[int], end: int) -> int:
    """Return where a table ends whose last system-call function lies before ``end``.

    Code outside of the image that the next words point to is where somebody made entries lead: nothing else in the
    kernel's read-only data points there. Other data may well look like a kernel address.
    """
    text = kernel.profile.text
    if text is None:
        return end
    image = range(text.start - MODULE_SPACE, text.start + IMAGE_REACH)
    return end + sum(1 for _ in takewhile(lambda word: word not in image and _is_code(kernel, word), words[end:]))


def _is_code(kernel: Kernel, word: int) -> bool:
    if not kernel.profile.root.geometry.canonical(GVA(word)):
        return False
    try:
        return kernel.space.translate(GVA(word)).executable
    except Fault:
        return False


def _search(kernel: Kernel, functions: dict[int, str], numbers: dict[str, int], *, compat: bool) -> Table:
    """Find the table among the read-only data around the kernel's text."""
    starts = dict.fromkeys(_starts(kernel, functions, numbers))
    runs = [run for start in starts if (run := _run(kernel, start, functions, numbers))]
    wanted = [run for run in runs if _is_compat(kernel, run, functions) == compat]
    if not wanted:
        kind = "compat" if compat else "native"
        raise ProfileError(f"no {kind} system-call table was found", hint=_MAKERS)
    best = max(wanted, key=lambda run: run.size)
    for other in wanted:
        if other != best:
            kernel.note(f"another table of {other.size} system-call functions lies at {other.gva:#x}")
    return best


def _starts(kernel: Kernel, functions: dict[int, str], numbers: dict[str, int]) -> Iterator[int]:
    """Yield GVAs in the kernel's image where a table would start, were a pointer to a well-known call its entry."""
    init = kernel.profile.init
    text = kernel.profile.text
    calls = {
        address: nr
        for address, name in functions.items()
        for call, nr in numbers.items()
        if name.endswith(f"sys_{call}")
    }
    first = max(0, (text.start if text else init.gva - IMAGE_REACH) - init.image_offset)
    found = 0
    for gpa in range(first, init.gpa + IMAGE_REACH // 2, SEARCH_STEP):
        try:
            data = read_some(kernel.memory, gpa, SEARCH_STEP)
        except Fault:
            continue
        for place, nr in _pointers(data, calls, init.word_size):
            if found >= MOST_PLACES:
                kernel.note("the kernel's image is full of pointers to system calls: somebody may be planting decoys")
                return
            found += 1
            yield gpa + place - nr * init.word_size + init.image_offset


def _pointers(data: bytes, calls: dict[int, int], size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, number) of the pointers to well-known calls."""
    for address, nr in calls.items():
        needle = (address % (1 << 8 * size)).to_bytes(size, "little")
        at = data.find(needle)
        while at >= 0:
            if at % size == 0:
                yield at, nr
            at = data.find(needle, at + 1)


def _run(kernel: Kernel, start: int, functions: dict[int, str], numbers: dict[str, int]) -> Table | None:
    """Return the table at ``start`` if most well-known calls lie there under their numbers, strangers among them."""
    words = _words(kernel, start, MOST_ENTRIES)
    if not _is_right(words, functions, numbers):
        return None
    last, strangers = 0, 0
    for nr, word in enumerate(words):
        last, strangers = (nr, 0) if word in functions else (last, strangers + 1)
        if strangers >= MOST_STRANGERS and nr >= LEAST_ENTRIES:
            break
    size = _with_foreign(kernel, words, last + 1)
    return Table(start, size, "its pointers to system-call functions") if size >= LEAST_ENTRIES else None


def _is_right(words: list[int], functions: dict[int, str], numbers: dict[str, int]) -> bool:
    """Say whether most well-known calls have their own numbers in a table.

    A compiler's suffixes are not looked at (``.cfi_jt``, ``.llvm.123``).
    """
    names = [(functions.get(words[nr], ""), call) for call, nr in numbers.items() if nr < len(words)]
    return sum(name.partition(".")[0].endswith(f"sys_{call}") for name, call in names) * 2 > len(numbers)


def _is_compat(kernel: Kernel, run: Table, functions: dict[int, str]) -> bool:
    words = _words(kernel, run.gva, run.size)[: run.size]
    return any("compat_sys_" in functions.get(word, "") for word in words)

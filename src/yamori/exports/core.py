"""The commands for a hypervisor as one C text, for one kernel: probes, walker, and the code that finds the kernel.

What differs between two boots of a kernel is found when a command runs: where the image lies in guest physical memory,
and its KASLR slide. Everything else is a constant: image and page tables agree on pages (the banner keeps its place in
its page), and within the image every distance stays (``vmlinux.lds.S`` of each architecture; KASLR moves the image as a
whole, ``arch/arm64/kernel/kaslr.c``, ``arch/riscv/mm/init.c``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import NamedTuple

from yamori.address import GPA, GVA
from yamori.detectors.baseline import Baseline
from yamori.errors import Fault, ProfileError
from yamori.kernel.kernel import Kernel
from yamori.kernel.root import IMAGE_REACH
from yamori.kernel.uts import BANNER, likely_in_image
from yamori.llview.c_backend import folded_source
from yamori.llview.c_function import Constants
from yamori.llview.faults import Code
from yamori.llview.ir import IntType, Program
from yamori.llview.machine import SlotFill
from yamori.llview.unit import Unit, row_layout
from yamori.memory.physical import read_some
from yamori.probes import ahead
from yamori.probes.plist import tasks
from yamori.probes.run import run_probe
from yamori.probes.syscall import entries, find_table

TLB_ENTRIES = 64
"""Of the cache of translations: 2 KiB, since a device has few tasks and a hypervisor little memory."""

HEAD = 16
"""Bytes of code that are held against the export at each place to which the system-call table leads."""

ELSEWHERE = 0xFFFF_FFFF
"""Where an entry of the system-call table led that was not in the kernel's text when it was exported."""

FAULTS = {
    Code.NONE: "",
    Code.MISALIGNED: "misaligned GVA or GPA",
    Code.SIZE: "a member that is no integer at GVA",
    Code.NOT_KERNEL: "not a kernel address:",
    Code.UNMAPPED: "not mapped: GVA",
    Code.OUTSIDE: "outside the guest's RAM: GPA",
    Code.INDEX: "no such element:",
    Code.PROGRAM: "given up",
    Code.BUDGET: "it takes too long, or has no end",
    Code.ROWS: "there are too many rows",
    Code.GONE: "the hypervisor cannot map GPA",
}
"""What stands before a fault's address."""

HINTS = {"aarch64": (0, (1024 - 64) * 8), "arm-lpae": (0, 2 * 8, 4 * 4096)}
"""Bytes by which TTBR1 may lie behind ``init_mm.pgd``: nothing, or, on a 52-bit kernel on a 48-bit CPU, what
``TTBR1_BADDR_4852_OFFSET`` says; with LPAE ``TTBR1_OFFSET`` of the 2G/2G and the 3G/1G split. See
``yamori.translation``."""

PIECE = 1 << 20
LEAST_BANNER, MOST_BANNER = 32, 480
"""Bytes of a banner that fit into a line; those of distributions have 150 to 250."""


class Place(NamedTuple):
    """Where the parts of a kernel lie that the core goes by, when it is exported.

    Attributes:
        banner: GPA of ``linux_banner``.
        table: GVA of entry 0 of the native system-call table.
        calls: Where its entries lead, GVAs.
        text: GVAs of the kernel's text.
        heads: A digest of the code that each entry leads to; 0 where that is not in the text.
    """

    banner: int
    table: int
    calls: tuple[int, ...]
    text: range
    heads: tuple[int, ...]


def core_source(kernel: Kernel, baseline: Baseline | None = None) -> str:
    """Return the core for one kernel as freestanding C, which includes ``ids_core.h`` and no other header.

    Args:
        kernel: The kernel of an attached guest. Its rows are what the commands are compared with, so the guest has to
            be a sound one.
        baseline: What the device is meant to run: names of processes and their users are held against it.

    Raises:
        ProfileError: Something that the commands need is not known of this kernel, or the baseline names what they
            cannot compare.
    """
    machine = kernel.machine
    programs = ahead.unit((tasks, entries), machine.word_size).probes
    unit = Unit("ids", programs, (machine.walker,))
    place = _place(kernel)
    constants = Constants(
        slots={program.name: _slots(kernel, program) for program in programs},
        geometry=machine.geometry,
        arguments={"tasks": (0,), "entries": (None, len(place.calls))},
    )
    head = "The commands of Yamori inside of a hypervisor."
    return "\n".join(
        [
            f"/* {head}\n *\n * Written by `yamori export` for one kernel:\n * {_comment(kernel)}\n */\n",
            '#include "ids_core.h"\n',
            PROLOGUE,
            *_definitions(kernel, place, programs),
            *_allowed(baseline),
            "",
            folded_source(unit, constants, TLB_ENTRIES),
            *(_read(f"{part}.c") for part in ("core", "find", "commands", "check", "run")),
        ]
    )


def core_header() -> str:
    """Return ``ids_core.h``: what a port gives, and what it may call."""
    return _read("core.h")


def _read(name: str) -> str:
    return files("yamori.exports").joinpath(name).read_text(encoding="utf-8")


PROLOGUE = """\
/* Hypervisors are built for speed, of which there is enough here. No loop becomes a call of memset(). */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os", "no-tree-loop-distribute-patterns")
#endif

/* Nobody unwinds these functions: their frames' layout is for a debugger. */
__asm__(".cfi_sections .debug_frame");

/* The types that the rest needs, by what every gcc and clang predefines: a hypervisor's own headers may have others. */
#define int8_t ids_int8_t
#define int16_t ids_int16_t
#define int32_t ids_int32_t
#define int64_t ids_int64_t
#define uint8_t ids_uint8_t
#define uint16_t ids_uint16_t
#define uint32_t ids_uint32_t
#define uint64_t ids_uint64_t
#define uintptr_t ids_uintptr_t
typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __UINTPTR_TYPE__ uintptr_t;
#undef UINT64_C
#undef INT64_C
#ifdef __UINT64_C
#define UINT64_C(number) __UINT64_C(number)
#define INT64_C(number) __INT64_C(number)
#else
#define UINT64_C(number) number##ull
#define INT64_C(number) number##ll
#endif
#ifndef UINTPTR_MAX
#define UINTPTR_MAX __UINTPTR_MAX__
#endif
#ifndef INT64_MIN
#define INT32_MIN (-2147483647 - 1)
#define INT64_MIN (-INT64_C(9223372036854775807) - 1)
#endif
#ifndef NULL
#define NULL ((void *)0)
#endif
"""


# --- What is known of the kernel


def _linked(kernel: Kernel) -> int:
    """Return ``init_task``'s GVA without KASLR, where the slide is known: so that two boots give the same text."""
    return kernel.profile.init.gva - (kernel.profile.slide or 0)


def _slots(kernel: Kernel, program: Program) -> list[SlotFill]:
    """Return a program's slots; addresses of symbols as if ``init_task`` lay where ``_linked`` says."""
    fills = kernel.bind(program)
    moved = kernel.profile.init.gva - _linked(kernel)
    return [
        fill._replace(offset=(fill.offset - moved) % (1 << 64)) if spec.kind == "symbol" and fill.exists else fill
        for spec, fill in zip(program.slots, fills, strict=True)
    ]


def _place(kernel: Kernel) -> Place:
    profile = kernel.profile
    if not LEAST_BANNER <= len(profile.banner) <= MOST_BANNER:
        raise ProfileError("the kernel's banner is not known", hint="`yamori doctor` says why")
    if profile.text is None:
        raise ProfileError(
            "where the kernel's text lies is not known", hint="give the maker's System.map with --symbols"
        )
    table = find_table(kernel, "native")
    result = run_probe(kernel, entries, (table.gva, table.size))
    if not result.complete:
        raise ProfileError(f"the system-call table cannot be read whole: {result.reasons[0]}")
    calls = tuple(row.address for row in result.rows)
    heads = tuple(_head(kernel, call) if call in profile.text else 0 for call in calls)
    return Place(_banner(kernel), table.gva, calls, profile.text, heads)


def _head(kernel: Kernel, gva: int) -> int:
    """Return a digest of the code at a place, which ``ids_head`` of ``check.c`` makes, too."""
    digest = 0
    data = kernel.space.read(GVA(gva & ~3), HEAD)  # the lowest bit of a Thumb function's address says so
    for at in range(0, HEAD, 4):
        word = int.from_bytes(data[at : at + 4], "little")
        digest = ((digest ^ word) * 0x9E37_79B1) & 0xFFFF_FFFF
    return (digest >> 16) | 1


def _allowed(baseline: Baseline | None) -> Iterator[str]:
    """Yield the processes that are meant to run, and their users."""
    rows: list[str] = []
    users: list[str] = []
    for one in baseline.process or [] if baseline else []:
        if not one.name.isascii() or not one.name.isprintable() or "\\" in one.name:
            raise ProfileError(f"the baseline's process {one.name!r} cannot be compared in a hypervisor")
        rows.append(f"{{{_string(one.name)}, {len(users)}, {len(one.users or [])}, {int(one.required)}}}")
        users += [f"{user}u" for user in one.users or []]
    yield f"#define IDS_ALLOWED {_list([*rows, '{NULL, 0, 0, 0}'])}"
    yield f"#define IDS_USERS {_list([*users, '0u'])}"


def _banner(kernel: Kernel) -> int:
    """Return the GPA of the live banner.

    Raises:
        ProfileError: It is not in the kernel's image.
    """
    init = kernel.profile.init
    wanted = kernel.profile.banner.encode() + b"\n\0"
    named = kernel.profile.address("linux_banner")
    places = [named - init.image_offset] if named is not None else []
    sound = [place for place in places if place >= 0 and read_some(kernel.memory, GPA(place), len(wanted)) == wanted]
    for place in sound or likely_in_image(kernel.space, init, _sightings(kernel, wanted)):
        return place
    raise ProfileError("the kernel's banner is not in its image", hint="`yamori doctor` says what was found")


def _sightings(kernel: Kernel, wanted: bytes) -> Iterator[int]:
    """Yield the GPAs near ``init_task`` at which a text lies."""
    init = kernel.profile.init
    for first in range(max(0, init.gpa - IMAGE_REACH) & -PIECE, init.gpa + IMAGE_REACH, PIECE):
        try:
            data = read_some(kernel.memory, GPA(first), PIECE + len(wanted))
        except Fault:
            continue
        at = data.find(wanted)
        while at >= 0:
            yield first + at
            at = data.find(wanted, at + 1)


def _definitions(kernel: Kernel, place: Place, programs: Iterable[Program]) -> Iterator[str]:
    profile, machine = kernel.profile, kernel.machine
    init, banner = profile.init, profile.banner
    members = {
        "REAL_PARENT": profile.require("task_struct", "real_parent"),
        "GROUP_LEADER": profile.require("task_struct", "group_leader"),
        "TASKS": profile.require("task_struct", "tasks"),
    }
    yield f"#define IDS_WORD {machine.word_size}"
    yield f"#define IDS_BANNER {_string(banner)}"
    yield f"#define IDS_BANNER_IN_PAGE {place.banner % 4096}u"
    telling = len(BANNER) - (place.banner + len(BANNER)) % -8
    word = int.from_bytes(f"{banner}\n".encode()[telling : telling + 8], "little")
    yield "/* An aligned word of the banner, behind where all banners are alike. */"
    yield f"#define IDS_TELLING {telling}u"
    yield f"#define IDS_TOLD UINT64_C({word:#x})"
    yield f"#define IDS_LINU UINT64_C({int.from_bytes(b'Linu', 'little'):#x})"
    yield "/* Of init_task, and bytes from there on. */"
    yield f"#define IDS_INIT_GVA UINT64_C({_linked(kernel):#x})"
    yield f"#define IDS_COMM {init.comm - init.gpa}u"
    yield from (f"#define IDS_{name} {member.offset}u" for name, member in members.items())
    distances = {
        "BANNER": place.banner - init.gpa,
        "ROOT": profile.root.gpa - init.gpa,
        "TEXT": place.text.start - init.gva,
        "TABLE": place.table - init.gva,
    }
    yield from (f"#define IDS_{name}_AT INT64_C({distance})" for name, distance in distances.items())
    yield f"#define IDS_TEXT_SIZE UINT64_C({len(place.text):#x})"
    yield f"#define IDS_ELSEWHERE {ELSEWHERE:#x}u"
    calls = [call - place.text.start if call in place.text else ELSEWHERE for call in place.calls]
    yield f"#define IDS_CALLS {_list(f'{call:#x}u' for call in calls)}"
    yield f"#define IDS_HEADS {_list(f'{head:#x}u' for head in place.heads)}"
    yield f"#define IDS_HEAD {HEAD}u"
    yield "/* The page tables. */"
    yield f"#define IDS_PAGE_SHIFT {machine.page_shift}"
    yield f"#define IDS_KERNEL_FIRST UINT64_C({machine.kernel[0]:#x})"
    yield f"#define IDS_KERNEL_LAST UINT64_C({machine.kernel[1]:#x})"
    yield f"#define IDS_GEOMETRY {_list(f'UINT64_C({word})' for word in machine.geometry) or '0'}"
    hints = HINTS.get(profile.root.geometry.format, (0,))
    yield f"#define IDS_HINTS {_list(f'{behind}u' for behind in hints)}"
    yield f"#define IDS_FAULTS {_list(_string(FAULTS[code]) for code in Code)}"
    for program in programs:
        messages = _list(_string(text.partition(": `")[0]) for text in program.messages)
        yield f"#define IDS_{program.name.upper()}_MESSAGES {messages or 'NULL'}"
        yield _row(program)


def _row(program: Program) -> str:
    """Where the fields of a program's rows lie, in words, and which bit says that one is there."""
    layout = row_layout(program)
    lines, at = [], 1
    for number, (field, words) in enumerate(zip(program.row, layout.words, strict=True)):
        name = f"ids_{program.name}_{field.name}"
        lines += [f"    {name} = {at},", f"    {name}_bit = {number},"]
        if isinstance(field.type, IntType):
            lines.append(f"    {name}_signed = {int(field.type.signed)},")
        else:
            lines.append(f"    {name}_words = {words},")
        at += words
    return "\n".join(["enum {", *lines, f"    ids_{program.name}_words = {at}", "};"])


def _list(items: Iterable[str]) -> str:
    lines, line = [], ""
    for item in items:
        if len(line) + len(item) > 100:
            lines.append(line)
            line = ""
        line += f"{item}, "
    return "".join(f" \\\n    {text.rstrip()}" for text in [*lines, line] if text)


def _string(text: str) -> str:
    """Return printable ASCII as a C string."""
    plain = text.encode("ascii", "replace").decode()
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?") + '"'


def _comment(kernel: Kernel) -> str:
    return kernel.profile.banner.replace("*/", "* /").replace("/*", "/ *")

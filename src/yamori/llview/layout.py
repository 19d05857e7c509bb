"""The structures that native code and Python share: fields of 64 bits only, so that every machine lays them out alike.

This is their one description: the C text, the ``ctypes`` structures and the constant by which an object says which
layout it was built with all come from it.
"""

from __future__ import annotations

import ctypes
import hashlib
from typing import Any, Final

from yamori.llview.faults import TLB_ENTRIES, Code

VIRTUAL, PHYSICAL = 0, 1
"""Kinds of events."""

GEOMETRY_WORDS = 8
"""The most parameters that a walker has behind ``root`` and ``gva``."""

_STRUCTURES: Final[dict[str, tuple[tuple[str, str, int, str], ...]]] = {
    "fault": (
        ("code", "", 1, "LL_NONE, ..."),
        ("address", "", 1, "GVA, GPA or index"),
        ("value", "", 1, "see the code"),
        ("message", "", 1, "number of the program's or walker's message"),
    ),
    "entry": (
        ("root", "", 1, "GPA of the table"),
        ("first", "", 1, "GVA of its first byte"),
        ("gpa", "", 1, "the page's first byte"),
        ("host", "", 1, "its host address less its GVA; 0: not mapped"),
    ),
    "slot": (
        ("exists", "", 1, "0 or 1"),
        ("offset", "", 1, "bytes; the address of a symbol"),
        ("size", "", 1, "bytes"),
        ("is_signed", "", 1, "0 or 1"),
        ("shift", "", 1, "first bit of a bit-field"),
        ("bits", "", 1, "bits of a bit-field, or 0"),
        ("stride", "", 1, "bytes of an array's element"),
    ),
    "region": (
        ("gpa", "", 1, "first GPA"),
        ("size", "", 1, "bytes"),
        ("host", "", 1, "where it is mapped, or 0"),
        ("fd", "", 1, "descriptor, where it is not mapped"),
        ("offset", "", 1, "of its first byte in that file"),
        ("holes", "", 1, "where that cannot be read is no RAM"),
    ),
    "window": (
        ("gpa", "", 1, "first GPA"),
        ("size", "", 1, "bytes; 0: none yet"),
        ("host", "", 1, "host address of its first byte"),
    ),
    "event": (
        ("kind", "", 1, "LL_VIRTUAL or LL_PHYSICAL"),
        ("address", "", 1, "GVA or GPA"),
        ("size", "", 1, "bytes"),
    ),
    "trouble": (
        ("message", "", 1, "number of the program's message"),
        ("value", "", 1, "what goes with it"),
        ("torn", "", 1, "the guest changed what was read"),
        ("faulted", "", 1, "the last fault belongs to it"),
        ("fault", "fault", 1, "that fault, or LL_NONE"),
    ),
    "context": (
        ("root", "", 1, "GPA of the kernel's own table"),
        ("page_shift", "", 1, "log2 of the smallest page"),
        ("page_number", "", 1, "the bits of an address that name its page; set by the run"),
        ("kernel_first", "", 1, "first and last GVA of the kernel"),
        ("kernel_last", "", 1, ""),
        ("walker", "", 1, "number of the walker in the unit"),
        ("geometry", "", GEOMETRY_WORDS, "the walker's parameters"),
        ("budget", "", 1, "ticks left"),
        ("stop", "", 1, "not 0: the host wants the run to end as if nothing were left"),
        ("loads", "", 1, "loads of guest memory by GVA"),
        ("faults", "", 1, "faults taken"),
        ("fault", "fault", 1, "the last one"),
        ("slots", "", 1, "address of struct ll_slot[]"),
        ("arguments", "", 1, "address of uint64_t[]"),
        ("rows", "", 1, "address of the rows: present fields' bits, then the fields"),
        ("row_capacity", "", 1, "rows that fit"),
        ("row_stride", "", 1, "bytes of a row"),
        ("row_count", "", 1, "rows written"),
        ("troubles", "", 1, "address of struct ll_trouble[]"),
        ("trouble_capacity", "", 1, ""),
        ("trouble_count", "", 1, "those that did not fit, too"),
        ("events", "", 1, "address of struct ll_event[]"),
        ("event_capacity", "", 1, "0: loads are not recorded"),
        ("event_count", "", 1, "those that did not fit, too"),
        ("regions", "", 1, "address of struct ll_region[]: RAM, ascending"),
        ("region_count", "", 1, ""),
        ("pread", "", 1, "address of pread with 64-bit offsets"),
        ("window", "window", 1, "the mapped RAM used last; set by the run"),
        ("cache", "entry", TLB_ENTRIES, "of translations; set by the run"),
    ),
}
"""Name → (field, structure or "" for a word, how many, what it is)."""


def _c_structure(name: str, tlb_entries: int) -> str:
    lines = [f"struct ll_{name} {{"]
    for field, structure, given, comment in _STRUCTURES[name]:
        count = tlb_entries if field == "cache" else given
        kind = f"struct ll_{structure}" if structure else "uint64_t"
        array = f"[{count}]" if count > 1 else ""
        lines.append(f"    {kind} {field}{array};" + (f" /* {comment} */" if comment else ""))
    return "\n".join([*lines, "};"])


def inside_text(tlb_entries: int) -> str:
    """Return the structures and constants in C, without headers, for a text that Python never shares them with.

    Args:
        tlb_entries: Entries of the cache of translations; a power of two.
    """
    structures = "\n\n".join(_c_structure(name, tlb_entries) for name in _STRUCTURES)
    codes = ",\n".join(f"    LL_{code.name} = {code.value}" for code in Code)
    constants = (
        f"enum {{\n    LL_TLB_ENTRIES = {tlb_entries},\n    LL_VIRTUAL = {VIRTUAL},\n    LL_PHYSICAL = {PHYSICAL}\n}};"
    )
    return f"enum {{\n{codes}\n}};\n\n{constants}\n\n{structures}\n"


_TEXT = f"#include <stddef.h>\n#include <stdint.h>\n\n{inside_text(TLB_ENTRIES)}"

VERSION: Final = int.from_bytes(hashlib.sha256(_TEXT.encode()).digest()[:8], "little")
"""Changes with everything that native code and Python must agree on; an object carries it as ``ll_layout``."""

C_TEXT: Final = f"{_TEXT}\n#define LL_LAYOUT UINT64_C({VERSION:#x})\n"
"""The structures and constants in C."""


def _structure(name: str, known: dict[str, type[ctypes.Structure]]) -> type[ctypes.Structure]:
    fields = []
    for field, structure, count, _ in _STRUCTURES[name]:
        kind: Any = known[structure] if structure else ctypes.c_uint64
        fields.append((field, kind * count if count > 1 else kind))
    return type(f"ll_{name}", (ctypes.Structure,), {"_fields_": fields})


def _structures() -> dict[str, type[ctypes.Structure]]:
    known: dict[str, type[ctypes.Structure]] = {}
    for name in _STRUCTURES:
        known[name] = _structure(name, known)
    return known


STRUCTURES: Final = _structures()
"""Name, without ``ll_`` → structure."""


def words(name: str) -> int:
    """Return how many 64-bit words a structure has."""
    return ctypes.sizeof(STRUCTURES[name]) // 8

r"""What the kernel writes into memory for crash dump tools: VMCOREINFO.

A text of lines ``KEY=VALUE`` in one page (``kernel/crash_core.c``, since 6.9 ``kernel/vmcore_info.c``; the macros in
``include/linux/vmcore_info.h``; ``Documentation/admin-guide/kdump/vmcoreinfo.rst``), there with CONFIG_KEXEC or what
selects it. A second copy lies behind the header of an ELF note, name ``VMCOREINFO``, type 0.

The kernel's own format strings (``OSRELEASE=%s\n``) lie in memory too, and are refused. A copy left by an earlier
kernel, or planted by an intruder, looks as good as the live one: its addresses have to be tried on the page tables.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

NEEDLE = b"OSRELEASE="
"""How the text starts."""

MAX_SIZE = 1 << 16
"""Bytes of the longest text: one page, and the largest page of Linux is 64 KiB."""

_NOTE = struct.Struct("<III12s")  # Elf32_Nhdr and Elf64_Nhdr are alike; the name is padded to words
_NOTE_NAME = b"VMCOREINFO\0\0"
_LINE = re.compile(r"([A-Z][A-Za-z0-9_-]*)(?:\(([A-Za-z0-9_.]+)\))?=([!-~]+)")
_RELEASE = re.compile(r"(?=\d+\.\d)[!-~]{3,64}")  # __NEW_UTS_LEN is 64
_BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){8,32}")
_HEX = re.compile(r"[0-9a-f]{1,16}")
_PAGE_SIZES = frozenset({"4096", "8192", "16384", "32768", "65536"})
_UNSIGNED = re.compile(r"\d{1,20}")
_NUMBER = re.compile(r"(-?\d{1,20})|0x([0-9a-f]{1,16})")


@dataclass(frozen=True, slots=True)
class VmCoreInfo:
    """A parsed VMCOREINFO.

    Attributes:
        release: ``OSRELEASE``, as in ``uname -r``.
        page_size: ``PAGESIZE``, bytes: the granule of the kernel.
        build_id: ``BUILD-ID`` as hexadecimal digits; empty before 0935288c6e00 (5.9).
        kernel_offset: ``KERNELOFFSET``: the KASLR slide in bytes, where the architecture tells it.
        symbols: ``SYMBOL(name)``: GVAs, with the slide.
        offsets: ``OFFSET(struct.member)``: bytes.
        sizes: ``SIZE(name)``: bytes.
        lengths: ``LENGTH(name)``: elements of an array.
        numbers: ``NUMBER(name)``: constants and variables; addresses among them are not negative.
    """

    release: str
    page_size: int
    build_id: str
    kernel_offset: int | None
    symbols: Mapping[str, int]
    offsets: Mapping[str, int]
    sizes: Mapping[str, int]
    lengths: Mapping[str, int]
    numbers: Mapping[str, int]


def parse(data: bytes) -> VmCoreInfo | None:
    """Parse a VMCOREINFO text.

    Args:
        data: Bytes from ``NEEDLE`` on, or from the header of the ELF note on; what follows the text does not matter.

    Returns:
        What it says, or ``None`` where any line is not as the kernel writes it, an essential one is missing, two
        contradict each other, or the text is longer than the page it is said to fill.
    """
    text = _text(data)
    lines = _split(text)
    if lines is None:
        return None
    plain, groups = lines
    release, page_size = plain.get("OSRELEASE", ""), plain.get("PAGESIZE", "")
    build_id, offset = plain.get("BUILD-ID", ""), plain.get("KERNELOFFSET")
    if page_size not in _PAGE_SIZES or len(text) > int(page_size) or not _RELEASE.fullmatch(release):
        return None
    if (build_id and not _BUILD_ID.fullmatch(build_id)) or (offset is not None and not _HEX.fullmatch(offset)):
        return None
    tables = {kind: _integers(kind, entries) for kind, entries in groups.items()}
    symbols, offsets, sizes = tables["SYMBOL"], tables["OFFSET"], tables["SIZE"]
    lengths, numbers = tables["LENGTH"], tables["NUMBER"]
    if not symbols or offsets is None or sizes is None or lengths is None or numbers is None:
        return None
    kernel_offset = None if offset is None else int(offset, 16)
    return VmCoreInfo(release, int(page_size), build_id, kernel_offset, symbols, offsets, sizes, lengths, numbers)


def _text(data: bytes) -> str:
    """Return the text up to its NUL or the end of the data; empty where this is none."""
    size = MAX_SIZE
    if len(data) >= _NOTE.size and data[12:24] == _NOTE_NAME:
        name_size, size, kind, _ = _NOTE.unpack_from(data)
        if (name_size, kind) != (len("VMCOREINFO") + 1, 0) or size > MAX_SIZE:
            return ""
        data = data[_NOTE.size :]
    text = data[:size].partition(b"\0")[0]
    if not text.startswith(NEEDLE) or not text.endswith(b"\n") or not text.isascii():
        return ""
    return text.decode("ascii")


def _split(text: str) -> tuple[dict[str, str], dict[str, dict[str, str]]] | None:
    """Return the plain keys, and those with a name in parentheses by their kind."""
    plain: dict[str, str] = {}
    groups: dict[str, dict[str, str]] = {"SYMBOL": {}, "OFFSET": {}, "SIZE": {}, "LENGTH": {}, "NUMBER": {}}
    for line in text[:-1].split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        kind, name, value = match.groups()
        entries = plain if name is None else groups.get(kind, {})  # an unknown kind is let pass
        if entries.setdefault(name or kind, value) != value:
            return None
    return plain, groups


def _integers(kind: str, entries: dict[str, str]) -> dict[str, int] | None:
    """Convert the values as the kernel's format string for that kind prints them."""
    values: dict[str, int] = {}
    for name, text in entries.items():
        if kind == "NUMBER":
            match = _NUMBER.fullmatch(text)
            if match is None:
                return None
            values[name] = int(match[1]) if match[1] else int(match[2], 16)
        elif not (_HEX if kind == "SYMBOL" else _UNSIGNED).fullmatch(text):
            return None
        else:
            values[name] = int(text, 16 if kind == "SYMBOL" else 10)
    return values

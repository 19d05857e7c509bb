"""``init_uts_ns`` and ``linux_banner``: what the running kernel says of itself, told from copies and decoys.

The string "Linux version " occurs several times in any guest's memory: the live ``linux_banner``, the boot log, format
strings, remains of the decompressor, files in the page cache. The live one repeats the release and the version of
``init_uts_ns``, which ``init_task`` leads to through its ``nsproxy`` (``init/version.c``, ``include/linux/utsname.h``).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import NamedTuple

from yamori.address import GPA, GVA
from yamori.errors import Fault
from yamori.kernel.init_task import InitTask
from yamori.memory.physical import PhysicalMemory, read_some
from yamori.records import escape
from yamori.translation.space import AddressSpace

FIELD = 65  # __NEW_UTS_LEN + 1, include/uapi/linux/utsname.h
NEEDLE = b"Linux".ljust(FIELD, b"\0")
"""``new_utsname.sysname`` (``UTS_SYSNAME``), padded to its field."""

BANNER = b"Linux version "
LONGEST_BANNER = 1024
NSPROXY_REACH = 2048  # bytes behind comm in which task_struct.nsproxy lies: fs, files, nsproxy follow it closely
NSPROXY_WORDS = 4  # count, then uts_ns (include/linux/nsproxy.h)
UTS_NS_REACH = 64  # bytes of struct uts_namespace before name: a kref until 5.10, nothing or ns_common since


class Uts(NamedTuple):
    """``struct new_utsname`` of the first namespace.

    Attributes:
        gpa: Where it lies.
        nodename: The host's name; bytes that are no printable ASCII are escaped as in C.
        release: As ``uname -r`` prints.
        version: As ``uname -v`` prints.
        machine: As ``uname -m`` prints.
        proved: ``init_task`` leads to it.
    """

    gpa: int
    nodename: str
    release: str
    version: str
    machine: str
    proved: bool


def read_uts(memory: PhysicalMemory, gpa: int) -> Uts | None:
    """Return the ``new_utsname`` at ``gpa``, or ``None`` if it does not hold printable strings.

    The names of host and domain are what the guest's root likes (``sethostname``), so they may hold any bytes.
    """
    try:
        data = memory.read(GPA(gpa), 6 * FIELD)
    except Fault:
        return None
    fields = []
    for at in range(0, 6 * FIELD, FIELD):
        text, nul, _ = data[at : at + FIELD].partition(b"\0")
        free = at in (FIELD, 5 * FIELD)  # nodename, domainname
        if not nul or not (free or (text.isascii() and text.decode().isprintable())):
            return None
        fields.append(escape(text) if free else text.decode())
    sysname, nodename, release, version, machine, _ = fields
    if not (sysname and release and version and machine):
        return None
    return Uts(gpa, nodename, release, version, machine, proved=False)


def find_uts(memory: PhysicalMemory, space: AddressSpace, init: InitTask, hits: Iterable[int]) -> Uts | None:
    """Return ``init_uts_ns.name``: the one that ``init_task->nsproxy`` leads to, else the nearest to ``init_task``."""
    found = [uts for hit in hits if (uts := read_uts(memory, hit))]
    found.sort(key=lambda uts: abs(uts.gpa - init.gpa))
    targets = _namespaces(memory, space, init)
    for uts in found:
        gva = uts.gpa + init.image_offset
        if any(gva - UTS_NS_REACH <= target <= gva for target in targets):
            return uts._replace(proved=True)
    return found[0] if found else None


def _namespaces(memory: PhysicalMemory, space: AddressSpace, init: InitTask) -> set[int]:
    """Return what the first words of the objects say that ``init_task`` points to behind ``comm``."""
    code, size = ("Q", 8) if init.word_size == 8 else ("I", 4)
    words: set[int] = set()
    try:
        pointers = array(code, memory.read(GPA(init.comm & -size), NSPROXY_REACH))
    except Fault:
        return words
    for pointer in set(pointers):
        try:
            if pointer % size == 0 and space.geometry.canonical(GVA(pointer)):
                words.update(array(code, space.read(GVA(pointer), NSPROXY_WORDS * size)))
        except Fault:
            continue
    return words


def read_banner(memory: PhysicalMemory, gpa: int) -> str | None:
    """Return the banner at ``gpa`` without its newline, if it ends as ``linux_banner`` does: newline, NUL."""
    text, nul, _ = read_some(memory, gpa, LONGEST_BANNER).partition(b"\0")
    if nul and text.endswith(b"\n") and text[:-1].isascii() and text[:-1].decode().isprintable():
        return text[:-1].decode()
    return None


def in_image(space: AddressSpace, init: InitTask, gpa: int) -> bool:
    """Say whether the kernel's tables map ``gpa`` where it would be if it were part of the kernel's image."""
    try:
        return space.translate(GVA(gpa + init.image_offset)).gpa == gpa
    except Fault:
        return False


def likely_in_image(space: AddressSpace, init: InitTask, places: Iterable[int]) -> list[int]:
    """Return those of ``places`` that are in the image, the read-only ones first, then the nearest to ``init_task``.

    Where image and linear map have the same offset, as on 32-bit Arm, a program's pages look like the image's; but
    the kernel's read-only data cannot be written to, and theirs can.
    """
    found = []
    for place in places:
        try:
            mapping = space.translate(GVA(place + init.image_offset))
        except Fault:
            continue
        if mapping.gpa == place and not mapping.user:
            found.append((mapping.writable, abs(place - init.gpa), place))
    return [place for _, _, place in sorted(found)]


def live_banners(memory: PhysicalMemory, uts: Uts, hits: Iterable[int]) -> list[tuple[int, str]]:
    """Return (GPA, text) of the banners that agree with ``uts`` in release and version.

    Ubuntu's kernels name their package behind the version, in parentheses.
    """
    found = ((hit, banner) for hit in hits if (banner := read_banner(memory, hit)))
    return [(hit, banner) for hit, banner in found if _agrees(banner, uts)]


def _agrees(banner: str, uts: Uts) -> bool:
    before, _, package = banner.rpartition(f" {uts.version}")
    return before.startswith(f"Linux version {uts.release} (") and (
        not package or (package.startswith(" (") and package.endswith(")"))
    )

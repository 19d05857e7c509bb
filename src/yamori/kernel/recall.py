"""Attaching again: what was found last time, proved anew.

What is kept of a VM is hints: where things lay, and at which offsets members were. Discovery then runs as it always
does, with its own proofs, but looks at these places instead of at all of RAM. What comes out has to be what came out
last time, without any doubt, or RAM is read after all. So an entry that is old, damaged or planted costs a few
milliseconds; it is never believed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Annotated

import msgspec

from yamori.address import GVA
from yamori.errors import Fault, MemoryFault, YamoriError
from yamori.kernel import init_task as first_task
from yamori.kernel.discovery import MOST_LOOKED_AT, NEEDLES, Discovery
from yamori.kernel.given import Given
from yamori.kernel.inferred import InferredTypes
from yamori.kernel.init_task import InitTask
from yamori.kernel.kernel import Kernel
from yamori.kernel.memo import Memo
from yamori.kernel.profile import Profile, Step
from yamori.kernel.rambase import Rebased
from yamori.kernel.root import Named
from yamori.kernel.scan import Progress
from yamori.kernel.store import NOWHERE, Store, unpacked
from yamori.kernel.uts import in_image
from yamori.memory.physical import PhysicalMemory, read_some

STEP = 1 << 21
"""Bytes by multiples of which KASLR moves an image in physical memory: CONFIG_PHYSICAL_ALIGN of x86-64,
MIN_KIMG_ALIGN of arm64; 32-bit Arm and RISC-V images start at such places, too."""

MOST_AGE = 24 * 3600.0
"""Seconds for which hints serve. What was hidden, or not there yet, when RAM was read is found a day later at most."""

PAGE = 4096
MOST_LINKS = 256
"""Entries of the list of tasks that are looked at, from ``init_task`` on."""

MOST_RAM = 1 << 40
"""Bytes of RAM in which other boots are looked for, in a second: the headers of an image may tell of any number."""

SEARCHED = "search of"
"""How the source of a root begins that nothing names."""


_Place = Annotated[int, msgspec.Meta(ge=0, lt=1 << 52)]
_Offset = Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]


class Hints(msgspec.Struct, array_like=True):
    """What is kept of a VM.

    Attributes:
        searched: When all of RAM was read, in seconds since 1970 on this host.
        base: GPA of the first byte of RAM, where the page tables told it.
        places: GPAs at which the scan of RAM would find what it looks for.
        offsets: Where inference found members.
        unknown: What inference did not find, and why.
        root: The GVA of the root and who named it, where nothing in memory does.
        summary: A digest of what was learnt.
    """

    searched: float
    base: _Place | None
    places: dict[str, list[_Place]]
    offsets: list[_Offset]
    unknown: dict[str, str]
    root: tuple[str, int] | None
    summary: bytes


def learn(
    memory: PhysicalMemory,
    given: Given | None = None,
    *,
    base_known: bool = True,
    progress: Progress | None = None,
    store: Store = NOWHERE,
    subject: str = "",
) -> Kernel:
    """Find the running kernel and learn what the commands need of it, as ``discover`` does, with the help of a store.

    Args:
        memory: The guest's RAM.
        given: What the maker gives.
        base_known: False where the memory's addresses count from 0 because nobody knows the RAM base.
        progress: Told how much of RAM has been read, where it has to be.
        store: What earlier runs kept.
        subject: Which VM this is, and how its RAM is laid out. Another VM's hints would cost time only.

    Raises:
        NoKernelError: Nothing that can be proved to be a running Linux kernel is there.
        ProfileError: What the maker gives is of another kernel.
    """
    given, memo = given or Given(), Memo(store)
    name = _name(subject, given, base_known=base_known)
    hints = unpacked(store.load(name), Hints)
    fresh = hints and 0 <= time.time() - hints.searched < MOST_AGE
    if hints and fresh and (kernel := _recalled(memory, given, memo, hints)):
        return kernel
    discovery = Discovery(memory, given, memo)
    kernel = discovery.run(base_known=base_known, progress=progress)
    discovery.keep()
    if memo.served:
        kernel.profile.steps.append(_step(f"{' and '.join(sorted(memo.served))}: these bytes were decoded before"))
    if kept := _hints(discovery, kernel):
        store.save(name, msgspec.msgpack.encode(kept))
    elif hints:
        store.drop(name)
    return kernel


def _name(subject: str, given: Given, *, base_known: bool) -> str:
    about = f"{subject}\0{base_known}\0{given.source}\0{given.build_id}"
    return f"vm-{hashlib.sha256(about.encode(errors='surrogatepass')).hexdigest()[:32]}"


def _step(what: str) -> Step:
    return Step("cache", what, "", "proved", 0.0)


def _recalled(memory: PhysicalMemory, given: Given, memo: Memo, hints: Hints) -> Kernel | None:
    """Return the kernel if all that the hints say can be proved; ``None`` where RAM has to be read."""
    discovery = Discovery(memory if hints.base is None else Rebased(memory, hints.base), given, memo, hints.offsets)
    discovery.base = hints.base
    discovery.places = {needle: hints.places.get(needle, [])[:MOST_LOOKED_AT] for needle in NEEDLES}
    discovery.root = Named(*hints.root) if hints.root else None
    discovery.searching = False
    try:
        discovery.sort_out()
        if len(discovery.candidates) != 1 or _is_elsewhere(discovery.memory, discovery.candidates[0]):
            return None
        discovery.find_root()
        kernel = discovery.conclude()
    except YamoriError:
        return None
    if discovery.doubts or _summary(kernel) != hints.summary or not _is_whole(kernel):
        return None
    discovery.keep()
    _inferred(kernel.profile).unknown.update(hints.unknown)
    decoded = f", {' and '.join(sorted(memo.served))} decoded before" if memo.served else ""
    kernel.profile.steps.insert(0, _step(f"known from last time{decoded}; all proved anew, RAM was not searched"))
    return kernel


def _is_elsewhere(memory: PhysicalMemory, init: InitTask) -> bool:
    """Say whether another boot of this kernel lies in RAM: the one that was known may have ended, and left its memory.

    Both have ``init_task`` at the same distance from a multiple of ``STEP``.
    """
    if sum(region.size for region in memory.regions) > MOST_RAM:
        return True  # nobody has looked
    hits = [gpa for gpa in _places(memory, init.comm) if gpa != init.comm]
    return bool(first_task.candidates(memory, hits))


def _places(memory: PhysicalMemory, comm: int) -> Iterator[int]:
    """Yield where ``comm`` would be in any boot and ``swapper`` is."""
    page, at = comm % STEP // PAGE * PAGE, comm % PAGE
    for region in memory.regions:
        for gpa in range(region.gpa + (page - region.gpa) % STEP, region.end, STEP):
            try:
                # A read of one page may go through a mapping, and make the host allocate what the guest never touched.
                found = read_some(memory, gpa, 2 * PAGE)[at : at + first_task.COMM_LENGTH]
            except MemoryFault:  # an image may leave pages out, but not those of a kernel
                continue
            if found in first_task.COMMS:
                yield gpa + at


def _is_whole(kernel: Kernel) -> bool:
    """Say whether the list of tasks is as sound as in a kernel that runs: the memory of one that ended is reused."""
    member = kernel.profile.member("task_struct", "tasks")
    if member is None:
        return False
    space, word = kernel.space, kernel.profile.init.word_size
    head = node = kernel.profile.init.gva + member.offset
    try:
        for _ in range(MOST_LINKS):
            after = space.pointer(GVA(node))
            if space.pointer(GVA(after + word)) != node:
                return False
            node = after
            if node == head:
                break
    except Fault:
        return False
    return True


def _inferred(profile: Profile) -> InferredTypes:
    """Return the last source of types, which is always there."""
    inferred = profile.types[-1]
    assert isinstance(inferred, InferredTypes)  # noqa: S101  # conclude puts it there
    return inferred


def _summary(kernel: Kernel) -> bytes:
    """Return a digest of what is known of a kernel, whatever changes while it runs, and from boot to boot, left out."""
    profile = kernel.profile
    uts, info, root, inferred = profile.uts, profile.vmcoreinfo, profile.root, _inferred(profile)
    facts = (
        uts and uts._replace(gpa=0, nodename=""),
        profile.banner,
        info and (info.release, info.build_id, info.page_size),
        (root.geometry.format, root.geometry.parameters, root.source, root.anchors),
        [(symbols.provenance, len(symbols)) for symbols in profile.symbols],
        [types.provenance for types in profile.types],
        profile.slide is None,
        profile.text and len(profile.text),
        sorted(inferred.members.items()),
        sorted(inferred.unknown),
    )
    return hashlib.sha256(repr(facts).encode()).digest()


def _hints(discovery: Discovery, kernel: Kernel) -> Hints | None:
    """Return what will help next time; ``None`` where anything is not certain."""
    profile = kernel.profile
    inferred = _inferred(profile)
    if profile.doubts or not profile.uts or not profile.banner or inferred.booting or not inferred.members:
        return None
    init, root = profile.init, profile.root
    places = {
        needle: [place for place in seen if needle == "vmcoreinfo" or in_image(kernel.space, init, place)]
        for needle, seen in discovery.places.items()
    }
    searched = root.source.startswith(SEARCHED)
    return Hints(
        time.time(),
        discovery.base,
        {**places, "init_task": [init.comm]},
        sorted({member.offset for member in inferred.members.values()}),
        inferred.unknown,
        (root.source, root.gpa + init.image_offset) if searched else None,
        _summary(kernel),
    )

"""Attaching where memory comes a few KB a second: nothing is searched for, what the maker gives says where to look.

The image of a kernel lies as a whole, at a multiple of 2 MB from where it was linked (see ``recall.STEP``), so
``init_task`` has one place in each 2 MB of RAM, and all else a known distance from it. What is there is proved as it
always is; symbols and types are the maker's, and are not read out of the guest.
"""

from __future__ import annotations

from yamori.address import GPA
from yamori.errors import MemoryFault, NoKernelError, ProfileError
from yamori.kernel.discovery import MOST_LED, NEEDLES, ROOT_NAMES, Discovery
from yamori.kernel.given import Given
from yamori.kernel.inferred import offsets
from yamori.kernel.init_task import COMM_LENGTH, COMMS
from yamori.kernel.kernel import Kernel
from yamori.kernel.portable import UTS_NAME
from yamori.kernel.recall import STEP
from yamori.kernel.root import Named
from yamori.kernel.scan import Progress
from yamori.kernel.uts import NEEDLE, UTS_NS_REACH
from yamori.memory.physical import PhysicalMemory, read_some

NEEDED = "over a slow line a kernel cannot be learnt from its memory"
HINT = "give --vmlinux with a profile of this kernel, as `yamori profile export` writes it of a guest that runs it"


def attach(memory: PhysicalMemory, given: Given, progress: Progress | None = None) -> Kernel:
    """Find the kernel that the maker's files are of.

    Args:
        memory: The guest's RAM.
        given: What the maker gives: symbols and types.
        progress: Told how much of the RAM has been looked at.

    Raises:
        ProfileError: It does not give both, or is of another kernel.
        NoKernelError: No such kernel runs.
    """
    comm = given.types.member("task_struct", "comm") if given.types else None
    if given.types is None or comm is None:
        raise ProfileError(NEEDED, where=given.source, hint=HINT)
    init, uts, banner, root = (
        _linked(given, *names) for names in (("init_task",), ("init_uts_ns", UTS_NAME), ("linux_banner",), ROOT_NAMES)
    )
    discovery = Discovery(memory, given, likely=offsets(given.types), searching=False)
    with discovery.step("places in 2 MB") as outcome:
        found = _places(memory, (init + comm.offset) % STEP, progress)
        outcome(f"{len(found)} that may be init_task", f"GPA {found[0]:#x}" if found else "", "stated")
    starts = [place - comm.offset for place in found]
    discovery.places = {needle: [] for needle in NEEDLES} | {
        "init_task": found,
        "banner": [start + banner - init for start in starts],
        "uts": [at for start in starts for at in _names(memory, start + uts - init)],
    }
    discovery.sort_out()
    if not discovery.candidates:
        raise NoKernelError("no kernel of these files runs there, or it is still booting")
    _prove(discovery, root - init)
    return discovery.conclude()


def _prove(discovery: Discovery, distance: int) -> None:
    """Prove the root: it lies at one distance from ``init_task``, of which a guest may plant others.

    Raises:
        NoKernelError: None can be proved.
    """
    slides = dict.fromkeys(candidate.gva for candidate in discovery.candidates[:MOST_LED])
    for number, gva in enumerate(slides, 1):
        discovery.root = Named(discovery.given.source, gva + distance)
        try:
            discovery.find_root()
        except NoKernelError:
            if number == len(slides):
                raise
        else:
            return


def _linked(given: Given, *names: str) -> int:
    """Return where the first of some symbols was linked."""
    for name in names:
        address = given.symbols.address(name) if given.symbols else None
        if address is not None:
            return address
    raise ProfileError(NEEDED, where=given.source, hint=HINT)


def _places(memory: PhysicalMemory, within: int, progress: Progress | None) -> list[int]:
    """Return where the name of ``init_task`` is, at one place in each 2 MB."""
    found = []
    total = sum(region.size for region in memory.regions)
    done = 0
    for region in memory.regions:
        for gpa in range(region.gpa + (within - region.gpa) % STEP, region.end - COMM_LENGTH, STEP):
            done += STEP
            try:
                if memory.read(GPA(gpa), COMM_LENGTH) in COMMS:
                    found.append(gpa)
            except MemoryFault:
                continue
            if progress:
                progress(min(done, total), total)
    return found


def _names(memory: PhysicalMemory, gpa: int) -> list[int]:
    """Return where ``uts_namespace.name`` begins, near its start."""
    data = read_some(memory, gpa, UTS_NS_REACH + len(NEEDLE))
    at = data.find(NEEDLE)
    return [gpa + at] if at >= 0 else []

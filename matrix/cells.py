"""Which machines there are in the matrix, and which were left out.

From the base machine of each kernel one thing is changed at a time. What the kernels do about several at once is the
same: where RAM is, how many CPUs there are, and where the kernel lies are told by different parts of memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from yamori.lab.qemu import Ram


class Cell(NamedTuple):
    """One machine.

    Attributes:
        device: The lab's device.
        suite: The Debian suite of its kernel.
        what: What is different from the base machine of this kernel; empty for that.
        memory: RAM, as QEMU takes it; the device's own unless given.
        smp: vCPUs.
        busy: Whether a loop in user mode runs on every vCPU.
        append: Words for the kernel's command line.
        cpu: QEMU's ``-cpu``, the device's own unless given.
        ram: Where QEMU keeps the RAM.
        vendor: A kernel of ``matrix/vendor`` instead of a stock one.
        refused: The kernel is one that Yamori has to refuse, saying why.
    """

    device: str
    suite: str
    what: str = ""
    memory: str | None = None
    smp: int = 1
    busy: bool = False
    append: str = ""
    cpu: str = ""
    ram: Ram = "memfd"
    vendor: str = ""
    refused: str = ""

    @property
    def name(self) -> str:
        """What selects it: ``arm64-bookworm-two-busy-vcpus``."""
        if self.vendor:
            return f"vendor-{self.vendor}"
        return "-".join([self.device, self.suite, *self.what.replace(",", "").replace("/", "-").split()]).lower()


KERNELS: dict[str, tuple[str, ...]] = {
    "armv7": ("bullseye", "bookworm", "trixie", "sid"),
    "armv7-lpae": ("bullseye", "bookworm", "trixie", "sid"),
    "armv6": ("bullseye", "bookworm"),
    "arm64": ("bullseye", "bookworm", "trixie", "sid"),
    "arm64-16k": ("trixie", "sid"),
    "arm64-rt": ("bookworm", "trixie"),
    "riscv64": ("trixie", "sid"),
    "x86-64": ("bullseye", "bookworm", "trixie", "sid"),
}
"""Device → suites: 5.10, 6.1, 6.12 and the newest. No suite has others (armel's kernels ended with bookworm)."""

BASE = "bookworm"
"""The suite on whose kernels single things are changed, where it has one; otherwise the oldest that has."""

BUSY = Cell("", "", "two busy vCPUs", smp=2, busy=True)
CHANGES: dict[str, tuple[Cell, ...]] = {
    "armv7": (
        BUSY,
        Cell("", "", "64 MB", memory="64M"),
        Cell("", "", "2 GB", memory="2G"),
        Cell("", "", "private RAM", ram="private"),
    ),
    "armv7-lpae": (BUSY, Cell("", "", "3 GB", memory="3G")),
    "armv6": (),
    "arm64": (
        BUSY,
        Cell("", "", "KPTI, two busy vCPUs", smp=2, busy=True, append="kpti=1"),
        Cell("", "", "no KASLR", append="nokaslr"),
        Cell("", "", "-cpu max", cpu="max"),
        Cell("", "", "four vCPUs, 4 GB", smp=4, memory="4G"),
        Cell("", "", "128 MB", memory="128M"),
        Cell("", "", "RAM in a file", ram="file"),
    ),
    "arm64-16k": (BUSY, Cell("", "", "no KASLR", append="nokaslr")),
    "arm64-rt": (BUSY,),
    "riscv64": (
        BUSY,
        Cell("", "", "Sv48", append="no5lvl"),
        Cell("", "", "Sv39", append="no4lvl"),
        Cell("", "", "4 GB", memory="4G"),
    ),
    "x86-64": (
        Cell("", "", "KPTI, two busy vCPUs", smp=2, busy=True, append="pti=on"),
        Cell("", "", "no KPTI, no KASLR", append="nopti nokaslr"),
        Cell("", "", "5 levels off", append="no5lvl"),
        Cell("", "", "5 GB in two regions", memory="5G"),
        Cell("", "", "private RAM", ram="private"),
    ),
}

VENDOR = (
    Cell("armv5", "", "ARM926, functions only", vendor="armv5-versatilepb"),
    Cell("arm64", "", "39-bit VA, functions only", vendor="arm64-39bit"),
    Cell("arm64", "", "64K pages, lock debugging", vendor="arm64-debugged"),
    Cell("arm64", "", "RANDSTRUCT", vendor="arm64-randstruct", refused="CONFIG_RANDSTRUCT"),
    Cell("armv7", "", "2G/2G, no kallsyms", memory="128M", vendor="armv7-2g-no-kallsyms"),
    Cell("riscv64", "", "functions only", vendor="riscv64-sv39"),
    Cell("x86-64", "", "no kallsyms", vendor="x86-64-tiny"),
)
"""Small kernels as vendors build them, from Debian's sources: ``matrix/vendor/build.sh`` makes them in half an hour."""

FAST = ("armv7-bullseye", "arm64-sid", "arm64-16k-trixie", "riscv64-trixie-sv39")
"""What CI runs: an old and a new kernel, and the formats that no other test boots."""

FACTORS = {"vCPUs": 2, "idle or busy": 2, "sizes of RAM": 4, "KASLR": 2, "KPTI": 2, "kinds of RAM": 3}


def cells() -> Iterator[Cell]:
    """Yield every cell: the base machine of each kernel, then what is changed."""
    for device, suites in KERNELS.items():
        changed = BASE if BASE in suites else suites[0]
        for suite in suites:
            yield Cell(device, suite)
            for change in CHANGES[device] if suite == changed else ():
                yield change._replace(device=device, suite=suite)
    yield from VENDOR


def product() -> int:
    """Return how many cells there would be, were everything combined with everything."""
    return sum(len(suites) for suites in KERNELS.values()) * math.prod(FACTORS.values())

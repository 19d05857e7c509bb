"""A lab guest's memory as it was at one moment, what the guest itself said around it, and how to spoil a copy."""

from __future__ import annotations

import gzip
import lzma
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.guests.monitor import Monitor

import yamori
from yamori import lab
from yamori.address import GPA, GVA
from yamori.errors import Fault
from yamori.kernel.kernel import Kernel
from yamori.lab import initramfs, packages
from yamori.lab.devices import device
from yamori.lab.initramfs import Entry
from yamori.llview.machine import Event
from yamori.memory.physical import BytesMemory

MODULE = "dummy"
"""A module that every kernel of the lab has; it brings a network device."""

PAUSE = 1  # seconds until the guest's shell, which has just answered, sleeps

QUESTIONS = {
    "modules": "cat /proc/modules",
    "devices": "cd /sys/class/net; for d in *; do echo $(cat $d/ifindex) $d; done",
    "files": "for f in /proc/[0-9]*/fd/*; do t=$(readlink $f) && echo ${f#/proc/} $t; done",
    "maps": 'for p in /proc/[0-9]*; do e=$(readlink $p/exe) && grep -H " $e$" $p/maps; done',
    "shell": "echo $PPID",
    "program": "stat -c %s /bin/busybox",
}
"""What the guest is asked, in its own shell."""


class Answers(NamedTuple):
    """What the guest said.

    Attributes:
        tasks: Of every thread.
        lines: Of each of ``QUESTIONS``.
    """

    tasks: list[lab.Task]
    lines: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Frozen:
    """A guest's memory.

    Attributes:
        device: Which device of the lab it was.
        kernel: Its kernel; the memory is ``blocks``.
        blocks: GPA → RAM, to be changed in place.
        before: What the guest said just before.
        after: What it said just after.
        core: The same memory as QEMU wrote it to a file.
    """

    device: str
    kernel: Kernel
    blocks: dict[int, bytearray]
    before: Answers
    after: Answers
    core: Path

    def lasting(self, question: str) -> frozenset[str]:
        """Return what the guest said before and after, which thus held in between."""
        return self.before.lines[question] & self.after.lines[question]

    def ever(self, question: str) -> frozenset[str]:
        """Return what the guest said before or after."""
        return self.before.lines[question] | self.after.lines[question]

    def pids(self) -> set[int]:
        """Return the processes that were there before and after."""
        return {task.tgid for task in self.before.tasks} & {task.tgid for task in self.after.tasks}


@contextmanager
def frozen(name: str, work: Path) -> Iterator[Frozen]:
    """Boot a device with some life in it, and stop it for as long as its memory is copied; then end it."""
    with lab.machine(name, smp=2, initrd=_with_module(name, work)) as vm:
        assert vm.run(["spawn", "20"]).status == 0
        assert vm.run(["threads", "4"]).status == 0
        assert vm.run(["insmod", f"/{MODULE}.ko"]).status == 0
        with yamori.open(vm.target) as guest:
            before = _ask(vm)
            core = work / "core"
            time.sleep(PAUSE)
            with Monitor(vm.directory / "qmp.sock") as monitor:
                monitor.execute("stop")
                memory = guest.kernel.memory
                blocks = {r.gpa: bytearray(memory.read(GPA(r.gpa), r.size)) for r in memory.regions}
                monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{core}")
                monitor.execute("cont")
            after = _ask(vm)
            kernel = Kernel(BytesMemory(dict(blocks)), guest.profile)
    yield Frozen(name, kernel, blocks, before, after, core)
    core.unlink()


def _with_module(name: str, work: Path) -> Path:
    kind = device(name)
    busybox = packages.busybox(packages.unpacked(kind.architecture, "busybox-static"))
    found = next(packages.unpacked(kind.architecture, kind.kernel).glob(f"**/{MODULE}.ko*"))
    data = lzma.decompress(found.read_bytes()) if found.suffix == ".xz" else found.read_bytes()
    more = initramfs.cpio([Entry(f"{MODULE}.ko", 0o100644, data)])
    path = work / "initrd"
    path.write_bytes(initramfs.build(busybox, kind.elf) + gzip.compress(more, compresslevel=1))
    return path


def _ask(vm: lab.Machine) -> Answers:
    lines = {}
    for question, command in QUESTIONS.items():
        output, status = vm.run(f"({command}) 2>/dev/null; true")
        assert status == 0
        lines[question] = frozenset(output.splitlines())
    return Answers(vm.truth(), lines)


def touched(kernel: Kernel, events: Iterable[Event]) -> list[int]:
    """Return the GPAs of what a run read, as far as the kernel's own tables lead there."""
    found = dict.fromkeys(address for kind, address, _ in events if kind == "P")
    for kind, address, _ in events:
        if kind == "V":
            try:
                found[kernel.space.translate(GVA(address)).gpa] = None
            except Fault:
                continue  # a program's own address
    return list(found)


@contextmanager
def spoiled(guest: Frozen, places: list[int], addresses: list[int], seed: int) -> Iterator[None]:
    """Change some words of what was read, or of the same pages, for the length of the block.

    Args:
        guest: Whose memory.
        places: GPAs that a run read.
        addresses: GVAs to lead pointers to.
        seed: Decides which words, and what becomes of them.
    """
    chance = random.Random(seed)
    size = guest.kernel.machine.word_size
    kept: list[tuple[bytearray, int, bytes]] = []
    for _ in range(chance.choice((1, 1, 2, 5, 20, 100))):
        gpa = chance.choice(places)
        if chance.random() < 0.3:
            gpa = (gpa & ~0xFFF) + chance.randrange(0x1000)
        gpa &= -size
        base, block = next((base, block) for base, block in guest.blocks.items() if base <= gpa < base + len(block))
        at = gpa - base
        old = bytes(block[at : at + size])
        kept.append((block, at, old))
        word = int.from_bytes(old, "little")
        wild = (
            word ^ 1 << chance.randrange(8 * size),
            word + chance.choice((-1, 1, size, 0x1000, -0x1000)),
            chance.getrandbits(8 * size),
            chance.choice(addresses),
            0,
            -1,
        )
        block[at : at + size] = (chance.choice(wild) & (1 << 8 * size) - 1).to_bytes(size, "little")
    try:
        yield
    finally:
        for block, at, old in reversed(kept):
            block[at : at + size] = old


def numbers(line: str) -> tuple[int, int, int, int]:
    """Return process, start, end and offset of a line of ``/proc/PID/maps`` that ``grep -H`` gave."""
    match = re.match(r"/proc/(\d+)/maps:([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) ", line)
    assert match, line
    return int(match[1]), int(match[2], 16), int(match[3], 16), int(match[4], 16)

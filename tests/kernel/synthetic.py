"""A small synthetic Linux guest in a few MiB of RAM: image, page tables, tasks; everything that discovery goes by.

Written from the kernel's headers, not from the code that is tested. Layouts vary as a test wishes; the order of members
is that of ``include/linux/sched.h``.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import NamedTuple

from tests.kernel import kallsyms_encoder as encoder

from yamori.memory.physical import BytesMemory
from yamori.records import Process

MIB = 1 << 20
RAM_SIZE = 8 * MIB
IMAGE_AT, IMAGE_SIZE = 2 * MIB, 3 * MIB
TEXT_AT, TEXT_END = IMAGE_AT + 0x1000, IMAGE_AT + 0xE0000
RODATA_AT = IMAGE_AT + 0x100000
DATA_AT = IMAGE_AT + 0x200000
TABLES_AT = IMAGE_AT + 0x240000
HEAP_AT = IMAGE_AT + IMAGE_SIZE
TASKS_AT = HEAP_AT + 0x40000
SLOT = 0x2000
PF_KTHREAD = 0x0020_0000
CAPABILITIES = (1 << 41) - 1
RELEASE = "6.1.0-9-test"
VERSION = "#1 SMP Debian 6.1.27-1 (2023-05-08)"
BANNER = f"Linux version {RELEASE} (builder@host) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld 2.40) {VERSION}"
CALLS = 320
BUILD_ID = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Machine:
    """An architecture: where its kernel maps what, and how its page tables are written."""

    name: str
    word: int
    image: int
    linear: int
    base: int
    prefix: str
    uname: str
    root_at: int = TABLES_AT

    @property
    def code(self) -> str:
        return "Q" if self.word == 8 else "I"


X86 = Machine("x86-64", 8, 0xFFFF_FFFF_8100_0000, 0xFFFF_8880_0000_0000, 0, "__x64_", "x86_64")
ARM64 = Machine("aarch64", 8, 0xFFFF_8000_1020_0000, 0xFFFF_0000_0000_0000, 0x4000_0000, "__arm64_", "aarch64")
ARM = Machine("arm-short", 4, 0xC020_0000, 0xC000_0000, 0x4000_0000, "", "armv7l", root_at=0x4000)
MACHINES = (X86, ARM64, ARM)
MODULES = {X86.name: 0xFFFF_FFFF_C012_3000, ARM64.name: 0xFFFF_8000_0812_3000, ARM.name: 0xBF01_2000}
"""Two pages where each has the code of modules: mapped, not in the image."""
# From asm/unistd.h of each.
NUMBERS = {
    X86.name: {"read": 0, "write": 1, "close": 3, "getpid": 39, "exit": 60},
    ARM64.name: {"close": 57, "read": 63, "write": 64, "exit": 93, "getpid": 172},
    ARM.name: {"exit": 1, "read": 3, "write": 4, "close": 6, "getpid": 20},
}


@dataclass(frozen=True)
class Shape:
    """What differs between builds of a kernel.

    Attributes:
        gaps: Words before each group of members of ``task_struct``; taken round and round.
        noise: Seed of what fills the gaps; ``None`` leaves zeros.
        keys: ``CONFIG_KEYS``: ``cached_requested_key`` lies before ``comm``.
        wide_usage: ``cred.usage`` is an ``atomic_long_t`` (6.8).
        saved_state: ``saved_state`` follows ``__state`` (6.8).
        all_symbols: ``CONFIG_KALLSYMS_ALL``.
        kallsyms: There are kallsyms at all.
        vmcoreinfo: There is VMCOREINFO.
        name_at: Bytes of ``init_uts_ns`` before ``name``.
    """

    gaps: tuple[int, ...] = (3, 1, 7, 2, 12, 5)
    noise: int | None = None
    keys: bool = True
    wide_usage: bool = False
    saved_state: bool = True
    all_symbols: bool = True
    kallsyms: bool = True
    vmcoreinfo: bool = True
    name_at: int = 0


def task_layout(word: int, shape: Shape) -> tuple[dict[str, int], list[int]]:
    """Return member → offset, and the offsets of the words in the gaps."""
    saved = [("saved_state", 4)] if shape.saved_state or word == 8 else []
    groups: list[list[tuple[str, int]]] = [
        [("__state", 4), *saved, ("stack", word), ("usage", 4), ("flags", 4)],
        [("tasks", 2 * word)],
        [("mm", word), ("active_mm", word)],
        [("exit_state", 4), ("exit_code", 4), ("exit_signal", 4)],
        [("pid", 4), ("tgid", 4), ("stack_canary", word)],
        [("real_parent", word), ("parent", word), *((name, 2 * word) for name in ("children", "sibling"))],
        [("group_leader", word), ("ptraced", 2 * word), ("ptrace_entry", 2 * word), ("thread_pid", word)],
        [("thread_node", 2 * word)],
        [("start_time", 8), ("start_boottime", 8)],
        [("ptracer_cred", word), ("real_cred", word), ("cred", word)]
        + ([("cached_requested_key", word)] if shape.keys else [])
        + [("comm", 16)],
        [("fs", word), ("files", word), ("nsproxy", word), ("signal", word), ("sighand", word)],
    ]
    offsets: dict[str, int] = {}
    gaps: list[int] = []
    at = 0
    for number, group in enumerate(groups):
        width = shape.gaps[number % len(shape.gaps)] if group[0][0] != "group_leader" else 0
        if number:
            gaps += [at + -at % word + word * index for index in range(width)]
        at += -at % word + width * word
        for name, size in group:
            at += -at % min(size, word if name not in {"start_time", "start_boottime"} else 8)
            offsets[name] = at
            at += size
    return offsets, gaps


class TaskTruth(NamedTuple):
    """What one task really is."""

    pid: int
    tgid: int
    ppid: int
    uid: int
    gid: int
    comm: str
    state: str
    kthread: bool
    start: float
    gva: int


@dataclass
class Guest:
    """RAM with a guest in it, to be bent by tests before it is looked at."""

    machine: Machine
    shape: Shape
    ram: bytearray
    task: dict[str, int]
    gaps: list[int]
    tasks: list[TaskTruth] = field(default_factory=list)
    threads: list[TaskTruth] = field(default_factory=list)
    symbols: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    @property
    def init(self) -> int:
        return self.symbols["init_task"]

    @property
    def thread_head(self) -> int:
        """Bytes of ``signal_struct`` before ``thread_head``: sigcnt, live, nr_threads."""
        return 12 + -12 % self.machine.word

    @property
    def uid(self) -> int:
        """Bytes of ``cred`` before ``uid``."""
        return 8 if self.shape.wide_usage and self.machine.word == 8 else 4

    def memory(self, base: int | None = None) -> BytesMemory:
        """Return memory over ``ram``: what is written there afterwards is seen."""
        return BytesMemory({self.machine.base if base is None else base: self.ram})

    def at(self, gva: int) -> int:
        """Return where a kernel address lies in ``ram``."""
        machine = self.machine
        if machine.word == 8 and machine.image <= gva < machine.image + IMAGE_SIZE:
            return gva - machine.image + IMAGE_AT
        assert machine.linear <= gva < machine.linear + RAM_SIZE
        return gva - machine.linear

    def image(self, at: int) -> int:
        """Return the kernel address of an offset in ``ram`` that lies in the image."""
        return self.machine.image + at - IMAGE_AT

    def linear(self, at: int) -> int:
        """Return the address of an offset in ``ram`` in the linear map."""
        return self.machine.linear + at

    def write(self, gva: int, data: bytes) -> None:
        at = self.at(gva)
        self.ram[at : at + len(data)] = data

    def read(self, gva: int, size: int) -> bytes:
        return bytes(self.ram[self.at(gva) :][:size])

    def words(self, gva: int, *values: int) -> None:
        mask = (1 << 8 * self.machine.word) - 1
        self.write(gva, struct.pack(f"<{len(values)}{self.machine.code}", *(value & mask for value in values)))

    def word(self, gva: int) -> int:
        return int.from_bytes(self.read(gva, self.machine.word), "little")

    def ints(self, gva: int, *values: int) -> None:
        self.write(gva, struct.pack(f"<{len(values)}i", *values))

    def member(self, task: int, name: str) -> int:
        return task + self.task[name]

    def ring(self, *nodes: int) -> None:
        """Link list heads to each other in this order."""
        for before, node, after in zip((nodes[-1], *nodes[:-1]), nodes, (*nodes[1:], nodes[0]), strict=True):
            self.words(node, after, before)

    def rows(self, *, threads: bool = False) -> list[TaskTruth]:
        """Return what a full list shows, in its order."""
        found: list[TaskTruth] = []
        for task in self.tasks:
            found.append(task)
            found += [thread for thread in self.threads if threads and thread.tgid == task.pid]
        return found

    def by_pid(self, pid: int) -> TaskTruth:
        return next(task for task in self.tasks if task.pid == pid)


# Processes of the usual guest: pid, parent, uid, gid, comm, state, start in seconds.
Plan = tuple[int, int, int, int, str, str, float]
STATES = {"S": 1, "D": 2, "R": 0, "I": 0x402}


def usual(count: int = 12) -> list[Plan]:
    """Return init, kthreadd, kernel threads, and as many users' processes."""
    plans: list[Plan] = [
        (1, 0, 0, 0, "init", "S", 0.5),
        (2, 0, 0, 0, "kthreadd", "S", 0.52),
        (3, 2, 0, 0, "rcu_gp", "I", 0.54),
        (9, 2, 0, 0, "kworker/0:1-eve", "I", 0.58),
        (11, 2, 0, 0, "ksoftirqd/0", "S", 0.6),
    ]
    for number in range(count):
        pid = 100 + 7 * number
        parent = 1 if number % 3 else 100 if number else 1
        plans.append(
            (pid, parent, 1000 + number % 3, 100 + number % 2, f"user{number}", "SSSD"[number % 4], 2.5 + number)
        )
    return plans


def build(
    machine: Machine = X86,
    shape: Shape = Shape(),  # it is immutable
    plans: Sequence[Plan] | None = None,
) -> Guest:
    """Write a guest; process 100 has two more threads.

    Args:
        machine: The architecture.
        shape: The build of the kernel.
        plans: Its processes, without ``init_task``.
    """
    template = _template(machine, shape, tuple(usual() if plans is None else plans))
    return replace(template, ram=bytearray(template.ram))


@lru_cache(maxsize=8)
def _template(machine: Machine, shape: Shape, plans: tuple[Plan, ...]) -> Guest:
    offsets, gaps = task_layout(machine.word, shape)
    guest = Guest(machine, shape, bytearray(RAM_SIZE), offsets, gaps)
    _image(guest)
    TABLES[machine.name](guest)
    _init(guest)
    _tasks(guest, plans, {100: (150, 151)})
    return guest


def _image(guest: Guest) -> None:
    """Write banner, uts, system-call table, kallsyms, VMCOREINFO."""
    machine, shape, symbols = guest.machine, guest.shape, guest.symbols
    functions = [f"{machine.prefix}sys_call{number}" for number in range(CALLS)]
    for name, number in NUMBERS[machine.name].items():
        functions[number] = f"{machine.prefix}sys_{name}"
    text = {"_stext": TEXT_AT, "_etext": TEXT_END}
    text |= {f"helper{number}": TEXT_AT + 0x8000 + 32 * number for number in range(300)}
    shuffled = random.Random(4).sample(functions, CALLS)
    calls = {name: TEXT_AT + 0x20000 + 64 * number for number, name in enumerate(shuffled)}
    data = {"linux_banner": RODATA_AT, "sys_call_table": RODATA_AT + 0x1000, "end_of_table": RODATA_AT + 0x1000}
    data["end_of_table"] += CALLS * machine.word
    data |= {"init_task": DATA_AT, "init_uts_ns": DATA_AT + 0x3000, "init_nsproxy": DATA_AT + 0x3400}
    data |= {"init_mm": DATA_AT + 0x3800, "init_cred": DATA_AT + 0x3C00, "init_signals": DATA_AT + 0x3D00}
    symbols |= {name: guest.image(at) for name, at in (text | calls | data).items()}
    symbols["swapper_pg_dir"] = guest.linear(machine.root_at) if machine is ARM else guest.image(machine.root_at)
    guest.calls = functions
    guest.words(symbols["sys_call_table"], *(symbols[name] for name in functions))
    guest.write(symbols["linux_banner"], BANNER.encode() + b"\n\0")
    names = ("Linux", "gecko", RELEASE, VERSION, machine.uname, "(none)")
    guest.write(symbols["init_uts_ns"] + shape.name_at, b"".join(name.encode().ljust(65, b"\0") for name in names))
    guest.words(symbols["init_nsproxy"], 5, symbols["init_uts_ns"])
    # mm_struct: pgd, then start_code, end_code, start_data, end_data (setup_initial_init_mm)
    guest.words(symbols["init_mm"] + 0x48, symbols["swapper_pg_dir"])
    guest.words(symbols["init_mm"] + 0x100, symbols["_stext"], symbols["_etext"], 0, symbols["init_mm"])
    if shape.kallsyms:
        rows = sorted(
            (address, "T" if name in text or name in calls else "D", name)
            for name, address in symbols.items()
            if (shape.all_symbols and address >= machine.image) or name in text or name in calls
        )
        blob, guest.labels = _kallsyms(tuple(rows), machine.word)
        guest.ram[RODATA_AT + 0x4000 : RODATA_AT + 0x4000 + len(blob)] = blob
    if shape.vmcoreinfo:
        text_of_info = (
            f"OSRELEASE={RELEASE}\nBUILD-ID={BUILD_ID}\nPAGESIZE=4096\nSYMBOL(init_uts_ns)={symbols['init_uts_ns']:x}\n"
            f"SYMBOL(swapper_pg_dir)={symbols['swapper_pg_dir']:x}\nKERNELOFFSET=0\n"
        )
        guest.write(guest.linear(HEAP_AT + 0x1000), text_of_info.encode())


@cache
def _kallsyms(rows: tuple[encoder.Row, ...], word: int) -> tuple[bytes, dict[str, int]]:
    form = encoder.Format("6.1", word=word, align=word, encoding="relative", big=False, order="old")
    image = encoder.build(list(rows), form, before=b"", after=0)
    return bytes(image.data), image.labels


def _init(guest: Guest) -> None:
    """Write ``init_task``, its credentials and signals."""
    init, symbols = guest.init, guest.symbols
    _bare_task(guest, init, 0, 0, "swapper/0", random.Random(guest.shape.noise))
    for name in ("real_parent", "parent", "group_leader"):
        guest.words(guest.member(init, name), init)
    guest.ints(guest.member(init, "flags"), PF_KTHREAD | 2)
    guest.words(guest.member(init, "stack"), guest.linear(HEAP_AT + 0x2000))
    guest.words(guest.member(init, "nsproxy"), symbols["init_nsproxy"])
    _credentials(guest, symbols["init_cred"], 0, 0)
    guest.words(guest.member(init, "real_cred"), symbols["init_cred"], symbols["init_cred"])
    guest.words(guest.member(init, "signal"), symbols["init_signals"])
    guest.ring(symbols["init_signals"] + guest.thread_head, guest.member(init, "thread_node"))


def _bare_task(guest: Guest, task: int, pid: int, tgid: int, comm: str, rng: random.Random) -> None:
    word = guest.machine.word
    for gap in guest.gaps if guest.shape.noise is not None else ():
        kind = random.Random((guest.shape.noise or 0) * 4099 + gap).randrange(7)
        noise = (0, 1, rng.getrandbits(31), guest.linear(rng.randrange(RAM_SIZE) & -64), task + gap, pid, 17)[kind]
        guest.words(task + gap, noise)
    for name in ("children", "sibling", "ptraced", "ptrace_entry"):
        guest.ring(guest.member(task, name))
    guest.ints(guest.member(task, "usage"), 1)
    guest.ints(guest.member(task, "pid"), pid, tgid)
    guest.words(guest.member(task, "stack_canary"), rng.getrandbits(8 * word - 8) << 8)
    guest.write(guest.member(task, "comm"), comm.encode().ljust(16, b"\0"))


def _credentials(guest: Guest, cred: int, uid: int, gid: int) -> None:
    at = cred + guest.uid
    guest.ints(cred, 3)
    guest.ints(at, uid, gid, uid, gid, uid, gid, uid, gid, 0)
    at += 36
    at += -at % 8 if guest.shape.wide_usage and guest.machine.word == 8 else 0
    mask = 0 if uid else CAPABILITIES
    guest.write(at, struct.pack("<5Q", 0, mask, mask, CAPABILITIES, 0))


def _tasks(guest: Guest, plans: Sequence[Plan], threads: Mapping[int, Sequence[int]]) -> None:
    rng = random.Random(0 if guest.shape.noise is None else guest.shape.noise)
    places = {0: guest.init}
    slot = iter(range(TASKS_AT, RAM_SIZE - 2 * SLOT, SLOT))
    for pid, parent, uid, gid, comm, state, start in plans:
        kthread = 2 in (pid, parent)
        task = _task(guest, next(slot), pid, pid, comm, state, start, kthread=kthread, ids=(uid, gid), rng=rng)
        places[pid] = task
        guest.words(guest.member(task, "real_parent"), places[parent], places[parent])
        guest.words(guest.member(task, "group_leader"), task)
        truth = TaskTruth(pid, pid, parent, uid, gid, comm, state, kthread, start, task)
        guest.tasks.append(truth)
        signal = guest.linear(guest.at(task) + SLOT - 0x200)
        nodes = [signal + guest.thread_head, guest.member(task, "thread_node")]
        for number in threads.get(pid, ()):
            other = _task(guest, next(slot), number, pid, comm, state, start, kthread=kthread, ids=(uid, gid), rng=rng)
            guest.words(guest.member(other, "real_parent"), places[parent], places[parent])
            guest.words(guest.member(other, "group_leader"), task)
            guest.words(guest.member(other, "signal"), signal)
            nodes.append(guest.member(other, "thread_node"))
            guest.threads.append(TaskTruth(number, pid, parent, uid, gid, comm, state, kthread, start, other))
        guest.words(guest.member(task, "signal"), signal)
        guest.ring(*nodes)
    guest.ring(*(guest.member(task, "tasks") for task in places.values()))
    for pid, task in places.items():
        below = [places[plan[0]] for plan in plans if plan[1] == pid]
        guest.ring(guest.member(task, "children"), *(guest.member(child, "sibling") for child in below))


def _task(
    guest: Guest,
    at: int,
    pid: int,
    tgid: int,
    comm: str,
    state: str,
    start: float,
    *,
    kthread: bool,
    ids: tuple[int, int],
    rng: random.Random,
) -> int:
    task = guest.linear(at)
    _bare_task(guest, task, pid, tgid, comm, rng)
    guest.ints(guest.member(task, "__state"), STATES[state])
    guest.words(guest.member(task, "stack"), guest.linear(at % (2 * MIB) * 2 & -0x4000))
    guest.ints(guest.member(task, "flags"), PF_KTHREAD | 0x40 if kthread else 0x400000)
    mm = 0 if kthread else guest.linear(at + SLOT - 0x400)
    guest.words(guest.member(task, "mm"), mm, mm or guest.linear(HEAP_AT))
    guest.ints(guest.member(task, "exit_state"), 0, 0, 0 if pid == 2 else 17)
    nanoseconds = round(start * 1e9)
    guest.write(guest.member(task, "start_time"), struct.pack("<QQ", nanoseconds, nanoseconds))
    cred = guest.linear(at + SLOT - 0x300)
    _credentials(guest, cred, *ids)
    guest.words(guest.member(task, "real_cred"), cred, cred)
    guest.words(guest.member(task, "nsproxy"), guest.symbols["init_nsproxy"])
    guest.words(guest.member(task, "sighand"), guest.linear(at + SLOT - 0x800))
    return task


def _x86_tables(guest: Guest) -> None:
    _tables_of_64(guest, table=0x63, page=0x63, block=0xE3)


def _arm64_tables(guest: Guest) -> None:
    _tables_of_64(guest, table=3, page=0x703, block=0x701)


def _tables_of_64(guest: Guest, *, table: int, page: int, block: int) -> None:
    """Map the image by pages of 4 KiB and all RAM by blocks of 2 MiB: four levels of 512 entries."""
    machine = guest.machine
    free = iter(range(machine.root_at + 0x1000, IMAGE_AT + IMAGE_SIZE, 0x1000))

    def entry(at: int, value: int | None = None) -> int:
        if value is not None:
            guest.ram[at : at + 8] = value.to_bytes(8, "little")
        return int.from_bytes(guest.ram[at : at + 8], "little")

    def map_one(gva: int, gpa: int, leaf: int) -> None:
        at = machine.root_at
        for shift in range(39, leaf, -9):
            place = at + (gva >> shift & 511) * 8
            if not entry(place):
                entry(place, machine.base + next(free) | table)
            at = (entry(place) & 0xFFFF_FFFF_F000) - machine.base
        entry(at + (gva >> leaf & 511) * 8, gpa | (page if leaf == 12 else block))

    for at in range(0, IMAGE_SIZE, 0x1000):
        map_one(machine.image + at, machine.base + IMAGE_AT + at, 12)
    for at in range(0, RAM_SIZE, 2 * MIB):
        map_one(machine.linear + at, machine.base + at, 21)
    for at in (0, 0x1000):
        map_one(MODULES[machine.name] + at, machine.base + IMAGE_AT + at, 12)


def _arm_tables(guest: Guest) -> None:
    """Map all RAM by sections of 1 MiB, readable and writable by the kernel (AP = 01)."""
    for at in range(0, RAM_SIZE, MIB):
        place = guest.machine.root_at + ((guest.machine.linear + at) >> 20) * 4
        guest.ram[place : place + 4] = (guest.machine.base + at | 0x402).to_bytes(4, "little")
    place = guest.machine.root_at + (MODULES[ARM.name] >> 20) * 4
    guest.ram[place : place + 4] = (guest.machine.base | 0x402).to_bytes(4, "little")


TABLES = {X86.name: _x86_tables, ARM64.name: _arm64_tables, ARM.name: _arm_tables}


def shown(rows: Iterable[Process]) -> list[TaskTruth]:
    """Return rows as truths, to compare."""
    return [
        TaskTruth(
            row.pid,
            row.tgid,
            row.ppid,
            -1 if row.uid is None else row.uid,
            -1 if row.gid is None else row.gid,
            row.comm,
            row.state or "",
            row.kthread,
            -1.0 if row.start_time is None else row.start_time,
            row.task,
        )
        for row in rows
    ]

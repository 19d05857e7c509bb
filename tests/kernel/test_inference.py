"""Layouts without debug info: every kind of kernel and guest that inference is to understand."""

from __future__ import annotations

import struct

import pytest
from tests.kernel import synthetic
from tests.kernel.synthetic import ARM, MACHINES, SLOT, X86, Guest, Machine, Plan, Shape, build, shown, usual

from yamori.address import GPA, GVA
from yamori.kernel.discovery import discover
from yamori.kernel.inference import infer
from yamori.kernel.inferred import InferredTypes
from yamori.kernel.invariants import CAPABILITY_BITS, CRED_MAGIC, CRED_REACH, are_births, ids_of_root
from yamori.kernel.kernel import Kernel
from yamori.kernel.types import Member, Types
from yamori.probes.plist import plist
from yamori.translation.space import AddressSpace

machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def crowd(kernel_threads: int = 24, users: int = 12) -> list[Plan]:
    """Return a guest's processes with as many kernel threads as real ones have."""
    first, programs = usual(0), usual(users)[5:]
    threads: list[Plan] = [
        (12 + at, 2, 0, 0, f"kthread{at}", "SI"[at % 2], round(0.61 + at / 50, 3)) for at in range(kernel_threads)
    ]
    return first + threads + programs


def inferred(kernel: Kernel) -> InferredTypes:
    types: Types = kernel.profile.types[-1]
    assert isinstance(types, InferredTypes)
    return types


def assert_whole(guest: Guest) -> Kernel:
    kernel = discover(guest.memory())
    result = plist(kernel, threads=True)
    assert result.reasons == []
    assert shown(result) == guest.rows(threads=True)
    return kernel


@machines
def test_all_offsets(machine: Machine) -> None:
    guest = build(machine, plans=crowd())
    types = inferred(assert_whole(guest))
    wanted = {name: offset for name, offset in guest.task.items() if ("task_struct", name) in types.members}
    assert {name: types.members["task_struct", name].offset for name in wanted} == wanted
    assert len(wanted) >= 18
    assert set(types.unknown) <= {"mm_struct.pgd"}
    assert types.processes == len(guest.tasks)
    assert not types.booting


@machines
def test_most_processes_are_busy(machine: Machine) -> None:
    plans: list[Plan] = [(1000 + at, 1, 1000, 100, "busy", "R", 50.0 + at) for at in range(60)]
    assert_whole(build(machine, plans=crowd() + plans))


@machines
def test_most_processes_have_many_threads(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = [(1000 + at, 1, 1000, 100, "java", "S", 50.0 + at) for at in range(40)]
    threads = {1000 + at: (2000 + 2 * at, 2001 + 2 * at) for at in range(40)}
    with_tasks = synthetic._tasks
    monkeypatch.setattr(synthetic, "_tasks", lambda guest, plans, _: with_tasks(guest, plans, threads))
    guest = build(machine, Shape(gaps=(2, 4)), crowd() + plans)
    assert len(guest.threads) == 80
    assert_whole(guest)


@machines
@pytest.mark.parametrize("count", [1, 4])
def test_helper_in_user_mode_is_a_child_of_kthreadd(machine: Machine, count: int) -> None:
    plans: list[Plan] = [(990 + at, 2, 0, 0, "coredump", "S", 90.0 + at) for at in range(count)]
    guest = build(machine, plans=crowd() + plans)
    for pid in range(990, 990 + count):
        task = guest.by_pid(pid).gva
        guest.ints(guest.member(task, "flags"), 0x400000)
        mm = guest.linear(guest.at(task) + SLOT - 0x400)
        guest.words(guest.member(task, "mm"), mm, mm)
    kernel = discover(guest.memory())
    assert inferred(kernel).unknown.keys() <= {"mm_struct.pgd"}
    rows = {row.pid: row.kthread for row in plist(kernel)}
    assert rows == {task.pid: task.kthread and task.pid < 990 for task in guest.tasks}


@machines
@pytest.mark.parametrize("dead", [16, 32], ids=["EXIT_DEAD is 16", "EXIT_DEAD is 32"])
def test_zombies_in_the_majority(machine: Machine, dead: int) -> None:
    """Before 4.14 a zombie's ``state`` is TASK_DEAD (64); a user can have as many zombies as it likes."""
    guest = build(machine, plans=crowd())
    zombies = [task for task in guest.tasks if task.pid > 100]
    for task in zombies:
        guest.ints(guest.member(task.gva, "__state"), 64)
        guest.ints(guest.member(task.gva, "exit_state"), dead)
        guest.words(guest.member(task.gva, "mm"), 0, 0)
        guest.words(guest.member(task.gva, "stack"), 0)
    kernel = discover(guest.memory())
    types = inferred(kernel)
    assert types.unknown.keys() <= {"mm_struct.pgd"}
    assert types.members["task_struct", "exit_state"].offset == guest.task["exit_state"]
    result = plist(kernel)
    letter = "X" if dead == 16 else "Z"  # EXIT_DEAD is 16 where there is thread_node
    assert {row.state for row in result if row.pid > 100} == {letter}


@machines
@pytest.mark.parametrize("ambient", [17, 0, 10])
def test_users_choose_their_exit_signal(machine: Machine, ambient: int) -> None:
    guest = build(machine, plans=crowd())
    for task in guest.tasks[-12:]:
        guest.ints(guest.member(task.gva, "exit_signal"), ambient)
    assert_whole(guest)


@machines
@pytest.mark.parametrize("bits", [CAPABILITY_BITS[0], 38, CAPABILITY_BITS[-1]])
def test_any_width_of_capabilities(machine: Machine, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "CAPABILITIES", (1 << bits) - 1)
    synthetic._template.cache_clear()
    try:
        guest = build(machine, plans=crowd())
    finally:
        synthetic._template.cache_clear()
    assert_whole(guest)


def cred(word: int, *, usage: int, debug: bool, aligned: bool, magic: int = CRED_MAGIC) -> tuple[bytes, int]:
    """Return ``struct cred`` of a root process and where ``uid`` lies, laid out as a compiler does."""
    data = (3).to_bytes(usage, "little")
    if debug:
        data += struct.pack("<I", 1)
        data += bytes(-len(data) % word) + (0xC010_0000).to_bytes(word, "little") + struct.pack("<I", magic)
    uid = len(data)
    data += bytes(36)
    data += bytes(-len(data) % 8 if aligned else 0)
    full = (1 << 41) - 1
    return (data + struct.pack("<5Q", 0, full, full, full, 0)).ljust(CRED_REACH, b"\0"), uid


@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize("wide", [False, True], ids=["atomic_t", "atomic_long_t"])
@pytest.mark.parametrize("debug", [False, True], ids=["", "DEBUG_CREDENTIALS"])
@pytest.mark.parametrize("aligned", [False, True], ids=["before 6.3", "since 6.3"])
def test_credentials_of_every_layout(word: int, wide: bool, debug: bool, aligned: bool) -> None:
    data, uid = cred(word, usage=word if wide else 4, debug=debug, aligned=aligned)
    assert ids_of_root(data, word) == uid


def test_credentials_on_arm_from_6_3_to_6_6() -> None:
    """usage, subscribers, put_addr, magic, and then uid, which 4 bytes of padding follow."""
    _, uid = cred(4, usage=4, debug=True, aligned=True)
    assert uid == 16


@pytest.mark.parametrize("magic", [0, 1, 0x4473_6564])  # CRED_MAGIC_DEAD
def test_credentials_without_magic_are_not_understood(magic: int) -> None:
    data, _ = cred(8, usage=4, debug=True, aligned=True, magic=magic)
    assert ids_of_root(data, 8) is None


def test_credentials_that_are_not_roots_are_not_understood() -> None:
    data, uid = cred(4, usage=4, debug=False, aligned=False)
    other = bytearray(data)
    other[uid + 4] = 1
    assert ids_of_root(bytes(other), 4) is None
    assert ids_of_root(bytes(CRED_REACH), 4) is None
    assert ids_of_root(b"", 4) is None


@machines
@pytest.mark.parametrize("aligned", [False, True], ids=["before 6.3", "since 6.3"])
def test_guest_with_debugged_credentials(machine: Machine, aligned: bool) -> None:
    guest = build(machine, plans=crowd())
    for task in [*guest.tasks, *guest.threads]:
        data, uid = cred(machine.word, usage=4, debug=True, aligned=aligned)
        mixed = bytearray(data)
        if task.uid:
            mixed[uid : uid + 32] = struct.pack("<2I", task.uid, task.gid) * 4
            mixed[uid + 44 : uid + 72] = bytes(28)
        guest.write(guest.word(guest.member(task.gva, "real_cred")), bytes(mixed))
    assert_whole(guest)


@machines
def test_timespecs_of_old_kernels(machine: Machine) -> None:
    """Before 3.17: two words of seconds and nanoseconds."""
    guest = build(machine, plans=crowd())
    for task in guest.tasks:
        time = int(task.start), round(task.start % 1 * 1e9)
        guest.words(guest.member(task.gva, "start_time"), *time, *time)  # the gap behind it has room for the rest
    types = inferred(kernel := discover(guest.memory()))
    assert types.member("task_struct", "real_start_time.tv_sec")
    assert not types.member("task_struct", "start_boottime")
    rows = plist(kernel).rows
    assert [row.start_time for row in rows] == [pytest.approx(task.start) for task in guest.tasks]


@machines
@pytest.mark.parametrize("gap", [1, 2, 3, 4])
def test_quick_boot_is_no_timespec(machine: Machine, gap: int) -> None:
    """With 32-bit words, a zero and half of a start time in the first second read as seconds and nanoseconds."""
    plans: list[Plan] = [(*plan[:6], round(0.02 * index, 2)) for index, plan in enumerate(crowd(), 1)]
    plans[-1] = (*plans[-1][:6], 2.125)
    kernel = assert_whole(build(machine, Shape(gaps=(gap,)), plans=plans))
    assert inferred(kernel).member("task_struct", "start_boottime")


def test_times_have_to_be_times() -> None:
    births = [(second * 10**9, second * 10**9) for second in range(1, 17)]
    asleep = [(start, start + 3600 * 10**9) for start, _ in births[8:]]
    assert are_births(births, [])
    assert are_births([*births[:8], *asleep], births)
    assert not are_births(births[::-1], [])
    assert not are_births([(1, 1)] * 16, [])
    assert not are_births([(start, start - 1) for start, _ in births], [])
    assert not are_births(births, [(-1, 0)] * 3)
    assert not are_births([(start << 20, start << 20) for start, _ in births], [])
    assert not are_births([], [])


@machines
def test_still_booting_while_process_1_is_the_kernels_own(machine: Machine) -> None:
    """Until 5.19 process 1 is a kernel thread before it runs a program."""
    guest = build(machine, plans=[plan for plan in crowd() if plan[0] < 100])
    first = guest.tasks[0].gva
    guest.ints(guest.member(first, "flags"), synthetic.PF_KTHREAD)
    guest.words(guest.member(first, "mm"), 0, 0)
    types = inferred(discover(guest.memory()))
    assert types.booting
    assert "task_struct.flags" in types.unknown
    assert types.member("task_struct", "pid")


@machines
@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_still_booting_while_there_is_hardly_a_task(machine: Machine, count: int) -> None:
    types = inferred(discover(build(machine, plans=crowd()[:count]).memory()))
    assert types.booting
    assert "task_struct.tasks" in types.unknown


def test_a_guest_with_one_program_has_booted() -> None:
    guest = build(ARM, plans=[plan for plan in crowd() if plan[0] < 100])
    assert not inferred(assert_whole(guest)).booting


def test_init_task_that_cannot_be_read() -> None:
    guest = build(X86)
    profile = discover(guest.memory()).profile
    space = AddressSpace(guest.memory(), profile.root.geometry, GPA(profile.root.gpa))
    away = profile.init._replace(gva=GVA(profile.init.gva + (1 << 40)))
    assert infer(space, away).unknown == {"task_struct": "init_task cannot be read"}


@machines
def test_equal_neighbours_behind_mm_are_its_echo(machine: Machine) -> None:
    """vmacache of 3.15 to 6.0 holds what programs looked at last; seen on 4.4.34."""
    guest = build(machine, Shape(gaps=(2, 4)), crowd())
    word = guest.task["active_mm"] - guest.task["mm"]
    for task in guest.tasks:
        if mm := guest.word(guest.member(task.gva, "mm")):
            guest.words(guest.member(task.gva, "active_mm") + word, mm + 0x40, mm + 0x40)
    types = inferred(discover(guest.memory()))
    assert types.member("task_struct", "mm") == Member(guest.task["mm"], word)


@machines
def test_threads_before_3_14(machine: Machine) -> None:
    """No thread_node, but thread_group behind the links to three struct pid; seen on 3.10.25."""
    guest = build(machine, Shape(gaps=(14, 16)), crowd())
    for task in guest.tasks:
        group = [task, *(thread for thread in guest.threads if thread.tgid == task.pid)]
        nodes = [guest.member(one.gva, "thread_node") for one in group]
        guest.ring(*nodes)
        for node in nodes:
            guest.words(node - 9 * machine.word, *(0, node, node) * 3)
    types = inferred(assert_whole(guest))
    assert not types.member("task_struct", "thread_node")
    assert types.member("task_struct", "thread_group") == Member(guest.task["thread_node"], 2 * machine.word)


def test_pointers_that_have_the_bit_of_kernel_threads_are_no_flags() -> None:
    """Saved registers in thread_info, at the front of the task on 32-bit Arm since 5.16; seen on 7.2."""
    guest = build(ARM, Shape(gaps=(6, 9)), crowd())
    at = guest.task["flags"] + 4
    bit = 0x20_0000
    for number, task in enumerate(guest.tasks):
        is_kernel = number == 1 or task.ppid == 2
        where = ARM.linear + 0x1000 * number
        guest.words(task.gva + at, where if number % 2 else where + 4, 1, where | bit if is_kernel else where & ~bit)
    assert_whole(guest)


@machines
def test_clock_that_only_ticks(machine: Machine) -> None:
    """Without high-resolution timers most kernel threads are started in the same few ticks; seen on a small 6.1."""
    plans: list[Plan] = [
        (*plan[:6], plan[6] if plan[1] != 2 else (0.02, 0.03, 0.03, 0.04, 0.15)[index // 6])
        for index, plan in enumerate(crowd())
    ]
    assert inferred(discover(build(machine, plans=plans).memory())).member("task_struct", "start_boottime")
    births = [(second * 10**7 + 1, second * 10**7 + 1) for second in (2, 3, 4, 5) for _ in range(5)]
    assert not are_births(births, [])  # equal, and no ticks

"""The whole way from RAM to rows, on synthetic guests: usual ones, odd ones and hostile ones."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel import synthetic
from tests.kernel.synthetic import ARM, ARM64, MACHINES, MIB, X86, Guest, Machine, Shape, build, shown

from yamori.address import GPA
from yamori.errors import NoKernelError, ProfileError, YamoriError
from yamori.kernel import discovery, scan
from yamori.kernel.discovery import discover, kernel_text
from yamori.kernel.given import Given
from yamori.kernel.kernel import Kernel
from yamori.kernel.symbols import Symbol, Symbols
from yamori.memory.physical import BytesMemory, PhysicalMemory
from yamori.probes.banner import banner
from yamori.probes.plist import plist
from yamori.probes.syscall import syscall

SOURCES = {
    "all symbols": Shape(),
    "functions only": Shape(all_symbols=False, vmcoreinfo=False),
    "VMCOREINFO only": Shape(kallsyms=False),
    "nothing": Shape(kallsyms=False, vmcoreinfo=False),
}
machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.perf_counter()
    yield
    assert time.perf_counter() - started < seconds


def processes(kernel: Kernel) -> list[synthetic.TaskTruth]:
    result = plist(kernel, threads=True)
    assert result.complete, result.reasons
    return shown(result)


def survives(memory: PhysicalMemory) -> Kernel | None:
    """Discover and run every probe: nothing but YamoriError may come out, and not late."""
    kernel = None
    with within(20), suppress(YamoriError):
        kernel = discover(memory)
        banner(kernel)
        plist(kernel, threads=True)
        syscall(kernel)
    return kernel


@machines
@pytest.mark.parametrize("shape", SOURCES.values(), ids=SOURCES)
def test_guest_is_read_whatever_names_its_root(machine: Machine, shape: Shape) -> None:
    guest = build(machine, shape)
    kernel = discover(guest.memory())
    assert processes(kernel) == guest.rows(threads=True)
    assert kernel.profile.doubts == []
    assert kernel.profile.root.gpa == machine.base + machine.root_at
    assert kernel.profile.root.geometry.format == machine.name
    (row,) = banner(kernel).rows
    assert (row.banner, row.release, row.nodename) == (synthetic.BANNER, synthetic.RELEASE, "gecko")
    assert (row.machine, row.build_id) == (machine.uname, synthetic.BUILD_ID if shape.vmcoreinfo else "")
    if shape.kallsyms:
        calls = syscall(kernel)
        assert calls.complete
        assert [(call.symbol, call.offset, call.in_kernel_text) for call in calls] == [
            (name, 0, True) for name in guest.calls
        ]
    else:
        with pytest.raises(ProfileError, match="no system-call function is known"):
            syscall(kernel)


shapes = st.builds(
    Shape,
    gaps=st.lists(st.integers(0, 24), min_size=1, max_size=10).map(tuple),
    noise=st.none() | st.integers(0, 1 << 30),
    keys=st.booleans(),
    wide_usage=st.booleans(),
    saved_state=st.booleans(),
    all_symbols=st.booleans(),
    name_at=st.sampled_from((0, 4, 8)),
)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MACHINES), shapes)
def test_layout_is_inferred_rightly_or_said_to_be_unknown(machine: Machine, shape: Shape) -> None:
    guest = build(machine, shape)
    types = discover(guest.memory()).profile.types[-1]
    wanted = {("task_struct", name): offset for name, offset in guest.task.items()}
    wanted |= {("signal_struct", "thread_head"): guest.thread_head}
    wanted |= {("cred", name): guest.uid + 4 * at for at, name in enumerate(("uid", "gid", "suid", "sgid", "euid"))}
    for (struct_name, name), offset in wanted.items():
        member = types.member(struct_name, name)
        assert member is None or member.offset == offset, (struct_name, name)
        if shape.noise is None and name in {"tasks", "pid", "real_parent", "comm", "real_cred", "uid", "flags"}:
            assert member is not None, name


@machines
@pytest.mark.parametrize("base", [0, 0x1000_0000, 0x4000_0000, 0x8000_0000])
def test_base_of_ram_is_told_by_the_page_tables(machine: Machine, base: int) -> None:
    guest = build(replace(machine, base=base))
    kernel = discover(guest.memory(base=0), base_known=False)
    assert kernel.memory.regions[0].gpa == base
    assert processes(kernel) == guest.rows(threads=True)
    assert kernel.profile.doubts == []


@machines
def test_base_is_told_by_the_image_where_nothing_names_the_root(machine: Machine) -> None:
    guest = build(replace(machine, base=0x4000_0000), Shape(kallsyms=False, vmcoreinfo=False))
    kernel = discover(guest.memory(base=0), base_known=False)
    assert kernel.memory.regions[0].gpa == 0x4000_0000
    assert processes(kernel) == guest.rows(threads=True)


def test_base_that_nothing_tells_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "image_tables", lambda _: ())
    guest = build(ARM, Shape(kallsyms=False, vmcoreinfo=False))
    with pytest.raises(NoKernelError, match="--ram-base"):
        discover(guest.memory(base=0), base_known=False)


def test_wrong_base_is_no_kernel() -> None:
    with pytest.raises(NoKernelError, match="no page tables"):
        discover(build(ARM64).memory(base=0x8000_0000))


@machines
def test_ram_with_holes(machine: Machine) -> None:
    guest = build(machine)
    ram, base = bytes(guest.ram), machine.base
    blocks = {base: ram[: 5 * MIB], base + 5 * MIB: ram[5 * MIB :], base + 64 * MIB: bytes(MIB)}
    assert processes(discover(BytesMemory(dict(blocks)))) == guest.rows(threads=True)


def test_task_in_a_hole_is_said_to_be_out_of_ram() -> None:
    guest = build()
    last = guest.tasks[-1]
    cut = guest.at(last.gva) & -0x1000
    kernel = discover(guest.memory())
    lost = Kernel(BytesMemory({0: bytes(guest.ram[:cut])}), kernel.profile)
    result = plist(lost)
    assert not result.complete
    assert any("outside the guest's RAM" in reason for reason in result.reasons)
    assert shown(result) == guest.tasks[:-1]


@pytest.mark.parametrize("memory", [BytesMemory({}), BytesMemory({0: bytes(4 * MIB)})], ids=["no RAM", "zeros"])
def test_nothing_there(memory: BytesMemory) -> None:
    with pytest.raises(NoKernelError):
        discover(memory)
    with pytest.raises(NoKernelError):
        discover(memory, base_known=False)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 60), st.booleans())
def test_random_ram(seed: int, base_known: bool) -> None:
    with pytest.raises(NoKernelError, match="nothing in RAM looks like one"):
        discover(BytesMemory({0x4000_0000: random.Random(seed).randbytes(MIB)}), base_known=base_known)


def test_image_before_it_runs() -> None:
    guest = build()
    guest.write(guest.init, bytes(0x3000))
    with pytest.raises(NoKernelError, match="no Linux kernel is running yet: a kernel's image lies in RAM"):
        discover(guest.memory())


@machines
def test_early_boot_without_page_tables(machine: Machine) -> None:
    guest = build(machine)
    guest.ram[machine.root_at : machine.root_at + 0x10000] = bytes(0x10000)
    with pytest.raises(NoKernelError, match="no Linux kernel is running yet: init_task is there"):
        discover(guest.memory())


@machines
def test_early_boot_without_tasks(machine: Machine) -> None:
    guest = build(machine, plans=[])
    survives(guest.memory())


@machines
@pytest.mark.parametrize("target", ["itself", "outside"])
def test_hostile_root(machine: Machine, target: str) -> None:
    guest = build(machine)
    low = 3 if machine is ARM64 else 0x63 if machine is X86 else 1
    entry = (machine.base + machine.root_at if target == "itself" else 0xF000_0000) | low
    size = 0x4000 if machine is ARM else 0x1000
    guest.ram[machine.root_at : machine.root_at + size] = struct.pack(f"<{machine.code}", entry) * (
        size // machine.word
    )
    kernel = survives(guest.memory())
    # The image's lower tables still are a whole tree: of AArch64 with fewer levels, by their bits.
    assert kernel is None or any("but uname says" in doubt for doubt in kernel.profile.doubts)


@settings(max_examples=16, deadline=None)
@given(st.sampled_from(MACHINES), st.data())
def test_any_damage_to_image_and_heap_is_survived(machine: Machine, data: st.DataObject) -> None:
    guest = build(machine)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(
            st.sampled_from((synthetic.RODATA_AT, synthetic.DATA_AT, machine.root_at, synthetic.TASKS_AT))
        )
        at = start + 8 * data.draw(st.integers(0, 0x1000))
        size = 8 * data.draw(st.integers(1, 64))
        fill = data.draw(st.sampled_from(("zeros", "ones", "random", "self")))
        rng = random.Random(data.draw(st.integers(0, 99)))
        words = {
            "zeros": bytes(8),
            "ones": b"\xff" * 8,
            "random": rng.randbytes(8),
            "self": struct.pack("<Q", guest.init),
        }
        guest.ram[at : at + size] = words[fill] * (size // 8)
    survives(guest.memory())


@machines
@pytest.mark.parametrize("at", [0x10000, synthetic.RAM_SIZE - 0x8000], ids=["before", "after"])
def test_copy_of_init_task_is_not_believed(machine: Machine, at: int) -> None:
    guest = build(machine)
    copied = bytearray(guest.read(guest.init, 0x3000))
    copied[guest.task["tasks"] : guest.task["tasks"] + 2 * machine.word] = bytes(2 * machine.word)
    guest.ram[at : at + len(copied)] = copied
    kernel = discover(guest.memory())
    assert kernel.profile.init.gpa == machine.base + guest.at(guest.init)
    assert processes(kernel) == guest.rows(threads=True)


@machines
def test_init_task_that_claims_another_place_is_not_believed(machine: Machine) -> None:
    guest = build(machine)
    at = 0x10000
    decoy = Guest(replace(machine, linear=machine.linear + 0x100_0000), guest.shape, guest.ram, guest.task, guest.gaps)
    task = decoy.linear(at)
    for name in ("real_parent", "parent", "group_leader"):
        decoy.words(task + decoy.task[name], task)
    for name in ("children", "sibling", "ptraced", "ptrace_entry", "tasks"):
        decoy.ring(task + decoy.task[name])
    decoy.write(task + decoy.task["comm"], b"swapper/0".ljust(16, b"\0"))
    assert processes(discover(guest.memory())) == guest.rows(threads=True)


@pytest.mark.parametrize("count", [4, 40, 400])
@machines
def test_many_decoys_of_init_task_do_not_hide_the_real_one(machine: Machine, count: int) -> None:
    """A user of the guest can plant these: no physical address is needed for pages that agree in themselves."""
    guest = build(machine)
    words = "I" if machine.word == 4 else "Q"
    for at in range(0x10000, 0x10000 + count * 0x1000, 0x1000):
        task = 0xC000_0000 + at if machine.word == 4 else 0xFFFF_9000_0000_0000 + at * 0x1000
        heads = [task + machine.word * (index & ~1) for index in range(48)]
        heads += [task, task, *heads[:4], task]  # real_parent, parent, children, sibling, group_leader
        guest.ram[at : at + machine.word * len(heads)] = struct.pack(f"<{len(heads)}{words}", *heads)
        guest.ram[at + 0x300 : at + 0x310] = b"swapper/0".ljust(16, b"\0")
    with within(20):
        kernel = discover(guest.memory())
    assert processes(kernel) == guest.rows(threads=True)


def test_the_likely_candidate_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "GRACE", 0.0)
    guest = build()
    for at in range(0x10000, 0x10000 + 40 * 0x1000, 0x1000):
        task = 0xFFFF_9000_0000_0000 + at * 0x1000
        heads = [task + 8 * (index & ~1) for index in range(48)]
        heads += [task, task, *heads[:4], task]
        guest.ram[at : at + 8 * len(heads)] = struct.pack(f"<{len(heads)}Q", *heads)
        guest.ram[at + 0x300 : at + 0x310] = b"swapper/0".ljust(16, b"\0")
    kernel = discover(guest.memory())
    assert kernel.profile.doubts == [
        "41 things look like init_task, 2 of them were tried: somebody may be planting decoys"
    ]
    assert processes(kernel) == guest.rows(threads=True)


def test_names_packed_into_a_program_are_no_flood() -> None:
    guest = build()
    guest.ram[: 2 * MIB] = b"swapper/0\0\0\0\0\0\0\0" * (2 * MIB // 16)
    with within(20):
        kernel = discover(guest.memory())
    assert kernel.profile.doubts == []
    assert processes(kernel) == guest.rows(threads=True)


def test_flood_of_names_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MOST_SIGHTINGS", 100)
    guest = build()
    guest.ram[: 2 * MIB] = b"swapper/0\0\0\0\0\0\0\0" * (2 * MIB // 16)
    with pytest.raises(NoKernelError, match="full of what looks like init_task"):
        discover(guest.memory())


@pytest.mark.parametrize("at", [0x10000, synthetic.RAM_SIZE - 0x8000], ids=["before", "after"])
def test_decoys_of_banner_and_uts(at: int) -> None:
    guest = build(shape=Shape(vmcoreinfo=False))
    other = synthetic.BANNER.replace("6.1.0-9", "9.9.9-9").encode() + b"\n\0"
    guest.ram[at : at + len(other)] = other
    fields = [b"Linux", b"decoy", b"9.9.9-9-test", synthetic.VERSION.encode(), b"x86_64", b"x"]
    guest.ram[at + 0x800 : at + 0x800 + 6 * 65] = b"".join(text.ljust(65, b"\0") for text in fields)
    same = synthetic.BANNER.replace("builder", "decoy").encode() + b"\n\0"
    guest.ram[at + 0x1000 : at + 0x1000 + len(same)] = same
    (row,) = banner(kernel := discover(guest.memory())).rows
    assert (row.banner, row.nodename, row.release) == (synthetic.BANNER, "gecko", synthetic.RELEASE)
    assert kernel.profile.doubts == []


def test_many_banners_before_the_real_one() -> None:
    guest = build()
    decoy = b"Linux version 6.1.0 (x) #1\n\0".ljust(64, b"\0")
    guest.ram[0x8000 : 0x8000 + 64 * 500] = decoy * 500
    assert discover(guest.memory()).profile.banner == synthetic.BANNER


def test_uts_that_init_task_does_not_lead_to_is_doubted() -> None:
    guest = build()
    guest.words(guest.member(guest.init, "nsproxy"), 0)
    kernel = discover(guest.memory())
    assert kernel.profile.uts
    assert not kernel.profile.uts.proved
    assert any("init_uts_ns was found by its shape only" in doubt for doubt in kernel.profile.doubts)


def test_release_that_no_banner_repeats_is_doubted() -> None:
    guest = build()
    guest.write(guest.symbols["init_uts_ns"] + 2 * 65, b"6.6.6-evil".ljust(65, b"\0"))
    kernel = discover(guest.memory())
    assert kernel.profile.banner == ""
    assert any("no banner" in doubt for doubt in kernel.profile.doubts)
    assert any("VMCOREINFO speaks of another kernel" in doubt for doubt in kernel.profile.doubts)


@settings(max_examples=10, deadline=None)
@given(st.binary(min_size=1, max_size=64).filter(lambda name: b"\0" not in name))
def test_host_name_may_be_anything(name: bytes) -> None:
    guest = build()
    guest.write(guest.symbols["init_uts_ns"] + 65, name.ljust(65, b"\0"))
    (row,) = banner(discover(guest.memory())).rows
    assert row.nodename.isprintable()
    assert row.nodename.isascii()
    assert row.release == synthetic.RELEASE


def test_stale_kernel_of_an_earlier_boot_is_doubted() -> None:
    live = build(ARM64)
    slid = replace(ARM64, base=ARM64.base + 16 * MIB, image=ARM64.image + 0x1000_0000, linear=ARM64.linear + 16 * MIB)
    stale = build(slid, plans=synthetic.usual(3))
    memory = BytesMemory({ARM64.base: live.ram, slid.base: stale.ram})
    kernel = discover(memory)
    assert any("more than one kernel can be proved" in doubt for doubt in kernel.profile.doubts)
    assert processes(kernel) in (live.rows(threads=True), stale.rows(threads=True))


def test_kallsyms_with_an_altered_address_does_not_cost_the_root() -> None:
    guest = build(ARM64)
    at = synthetic.RODATA_AT + 0x4000 + guest.labels["addresses"]
    for index in range(40, 44):
        guest.ram[at + 4 * index : at + 4 * index + 4] = struct.pack("<I", 0x7FFF_FFF0)
    kernel = discover(guest.memory())
    assert processes(kernel) == guest.rows(threads=True)


TEXT = {"_text": 0x1000, "_stext": 0x2000, "_etext": 0x9000, "__start_rodata": 0xA000}


@pytest.mark.parametrize("damaged", [None, *TEXT])
@pytest.mark.parametrize("value", [0, 0x10, 0x7FFF_FFFF_FFFF])
def test_bounds_of_text_survive_one_bad_symbol(damaged: str | None, value: int) -> None:
    rows = [Symbol(value if name == damaged else address, "T", name) for name, address in TEXT.items()]
    text = kernel_text([Symbols(rows, "kallsyms")])
    assert text is not None
    assert text.start == (0x1000 if damaged == "_stext" else 0x2000)
    assert text.stop == (0xA000 if damaged == "_etext" else 0x9000)


def test_bounds_of_text_come_from_the_first_table_that_has_them() -> None:
    bare = Symbols([Symbol(0x5000, "T", "_stext"), Symbol(0x4000, "T", "_etext")], "system.map")
    whole = Symbols([Symbol(address, "T", name) for name, address in TEXT.items()], "kallsyms")
    assert kernel_text([bare, whole]) == range(0x2000, 0x9000)
    assert kernel_text([bare]) is None
    assert kernel_text([]) is None


def test_kallsyms_that_name_a_wrong_root_are_not_believed() -> None:
    guest = build(ARM64)
    for name in (b"SYMBOL(swapper_pg_dir)=",):
        at = guest.ram.find(name) + len(name)
        guest.ram[at : at + 16] = b"%016x" % guest.symbols["init_uts_ns"]
    kernel = discover(guest.memory())
    assert kernel.profile.root.gpa == ARM64.base + ARM64.root_at
    assert kernel.profile.root.source == "kallsyms swapper_pg_dir"


def test_given_symbols_are_slid_to_where_they_run() -> None:
    guest = build(ARM64, Shape(kallsyms=False, vmcoreinfo=False))
    slide = 0x20_0000
    linked = Symbols(
        [Symbol(address - slide, "T" if "sys_" in name else "D", name) for name, address in guest.symbols.items()]
        + [Symbol(0x40, "A", "per_cpu_thing")],
        "system.map",
    )
    kernel = discover(guest.memory(), Given(symbols=linked, source="System.map"))
    assert kernel.profile.slide == slide
    assert kernel.profile.address("init_task") == guest.init
    assert kernel.profile.address("per_cpu_thing") == 0x40
    assert len(syscall(kernel).rows) == synthetic.CALLS


def test_given_symbols_of_another_kernel_are_refused() -> None:
    guest = build(ARM64)
    linked = Symbols([Symbol(guest.init - 0x123, "D", "init_task")], "system.map")
    with pytest.raises(ProfileError, match="not of the kernel that runs"):
        discover(guest.memory(), Given(symbols=linked, source="System.map"))


def test_given_symbols_far_above_do_not_overflow() -> None:
    guest = build(ARM64, Shape(kallsyms=False, vmcoreinfo=False))
    rows = [Symbol(guest.init + 0x10_0000, "D", "init_task"), Symbol((1 << 64) - 0x1000, "D", "last")]
    kernel = discover(guest.memory(), Given(symbols=Symbols(rows, "system.map"), source="System.map"))
    assert kernel.profile.address("init_task") == guest.init


class Counting(BytesMemory):
    """Counts the bytes that are read."""

    total = 0

    def read(self, gpa: GPA, size: int) -> bytes:
        self.total += size
        return super().read(gpa, size)


def test_discovery_reads_ram_a_few_times_only() -> None:
    guest = build()
    memory = Counting({0: guest.ram})
    discover(memory)
    assert memory.total < 6 * synthetic.RAM_SIZE


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    discover(build().memory(), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (synthetic.RAM_SIZE, synthetic.RAM_SIZE)
    assert told == sorted(told)


def test_steps_are_told_once_each() -> None:
    names = [step.name for step in discover(build(ARM).memory(0), base_known=False).profile.steps]
    assert len(names) == len(set(names))
    assert names[0] == "scan of RAM"
    assert set(names) >= {"init_task", "kallsyms", "VMCOREINFO", "RAM base", "translation root", "banner", "inference"}


@machines
def test_random_order_of_members_is_recognised(machine: Machine) -> None:
    """CONFIG_RANDSTRUCT: what init_task holds is there, but not side by side; seen on a 6.1 kernel built so."""
    guest = build(machine, Shape(gaps=(14, 16)))
    init = guest.symbols["init_task"]
    guest.words(guest.member(init, "parent"), 0)
    guest.words(guest.member(init, "thread_node") - 2 * machine.word, init)
    with pytest.raises(ProfileError, match=r"random order \(CONFIG_RANDSTRUCT\)"):
        discover(guest.memory())
    guest.words(guest.member(init, "real_parent"), 0)  # only two are left: that is no init_task
    with pytest.raises(NoKernelError):
        discover(guest.memory())

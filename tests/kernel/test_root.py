"""``init_task``, the root and the RAM base on their own, under bytes that lie."""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel import synthetic
from tests.kernel.synthetic import ARM, ARM64, MACHINES, MIB, Guest, Machine, Shape, build

from yamori.address import GPA, GVA
from yamori.errors import MemoryFault, NoKernelError
from yamori.kernel import init_task, rambase, root
from yamori.kernel.rambase import Rebased, find_base
from yamori.kernel.root import Anchor, Evidence, Named, find_root, image_tables, init_mm_tables, search_root
from yamori.memory.physical import BytesMemory, Region
from yamori.translation.arm_lpae import ArmLpae
from yamori.translation.space import AddressSpace

machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def candidates(guest: Guest, base: int | None = None) -> list[init_task.InitTask]:
    base = guest.machine.base if base is None else base
    hits, at = [], guest.ram.find(init_task.NEEDLE)
    while at >= 0:
        hits.append(base + at)
        at = guest.ram.find(init_task.NEEDLE, at + 1)
    return list(init_task.candidates(guest.memory(base), hits))


def evidence(guest: Guest, base: int | None = None) -> Evidence:
    (init,) = candidates(guest, base)
    base = guest.machine.base if base is None else base
    anchors = [Anchor("banner", base + guest.ram.find(b"Linux version "))]
    anchors.append(Anchor("uts", base + guest.at(guest.symbols["init_uts_ns"])))
    return Evidence(guest.memory(base), init, anchors)


def text(guest: Guest) -> range:
    return range(guest.symbols["_stext"], guest.symbols["_etext"])


@machines
def test_init_task_says_where_it_is(machine: Machine) -> None:
    guest = build(machine)
    (found,) = candidates(guest)
    assert (found.gva, found.word_size) == (guest.init, machine.word)
    assert found.gpa == machine.base + guest.at(guest.init)
    assert found.image_offset == found.gva - found.gpa
    assert found.comm == found.gpa + guest.task["comm"]
    assert found.votes >= 3


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(MACHINES), st.integers(0, 1 << 30), st.integers(0, 0x3000))
def test_any_bytes_around_the_name_are_survived(machine: Machine, seed: int, at: int) -> None:
    data = bytearray(random.Random(seed).randbytes(0x4000))
    at &= -8
    data[at : at + 16] = b"swapper/0".ljust(16, b"\0")
    data[at // 2 & -8 :][:64] = bytes(64)
    found = list(init_task.candidates(BytesMemory({0: data}), [at, at + 1, 0x3FFC, 0x10_0000]))
    assert found == []


@machines
def test_every_way_leads_to_the_same_root(machine: Machine) -> None:
    guest = build(machine)
    proof = evidence(guest)
    place = machine.base + machine.root_at
    named = find_root(proof, [Named("somebody", guest.symbols["swapper_pg_dir"])])
    narrow = range(text(guest).start, text(guest).stop - 0x1000)
    led = find_root(proof, [], [narrow, text(guest)])
    searched = search_root(proof)
    assert named
    assert led
    assert searched
    assert {named.gpa, led.gpa, searched.gpa} == {place}
    assert (named.source, led.source) == ("somebody", "init_mm.pgd")
    assert set(named.anchors) == {"init_task", "banner", "uts"}
    assert named.lists >= 1
    assert find_root(proof, []) is None


@machines
def test_two_anchors_do_not_prove_a_root(machine: Machine) -> None:
    guest = build(machine)
    proof = evidence(guest)
    named = [Named("somebody", guest.symbols["swapper_pg_dir"])]
    assert find_root(proof._replace(anchors=proof.anchors[:1]), named) is None


@machines
@pytest.mark.parametrize("gva", [0, 1, 0x1234_5678, 1 << 63, (1 << 64) - 1, 1 << 80])
def test_named_root_that_lies_is_passed_over(machine: Machine, gva: int) -> None:
    guest = build(machine)
    found = find_root(evidence(guest), [Named("liar", gva), Named("truth", guest.symbols["swapper_pg_dir"])])
    assert found
    assert found.source == "truth"


@machines
def test_copy_of_the_root_far_from_the_image_is_not_preferred(machine: Machine) -> None:
    """Every process's table maps the kernel, too."""
    guest = build(machine)
    size = 0x4000
    for at in (6 * MIB + 0x10_0000, 7 * MIB):
        guest.ram[at : at + size] = guest.ram[machine.root_at : machine.root_at + size]
    found = search_root(evidence(guest))
    assert found
    assert found.gpa == machine.base + machine.root_at


@pytest.mark.parametrize("machine", [synthetic.X86, ARM], ids=["x86-64", "arm-short"])
def test_table_of_a_process_near_the_image_is_not_taken(machine: Machine) -> None:
    guest = build(machine)
    at = synthetic.DATA_AT + 0x1_0000
    for copied in (at, at + 0x4000):  # one that maps a program, and one of a program that has ended
        guest.ram[copied : copied + 0x4000] = guest.ram[machine.root_at : machine.root_at + 0x4000]
        guest.words(guest.linear(synthetic.HEAP_AT + 0x3000 + copied % 0x8000 // 64), guest.image(copied))
    guest.ram[at : at + 8] = (machine.base + 0x1000 | 0x67).to_bytes(8, "little")
    found = search_root(evidence(guest))
    assert found
    assert found.gpa == machine.base + machine.root_at


def test_planted_init_mm_is_bounded() -> None:
    guest = build(ARM)
    words = (guest.symbols["_stext"], guest.symbols["_etext"], 0, guest.symbols["init_mm"])
    pages = [0xC000_0000 + 0x1000 * page for page in range(60)]
    guest.ram[6 * MIB : 7 * MIB] = b"".join(word.to_bytes(4, "little") for word in (*pages, *words)) * (MIB // 256)
    found = list(init_mm_tables(evidence(guest), [text(guest)]))
    assert len(found) == len(set(found))
    assert len(found) <= root.MOST_TABLES


def test_root_whose_first_page_is_empty_is_among_the_tables() -> None:
    guest = build(ARM)
    assert not any(guest.ram[ARM.root_at : ARM.root_at + 0x1000])
    assert ARM.base + ARM.root_at in set(image_tables(evidence(guest)))


@machines
@pytest.mark.parametrize("base", [0, 0x20_0000, 0x4000_0000, 0x8000_0000])
def test_base_is_found_from_the_root(machine: Machine, base: int) -> None:
    guest = build(replace(machine, base=base))
    proof = evidence(guest, 0)
    table = guest.symbols["swapper_pg_dir"] - proof.init.image_offset
    assert find_base(proof, [0x1000, 0x7000, table]) == base


@machines
def test_base_that_no_table_tells(machine: Machine) -> None:
    guest = build(machine, Shape())
    assert find_base(evidence(guest, 0), [0, -4096, 0x1001, synthetic.RAM_SIZE, 1 << 70]) is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 30))
def test_root_of_random_bytes_tells_no_base(seed: int) -> None:
    guest = build(ARM64)
    guest.ram[ARM64.root_at : ARM64.root_at + 0x1000] = random.Random(seed).randbytes(0x1000)
    assert find_base(evidence(guest, 0), [ARM64.root_at]) is None


def test_search_for_the_base_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rambase, "PATIENCE", 0.1)
    guest = build(ARM64)
    proof = evidence(guest, 0)
    table = guest.symbols["swapper_pg_dir"] - proof.init.image_offset
    monkeypatch.setattr(rambase, "prove", lambda *_: None)
    started = time.monotonic()
    with pytest.raises(NoKernelError, match=r"not found in the 0\.1 s .*--ram-base"):
        find_base(proof, itertools.repeat(table))
    assert time.monotonic() - started < 5


def single_leaf(guest: Guest) -> Evidence:
    """Return evidence whose anchors all lie in the section of ``init_task``."""
    proof = evidence(guest)
    extra = Anchor("token table", proof.init.gpa + 0x8000)
    return proof._replace(anchors=[proof.anchors[1], extra])


def test_image_in_one_block_is_proved_by_lists_that_lead_out_of_it() -> None:
    guest = build(ARM)
    proof = single_leaf(guest)
    block = proof.init.gpa >> 20
    assert {gpa >> 20 for _, gpa in proof.anchors} == {block}
    found = find_root(proof, [Named("somebody", guest.symbols["swapper_pg_dir"])])
    assert found
    assert found.gpa == ARM.base + ARM.root_at


def test_lists_within_the_block_of_the_image_prove_nothing() -> None:
    guest = build(ARM)
    proof = single_leaf(guest)
    near = (guest.init & -0x10_0000) + 0xF_0000
    words = [guest.word(guest.init + at) for at in range(0, root.LIST_WINDOW, 4)]
    for at, word in enumerate(words):
        if word >= 0xC000_0000 and abs(word - guest.init) > root.LIST_WINDOW:
            guest.words(guest.init + 4 * at, near)
            guest.words(near + 4, guest.init + 4 * at)
    assert find_root(proof, [Named("somebody", guest.symbols["swapper_pg_dir"])]) is None


def test_random_page_that_is_a_block_of_a_gigabyte_is_no_root() -> None:
    """With long descriptors one word of 512 maps all of a 32-bit kernel, its lists, too."""
    guest = build(ARM)
    proof = evidence(guest)
    at = synthetic.DATA_AT + 0x2_0000
    # The last of four first-level entries: a block with the access flag set, for 0xC0000000 and up.
    guest.ram[at : at + 32] = bytes(24) + (ARM.base | 0x701).to_bytes(8, "little")
    geometry = ArmLpae()
    space = AddressSpace(proof.memory, geometry, GPA(ARM.base + at))
    assert space.translate(GVA(guest.init)).gpa == proof.init.gpa
    assert root.prove(proof, ARM.base + at, geometry, "") is None


def test_rebased_memory_names_the_address_that_was_asked_for() -> None:
    memory = Rebased(BytesMemory({0: bytes(64), 0x200: bytes(64)}), 0x4000_0000)
    with pytest.raises(
        MemoryFault, match=r"GPA 0x40001000 are beyond the end of RAM, 0x40000240: .*--ram-base"
    ) as caught:
        memory.read(GPA(0x4000_1000), 8)
    assert caught.value.gpa == 0x4000_1000
    with pytest.raises(MemoryFault, match="GPA 0x40000100 are outside"):
        memory.read(GPA(0x4000_0100), 8)


def test_rebased_memory() -> None:
    memory = Rebased(BytesMemory({0: b"abcdef", 16: b"xyz"}), 0x1000)
    assert memory.regions == (Region(0x1000, 6), Region(0x1010, 3))
    assert list(memory.populated()) == list(memory.regions)
    assert memory.read(GPA(0x1002), 3) == b"cde"
    for gpa in (0, 0xFFF, 0x1006):
        with pytest.raises(MemoryFault):
            memory.read(GPA(gpa), 1)

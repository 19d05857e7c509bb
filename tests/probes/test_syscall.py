"""System-call tables with entries that point elsewhere: shown, under their own numbers, wherever they are."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel import synthetic
from tests.kernel.synthetic import ARM, ARM64, CALLS, MACHINES, X86, Guest, Machine, Shape, build

from yamori.errors import ProfileError
from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel
from yamori.kernel.symbols import Symbol, Symbols
from yamori.probes import syscall as probe
from yamori.probes.run import run
from yamori.probes.syscall import syscall
from yamori.records import Result, SystemCall

NAMED = Shape()
SEARCHED = Shape(all_symbols=False, vmcoreinfo=False)
machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
shapes = pytest.mark.parametrize("shape", [NAMED, SEARCHED], ids=["by symbol", "by search"])


def table(guest: Guest, kind: str = "native") -> Result[SystemCall]:
    kernel = discover(guest.memory())
    started = time.perf_counter()
    result = run(kernel, syscall(kernel, table=kind))
    assert time.perf_counter() - started < 10
    return result


def entry(guest: Guest, nr: int) -> int:
    return guest.symbols["sys_call_table"] + nr * guest.machine.word


def module(machine: Machine) -> int:
    """Return an address where the architecture has its modules: not in the image, and not mapped here."""
    return {X86: 0xFFFF_FFFF_C012_3450, ARM64: 0xFFFF_8000_0812_3450, ARM: 0xBF01_2344}[machine]


@machines
@shapes
@pytest.mark.parametrize("nr", [0, 1, 5, 100, CALLS - 2, CALLS - 1])
def test_entry_that_points_to_a_module_is_shown_under_its_number(machine: Machine, shape: Shape, nr: int) -> None:
    guest = build(machine, shape)
    guest.words(entry(guest, nr), module(machine))
    result = table(guest)
    assert result.complete
    assert [row.nr for row in result] == list(range(CALLS))
    assert [row.nr for row in result if row.in_kernel_text is False] == [nr]
    hooked = result.rows[nr]
    assert (hooked.address, hooked.symbol) == (module(machine), "")
    assert [row.symbol for row in result if row.nr != nr] == [name for at, name in enumerate(guest.calls) if at != nr]


@machines
@shapes
def test_entry_that_points_into_a_function_shows_the_offset(machine: Machine, shape: Shape) -> None:
    guest = build(machine, shape)
    guest.words(entry(guest, 7), guest.symbols["helper3"] + 4)
    row = table(guest).rows[7]
    assert (row.symbol, row.offset, row.in_kernel_text) == ("helper3", 4, True)


@machines
@shapes
def test_several_entries_at_both_ends(machine: Machine, shape: Shape) -> None:
    guest = build(machine, shape)
    numbers = [0, 1, 2, CALLS - 3, CALLS - 2, CALLS - 1]
    for nr in numbers:
        guest.words(entry(guest, nr), module(machine) + nr * 16)
    assert [row.nr for row in table(guest) if row.in_kernel_text is False] == numbers


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(MACHINES), st.sampled_from((NAMED, SEARCHED)), st.sets(st.integers(0, CALLS - 1), max_size=12))
def test_hooks_are_found_or_the_table_is_not(machine: Machine, shape: Shape, hooks: set[int]) -> None:
    guest = build(machine, shape)
    for nr in hooks:
        guest.words(entry(guest, nr), module(machine) + nr * 4)
    try:
        rows = table(guest).rows
    except ProfileError:
        assert len(hooks & set(synthetic.NUMBERS[machine.name].values())) >= 3
        return
    assert {row.nr for row in rows if row.in_kernel_text is False} == hooks


def test_well_known_calls_that_are_hooked_do_not_hide_the_table() -> None:
    guest = build(ARM64, SEARCHED)
    for nr in (57, 63):
        guest.words(entry(guest, nr), module(ARM64))
    assert [row.nr for row in table(guest) if row.in_kernel_text is False] == [57, 63]


@machines
def test_table_that_cannot_be_found_is_one_sentence(machine: Machine) -> None:
    guest = build(machine, SEARCHED)
    guest.write(entry(guest, 0), bytes(CALLS * machine.word))
    with pytest.raises(ProfileError, match="no native system-call table was found"):
        table(guest)


@machines
def test_table_of_zeros_at_its_symbol_is_one_sentence(machine: Machine) -> None:
    guest = build(machine)
    guest.write(entry(guest, 0), bytes(CALLS * machine.word))
    with pytest.raises(ProfileError, match="there is no table at"):
        table(guest)


def with_symbol(guest: Guest, name: str, address: int) -> Kernel:
    kernel = discover(guest.memory())
    altered = Symbols([Symbol(address, "D", name)], "kallsyms")
    return Kernel(kernel.memory, replace(kernel.profile, symbols=[altered, *kernel.profile.symbols]))


@pytest.mark.parametrize("address", [0, 0x1000, 0xFFFF_8000_1030_1001, (1 << 64) - 8, 0xFFFF_0000_7FFF_0000])
def test_symbol_of_the_table_that_lies(address: int) -> None:
    kernel = with_symbol(build(ARM64), "sys_call_table", address)
    try:
        result = run(kernel, syscall(kernel))
    except ProfileError as error:
        assert "there is no table at" in str(error)  # noqa: PT017  # either is an answer
    else:
        assert not result.complete
        assert len(result) < CALLS


def test_table_that_ends_in_a_hole_is_cut_short() -> None:
    guest = build(ARM64)
    last = guest.linear(synthetic.RAM_SIZE - 0x1000)
    guest.words(last, *[guest.symbols["__arm64_sys_read"]] * 512)
    kernel = with_symbol(guest, "sys_call_table", last)
    result = run(kernel, syscall(kernel))
    assert len(result) == 512
    assert {row.symbol for row in result} == {"__arm64_sys_read"}


@shapes
def test_other_tables_are_told_apart(shape: Shape) -> None:
    guest = build(ARM64, shape)
    with pytest.raises(ProfileError, match="compat system-call table"):
        table(guest, "compat")
    with pytest.raises(ProfileError, match="no x32 system-call table"):
        table(guest, "x32")


def test_copy_of_the_table_is_noted() -> None:
    guest = build(ARM, SEARCHED)
    copy = synthetic.IMAGE_AT + 0xF0000
    start = guest.at(entry(guest, 0))
    guest.ram[copy : copy + CALLS * 4] = guest.ram[start : start + CALLS * 4]
    result = table(guest)
    assert any("another table" in note for note in result.notes)


def test_flood_of_pointers_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = build(ARM, SEARCHED)
    read = guest.symbols["sys_read"].to_bytes(4, "little")
    guest.ram[7 * synthetic.MIB : 8 * synthetic.MIB] = read * (synthetic.MIB // 4)
    result = table(guest)
    assert [row.symbol for row in result] == guest.calls
    assert any("planting decoys" in note for note in result.notes)


def test_new_dispatch_of_x86_is_noted() -> None:
    kernel = with_symbol(build(X86), "x64_sys_call", 0xFFFF_FFFF_8100_2000)
    assert any("x64_sys_call" in note for note in run(kernel, syscall(kernel)).notes)


def test_tables_of_numbers_cover_every_architecture() -> None:
    assert set(probe.NUMBERS) == {"arm", "aarch64", "riscv64", "x86_64", "compat"}

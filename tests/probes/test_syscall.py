"""System-call tables with entries that point elsewhere: shown, under their own numbers, wherever they are."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel import synthetic
from tests.kernel.synthetic import ARM, ARM64, CALLS, MACHINES, MODULES, X86, Guest, Machine, Shape, build

from yamori.errors import ProfileError
from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel
from yamori.kernel.symbols import Symbol, Symbols
from yamori.probes import syscall as probe
from yamori.probes.syscall import syscall
from yamori.records import Result, SystemCall

NAMED = Shape()
SEARCHED = Shape(all_symbols=False, vmcoreinfo=False)
machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
shapes = pytest.mark.parametrize("shape", [NAMED, SEARCHED], ids=["by symbol", "by search"])


def table(guest: Guest, kind: str = "native") -> Result[SystemCall]:
    kernel = discover(guest.memory())
    started = time.perf_counter()
    result = syscall(kernel, table=kind)
    assert time.perf_counter() - started < 10
    return result


def entry(guest: Guest, nr: int) -> int:
    return guest.symbols["sys_call_table"] + nr * guest.machine.word


def module(machine: Machine) -> int:
    """Return an address in the code of a module."""
    return MODULES[machine.name] + 0x344


@machines
@shapes
def test_data_behind_the_table_that_look_like_addresses_are_no_entries(machine: Machine, shape: Shape) -> None:
    guest = build(machine, shape)
    looks = {X86: 0xFFFF_FFFF_8FFF_FFF8, ARM64: 0xFFFF_00FF_003B_B8FF}.get(machine, 0xF03B_B8FC)
    guest.words(entry(guest, CALLS), looks, looks)
    assert len(table(guest).rows) == CALLS


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
        assert shape is SEARCHED
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
    with pytest.raises(ProfileError, match=r"no native system-call table was found.*--symbols"):
        table(guest)


@machines
def test_hooked_well_known_calls_of_a_named_table_are_shown_and_doubted(machine: Machine) -> None:
    guest = build(machine)
    hooks = sorted(synthetic.NUMBERS[machine.name].values())[:3]
    for nr in hooks:
        guest.words(entry(guest, nr), module(machine))
    result = table(guest)
    assert [row.nr for row in result if row.in_kernel_text is False] == hooks
    assert len(result) == CALLS
    assert not result.complete
    assert "hooked, or the symbol is wrong" in result.reasons[0]


def with_symbol(guest: Guest, name: str, address: int) -> Kernel:
    kernel = discover(guest.memory())
    altered = Symbols([Symbol(address, "D", name)], "kallsyms")
    return Kernel(kernel.memory, replace(kernel.profile, symbols=[altered, *kernel.profile.symbols]))


def without_symbol(kernel: Kernel, address: int) -> Kernel:
    """Put the table's symbol elsewhere in the one source that there is."""
    rows = [
        symbol if symbol.name != "sys_call_table" else symbol._replace(address=address)
        for symbols in kernel.profile.symbols
        for symbol in symbols
    ]
    return Kernel(kernel.memory, replace(kernel.profile, symbols=[Symbols(rows, "kallsyms")]))


LIES = [0, 0x1000, 0xFFFF_8000_1030_1001, 0xFFFF_8000_1030_1008, (1 << 64) - 8, 0xFFFF_0000_7FFF_0000]


@pytest.mark.parametrize("address", LIES)
def test_symbol_of_the_table_that_lies_does_not_hide_the_table(address: int) -> None:
    guest = build(ARM64)
    for kernel in (with_symbol(guest, "sys_call_table", address), without_symbol(discover(guest.memory()), address)):
        result = syscall(kernel)
        assert result.complete
        assert [row.symbol for row in result] == guest.calls


def test_table_before_which_its_symbol_lies_is_searched() -> None:
    """As a page of zeros in kallsyms does: all its symbols are at the image's start."""
    guest = build(ARM)
    kernel = without_symbol(discover(guest.memory()), entry(guest, 0) - 4 * 60)
    result = syscall(kernel)
    assert [row.symbol for row in result] == guest.calls
    assert any("is not the table" in note for note in result.notes)


def test_symbol_that_leads_to_another_table_is_doubted_where_there_is_no_better() -> None:
    guest = build(ARM64)
    guest.write(entry(guest, 0), bytes(CALLS * 8))
    last = guest.linear(synthetic.RAM_SIZE - 0x1000)
    guest.words(last, *[guest.symbols["__arm64_sys_read"]] * 512)
    kernel = with_symbol(guest, "sys_call_table", last)
    result = syscall(kernel)
    assert not result.complete
    assert len(result) == 512
    assert {row.symbol for row in result} == {"__arm64_sys_read"}


@machines
def test_symbol_that_was_moved_into_the_table_does_not_cut_it_short(machine: Machine) -> None:
    guest = build(machine)
    guest.words(entry(guest, 300), module(machine))
    kernel = with_symbol(guest, "helper7", entry(guest, 250))
    result = syscall(kernel)
    assert len(result) == CALLS
    assert [row.nr for row in result if row.in_kernel_text is False] == [300]
    kernel = with_symbol(guest, "compat_sys_call_table", entry(guest, 250))
    assert len(syscall(kernel)) == 250


def test_names_with_a_compilers_suffix_are_known() -> None:
    guest = build(ARM64)
    kernel = discover(guest.memory())
    rows = [
        symbol._replace(name=f"{symbol.name}.cfi_jt") if "_sys_" in symbol.name else symbol
        for symbol in kernel.profile.symbols[0]
    ]
    kernel = Kernel(kernel.memory, replace(kernel.profile, symbols=[Symbols(rows, "kallsyms")]))
    result = syscall(kernel)
    assert result.complete
    assert len(result) == CALLS


def test_damaged_kallsyms_are_said_to_be() -> None:
    guest = build(ARM64)
    at = synthetic.RODATA_AT + 0x4000 + guest.labels["addresses"]
    guest.ram[at : at + 4 * 128] = bytes(4 * 128)
    with pytest.raises(ProfileError, match=r"kallsyms, cannot be used: .* damaged.*--symbols"):
        table(guest)
    blob = synthetic.RODATA_AT + 0x4000
    guest.ram[blob : blob + 0x10000] = bytes(0x10000)
    with pytest.raises(ProfileError, match=r"missing, damaged or without them.*--symbols"):
        table(guest)


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
    assert any("x64_sys_call" in note for note in syscall(kernel).notes)


def test_tables_of_numbers_cover_every_architecture() -> None:
    assert set(probe.NUMBERS) == {"arm", "aarch64", "riscv64", "x86_64", "compat"}
